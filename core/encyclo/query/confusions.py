"""Which other concepts the interpreter reads in an entry's samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encyclo.runs.details_file import KEPT, Confusion
from encyclo.statistics.similarity import smallest


def confusion_of(scores: NDArray[np.floating], row: int, count: int = KEPT) -> Confusion:
    """Return which other concepts are read in samples of the concept in `row` with these scores, [n, C]; n > 0."""
    instead = np.bincount(scores.argmax(axis=1), minlength=scores.shape[1])
    misread = int(len(scores) - instead[row])
    instead[row] = 0
    margin, mean = (scores[:, [row]] - scores).mean(axis=0), scores.mean(axis=0)
    # Those that were read instead come first; the other places need no more rows than these.
    read = np.flatnonzero(instead)
    rows = np.union1d(read, smallest(-mean, count + 1 + len(read)))
    likeliest = rows[np.lexsort((-mean[rows], -instead[rows]))]
    near = smallest(margin, count + 1)
    return Confusion(
        len(scores),
        misread,
        [(i, int(instead[i])) for i in _first(likeliest, row, count)],
        [(i, float(margin[i])) for i in _first(near[np.argsort(margin[near], kind="stable")], row, count)],
    )


def confusion_text(found: Confusion, names: Sequence[str]) -> str:
    """Return how many of an entry's samples are read as which other concepts, and which score next highest."""
    total = found.samples
    read = [f"as {names[row]} {times:,}" for row, times in found.likeliest if times]
    after = ", ".join(names[row] for row, times in found.likeliest if not times)
    said = (
        f"{found.misread:,} of {total:,} samples misread"
        if found.misread
        else f"none of {total:,} samples misread"
    )
    said += f", {', '.join(read)}" if read else ""
    return f"{said}; the next likely: {after}" if after else said


def _first(order: NDArray[np.int64], row: int, count: int) -> list[int]:
    return [int(other) for other in order[: count + 1] if other != row][:count]
