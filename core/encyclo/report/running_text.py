"""The page's section about running text: what `encyclo read` finds in a labelled text, beside its baselines."""

from __future__ import annotations

from typing import Any

from encyclo.report.wording import NOT_MEASURED, clip, known, number, percent
from encyclo.runs.metrics import Metrics
from encyclo.statistics.figures import TextReaders, TextReadings

READERS = {
    "read": "encyclo read",
    "any_word": "encyclo read --any-word: the interpreter alone",
    "shares": "the words' shares, without the interpreter",
}
"""The readers, as the page names them."""


def running_text(metrics: Metrics) -> dict[str, Any] | None:
    """Return the tables by sense and by word; None if no labelled text was read."""
    found = metrics.running_text
    if found is None:
        return None
    return {
        "source": clip(found.source.file, 60),
        "words": number(found.words),
        "documents": number(found.documents),
        "at_least": percent(found.at_least),
        "tables": [
            {"by": by, "mentions": number(readers.mentions), "rows": _rows(readers)}
            for by, readers in (("sense", found), ("word", found.by_word))
        ],
    }


def _rows(readers: TextReaders) -> list[list[str]]:
    return [
        [READERS.get(name, clip(name, 40)), *_cells(row)]
        for name, row in {"read": readers.read, **readers.baselines}.items()
    ]


def _cells(row: TextReadings) -> list[str]:
    interval = NOT_MEASURED
    if known(row.precision_low) is not None and known(row.precision_high) is not None:
        interval = f"{percent(row.precision_low, 1)} to {percent(row.precision_high, 1)}"
    shares = (percent(row.recall, 1), percent(row.precision, 1))
    return [number(row.readings), *shares, interval, number(row.others_per_1000, 1), number(row.ece, 3)]
