"""The data of the page's script, as compact JSON: every entry, its details, the map."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files as resources
from typing import Any

import numpy as np

from encyclo.report.entries import LONGEST_DEFINITION, LONGEST_NAME, alike, category_name, entry_name
from encyclo.report.wording import clean, clip, interval, known, thousandths
from encyclo.runs.details_file import Detail, Details, SignatureFigures
from encyclo.schema import Book

LONGEST_PROMPT = 160


def page_data(book: Book, details: Details | None, signatures: SignatureFigures) -> dict[str, Any]:
    """Return the page's data; assets/entries.js explains the keys."""
    table, atlas = book.concepts, signatures.atlas
    categories = sorted({category_name(c) for c in table.category})
    place = {name: index for index, name in enumerate(categories)}
    families: dict[str, int] = {}
    columns = {
        "name": [entry_name(name, LONGEST_NAME) for name in table.name],
        "definition": [clip(text, LONGEST_DEFINITION) for text in table.definition],
        "category": [place[category_name(c)] for c in table.category],
        "confidence": [thousandths(c) for c in table.confidence],
        "low": [thousandths(c) for c in table.confidence_low],
        "high": [thousandths(c) for c in table.confidence_high],
        "trust": [
            interval(*row)
            for row in zip(table.confidence, table.confidence_low, table.confidence_high, strict=True)
        ],
        "own": [] if details is None or details.own is None else details.own.tolist(),
        "samples": table.n_samples.tolist(),
        "stage": table.stage.tolist(),
        "settled": table.settled.astype(int).tolist(),
        "converged": table.converged.astype(int).tolist(),
        "carried": signatures.carried,
    }
    found = details.entries if details else {}
    return {
        "layers": [
            f"{layer} ({index})".replace("-", "−")
            for layer, index in zip(book.attributes.layers, book.attributes.layer_index, strict=True)
        ],
        "categories": categories,
        "entries": columns,
        "bars": not alike(book),
        "details": {str(row): _detail(detail, families) for row, detail in found.items()},
        "families": [clip(name, LONGEST_NAME) for name in families],
        "map": [] if atlas is None else np.column_stack([atlas.rows, atlas.places]).tolist(),
    }  # fmt: skip


def as_json(data: Any) -> str:
    """Return `data` as JSON that is safe in a script element: no markup, only valid UTF-8."""
    text = clean(json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def asset(*names: str) -> str:
    """Return the named files of this package's assets, joined."""
    folder = resources("encyclo.report").joinpath("assets")
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8").strip() for name in names)


def policy(script: str) -> str:
    """Return the Content-Security-Policy of a page that runs only this script and loads nothing."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )


def _detail(detail: Detail, families: dict[str, int]) -> list[Any]:
    """Return [nearest, confused, readings, right, held, prompts, samples, raw, centred]."""
    return [
        [[row, round(cosine * 100)] for row, cosine in detail.nearest],
        [
            [row, times, round(margin, 1)]
            for row, times, margin in detail.confused
            if known(margin) is not None
        ],
        detail.readings,
        detail.right,
        int(detail.held),
        [
            [clip(" ".join(text.split()), LONGEST_PROMPT), families.setdefault(family, len(families))]
            for text, family in detail.prompts
        ],
        detail.samples,
        [thousandths(figure) for figure in detail.raw],
        [thousandths(figure) for figure in detail.centred],
    ]
