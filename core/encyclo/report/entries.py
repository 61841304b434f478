"""The page's lists of entries: least and most trusted, and all by category."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.report.wording import clip, interval, known, number, percent
from encyclo.runs.details_file import Near
from encyclo.schema import Book

SHOWN = 20
NEIGHBOURS = 4
LONGEST_NAME = 120
LONGEST_DEFINITION = 280


@dataclass(frozen=True)
class Trusted:
    """The most and least trusted entries; `note` explains ties at the end of the list."""

    most: list[dict[str, Any]]
    least: list[dict[str, Any]]
    measured: int
    note: str


Own = NDArray[np.int64] | None
"""Each entry's own held-out readings; None if not known."""
SAME = 0.05


def alike(book: Book) -> bool:
    """Return whether all confidences and the ends of their intervals are nearly the same: bars would tell nothing."""
    table = book.concepts
    columns = (table.confidence, table.confidence_low, table.confidence_high)
    measured = [column[np.isfinite(column)] for column in columns]
    return len(measured[0]) > 1 and all(len(column) and np.ptp(column) < SAME for column in measured)


def most_and_least(book: Book) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of the most and of the least trusted entries; no entry is in both."""
    order = ranking(book)
    most = order[: min(SHOWN, (len(order) + 1) // 2)]
    return most, order[len(most) :][::-1][:SHOWN]


def trusted(book: Book, near: Mapping[int, Near], own: Own = None) -> Trusted:
    """Return the most and least trusted entries with their nearest concepts, which `near` has by row."""
    bars = not alike(book)
    order = ranking(book)
    most, least = most_and_least(book)
    names = book.concepts.name

    def rows(chosen: NDArray[np.int64]) -> list[dict[str, Any]]:
        return [
            entry(book, int(i), own, bars)
            | {"nearest": [(entry_name(names[j], 60), number(c, 2), j) for j, c in near[int(i)][:NEIGHBOURS]]}
            for i in chosen
        ]

    return Trusted(rows(most), rows(least), len(order), _ties(book, order, most))


def by_category(book: Book, own: Own = None) -> list[dict[str, Any]]:
    """Return every entry, grouped by category; categories by name, entries in the run's order."""
    places: dict[str, list[int]] = {}
    for row, category in enumerate(book.concepts.category):
        places.setdefault(category, []).append(row)
    return [
        {
            "name": category_name(category),
            "count": f"{len(rows):,} {'entry' if len(rows) == 1 else 'entries'}",
            "settled": f"{int(book.concepts.settled[rows].sum()):,} settled",
            "median": percent(median(book.concepts.confidence[rows])),
            "entries": [entry(book, row, own) for row in rows],
        }
        for category, rows in sorted(places.items())
    ]


def entry(book: Book, row: int, own: Own = None, bars: bool = True) -> dict[str, Any]:
    """Return one entry's texts, and the interval in per cent for its bar, without `bars` none."""
    table = book.concepts
    figures = table.confidence[row], table.confidence_low[row], table.confidence_high[row]
    measured = all(known(figure) is not None for figure in figures)
    return {
        "row": row,
        "name": entry_name(table.name[row], LONGEST_NAME),
        "definition": clip(table.definition[row], LONGEST_DEFINITION),
        "category": category_name(table.category[row]),
        "confidence": interval(*figures)
        + (f", n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{own[row]:,}" if measured and own is not None else ""),
        "samples": f"{int(table.n_samples[row]):,}",
        "settled": bool(table.settled[row]),
        "bar": [f"{float(f) * 100:.0f}" for f in figures] if measured and bars else [],
    }


def median(values: NDArray[np.floating]) -> float | None:
    """Return the median of the values that are not NaN; None if there are none."""
    measured = values[np.isfinite(values)]
    return float(np.median(measured)) if len(measured) else None


def entry_name(name: str, most: int) -> str:
    """Return a concept's name for people, at most `most` characters."""
    return clip(name, most) if name.strip() else "(a blank name)"


def category_name(category: str) -> str:
    """Return a category for people: `people_and_roles` may break between words."""
    return clip(category.replace("_", " "), LONGEST_NAME) if category.strip() else "no category"


def ranking(book: Book, unmeasured_last: bool = False) -> NDArray[np.int64]:
    """Return the concepts with a measured confidence, most trusted first, ties in the run's order.

    With `unmeasured_last`, the other concepts come last; else they are left out.
    """
    confidence, low = book.concepts.confidence, book.concepts.confidence_low
    measured = np.flatnonzero(np.isfinite(confidence))
    order = measured[np.lexsort((measured, -low[measured], -confidence[measured]))]
    rest = np.flatnonzero(~np.isfinite(confidence)) if unmeasured_last else measured[:0]
    return np.concatenate([order, rest]).astype(np.int64)


def _ties(book: Book, order: NDArray[np.int64], most: NDArray[np.int64]) -> str:
    """Return a note if other entries have the same confidence as the last of the most trusted; else nothing."""
    if len(most) == 0:
        return ""
    confidence = book.concepts.confidence
    alike = int((confidence[order] == confidence[most[-1]]).sum())
    inside = int((confidence[most] == confidence[most[-1]]).sum())
    if alike == inside:
        return ""
    return (
        f"{alike:,} entries share the confidence of the last one listed as most trusted; they are ordered by "
        "the lower end of their interval, and then as in the run."
    )
