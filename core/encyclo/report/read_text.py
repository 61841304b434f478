"""The page about a text: a heat map over its tokens, and each token's concepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from encyclo.query.readings import TokenReading, cut_at_tokens
from encyclo.report import payload
from encyclo.report.entries import LONGEST_NAME, entry_name
from encyclo.report.rendering import render
from encyclo.report.wording import percent, thousandths
from encyclo.storage import files


def write_reading(
    path: Path,
    text: str,
    readings: Sequence[TokenReading],
    model: str,
    run: str,
    at_least: float,
    basis: str = "",
    own: Mapping[str, int] | None = None,
) -> None:
    """Write the page about `text` and its readings to `path`: one HTML file that needs no network.

    `readings` are in the text's order; `run` names the run that read it,
    `basis` says what the confidences rest on, `own` how many held-out readings each concept (by id) has. The same
    arguments give the same bytes.
    """
    calibrated = any(reading.concepts[0].confidence is not None for reading in readings)
    answered = sum(reading.read is not None for reading in readings)
    *pieces, (rest, _, _) = cut_at_tokens(text, readings)
    script = payload.asset("common.js", "reading.js")
    context = {
        "model": model,
        "about": [
            ("Run", run),
            ("Tokens", f"{len(readings):,}, of which {answered:,} were read as a concept"),
            *([("Confidences", basis)] if basis else []),
        ],
        "calibrated": calibrated,
        "at_least": percent(at_least),
        "pieces": pieces,
        "rest": rest,
        "style": payload.asset("style.css"),
        "script": script,
        "policy": payload.policy(script),
        "data": payload.as_json(_data(readings, calibrated, own)),
    }
    files.write_text(path, render("reading.html.j2", context))


def _data(
    readings: Sequence[TokenReading], calibrated: bool, own: Mapping[str, int] | None
) -> dict[str, Any]:
    names: dict[str, int] = {}
    shown: list[str] = []
    tokens: list[list[Any]] = []
    for reading in readings:
        for candidate in reading.concepts:
            if names.setdefault(candidate.id, len(names)) == len(shown):
                shown.append(entry_name(candidate.name, LONGEST_NAME))
        tokens.append(
            [
                [[names[c.id], thousandths(c.confidence)] for c in reading.concepts],
                thousandths(reading.familiarity),
                int(reading.read is not None),
            ]
        )
    return {
        "names": shown,
        "tokens": tokens,
        "calibrated": calibrated,
        "own": [own.get(id, 0) for id in names] if own else [],
    }
