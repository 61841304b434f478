"""Build the page from a run's record, metrics and book, and write it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from encyclo.echo import how_given
from encyclo.report.rendering import render
from encyclo.report.wording import clip, moment, where_read
from encyclo.runs.details_file import Details, SignatureFigures
from encyclo.runs.metrics import Metrics
from encyclo.runs.unmeasured import no_calibration
from encyclo.schema import Attributes, Book
from encyclo.storage import run_files

CONTENTS = (
    ("all", "Entries"),
    ("mapping", "Map"),
    ("figures", "What was measured"),
    ("stages", "Stages"),
    ("ladder", "Reading back"),
    ("convergence", "Convergence"),
    ("calibration", "Confidences"),
    ("coverage", "Accuracy by coverage"),
    ("running-text", "Running text"),
    ("explained", "Share explained"),
    ("pairs", "Confused pairs"),
    ("trust", "Least and most trusted"),
    ("repeat", "Repeat this run"),
)
"""The page's sections, in its order: the id of a heading and its name in the table of contents."""
STATIC = 5000
"""If there are more entries than this, only the page's script lists them."""


def write_report(
    path: Path,
    record: dict[str, Any],
    metrics: Metrics,
    book: Book,
    details: Details | None = None,
    signatures: SignatureFigures | None = None,
) -> None:
    """Write the page about a run to `path`: one HTML file that needs no network.

    `record` is run.json's content, `metrics` metrics.json's; a figure that is None is shown as "not measured".
    `details` (report/details.py) comes from the run's samples; without it, entries show only what the book
    holds. `signatures` are computed if they are not given. The same arguments give the same bytes.
    """
    if signatures is None:
        from encyclo.report.signature_figures import signature_figures
        from encyclo.statistics.similarity import Similarity

        signatures = signature_figures(book, Similarity.of(book.signatures), np.empty(0, np.int64))
    page = render("page.html.j2", _context(record, metrics, book, details, signatures))
    run_files.write_text(path.parent, path.name, page)


def _context(
    record: dict[str, Any],
    metrics: Metrics,
    book: Book,
    details: Details | None,
    signatures: SignatureFigures,
) -> dict[str, Any]:
    """Return everything that the template prints, as texts."""
    from encyclo.report import entries, explained, headline, payload, running_text, sections

    interpreter = str((record.get("config") or {}).get("interpreter") or "interpreter")
    own = details.own if details else None
    figures, unknown = headline.key_figures(metrics, interpreter, book)
    script = payload.asset("common.js", "entries.js", "map.js")
    return {
        "model": book.attributes.model,
        "about": headline.about(record, book),
        "contents": CONTENTS,
        "meaning": headline.meaning(metrics, book, details),
        "run": [*_run(record, book.attributes), ("Capture", headline.capture_line(metrics))],
        "command": _command(record.get("command")),
        "figures": figures,
        "unknown": unknown,
        "stages": sections.stages(metrics),
        "ladder": sections.ladder(metrics, interpreter),
        "ladder_plot": sections.ladder_plot(metrics, interpreter),
        "families": sections.families(metrics),
        "convergence": sections.convergence(metrics, book.attributes),
        "curve": sections.curve(details),
        "no_halves": sections.NO_HALVES,
        "reliability": sections.reliability(metrics, interpreter),
        "no_calibration": no_calibration(metrics),
        "coverage": sections.coverage(metrics, interpreter),
        "running_text": running_text.running_text(metrics),
        "explained": explained.explained(metrics),
        "atlas": signatures.atlas,
        "confused": sections.confused(metrics, interpreter, details, book),
        "trusted": entries.trusted(book, signatures.nearest, own),
        "bars": not entries.alike(book),
        "categories": entries.by_category(book, own) if len(book.concepts) <= STATIC else [],
        "total": f"{len(book.concepts):,}",
        "details": _details(record),
        "style": payload.asset("style.css"),
        "script": script,
        "policy": payload.policy(script),
        "data": payload.as_json(payload.page_data(book, details, signatures)),
    }  # fmt: skip


def _run(record: dict[str, Any], attributes: Attributes) -> list[tuple[str, str]]:
    """Return the run's model, weights, layers, id and time, with labels."""
    provenance, config = record.get("provenance") or {}, record.get("config") or {}
    weights = [provenance.get(key) for key in ("model_source", "model_quantisation")]
    source, site = "; ".join(text for text in weights if text), where_read(config.get("site"))
    layers = ", ".join(
        f"{layer} ({index})" for layer, index in zip(attributes.layers, attributes.layer_index, strict=True)
    )
    return [
        ("Model", attributes.model),
        ("Weights", source or "the run did not record where they come from"),
        ("Weights' sha256", f"{attributes.weights_sha256[:12]}…"),
        ("Layers", f"{layers.replace('-', '−')}; in brackets the same counted from the embedding, 0"),
        *([("Site", f"{site} to the residual stream")] if site else []),
        ("Pooling", attributes.pooling + how_given(config)),
        ("Begun", moment(record.get("created") or attributes.created)),
        ("Run", f"{attributes.run_id}, encyclo {attributes.encyclo_version}"),
    ]


def _command(command: Any) -> str:
    """Return the command line, quoted for a shell."""
    if isinstance(command, list | tuple):
        command = shlex.join(str(word) for word in command)
    return clip(str(command), 2000) if command else "not recorded"


def _details(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what is needed to repeat the run, as JSON under headings."""
    kept = {
        "Configuration": record.get("config"),
        "Plugins": (record.get("provenance") or {}).get("plugins"),
        "Versions": record.get("versions"),
        "Platform": record.get("platform"),
    }
    return [
        (heading, clip(json.dumps(value, indent=2, ensure_ascii=False), 20_000))
        for heading, value in kept.items()
        if value
    ]
