"""Which other concepts the interpreter reads in an entry's samples."""

from __future__ import annotations

import numpy as np

from encyclo.query.encyclopedia import Encyclopedia


def confusions_text(book: Encyclopedia, name: str, count: int = 5) -> str:
    """Return how many of the samples of `name` are read as which other concepts, and which score next highest."""
    row, values = book.index(name), book.samples(name).values()
    scores = book.interpreter().read(values)
    names, total = book.book.concepts.name, len(values)
    instead = np.bincount(scores.argmax(axis=1), minlength=len(names))
    misread = int(total - instead[row])
    instead[row] = 0
    order = [int(i) for i in np.lexsort((-scores.mean(axis=0), -instead)) if i != row][:count]
    read = [f"as {names[i]} {instead[i]:,}" for i in order if instead[i]]
    after = ", ".join(names[i] for i in order if not instead[i])
    said = f"{misread:,} of {total:,} samples misread" if misread else f"none of {total:,} samples misread"
    said += f", {', '.join(read)}" if read else ""
    return f"{said}; the next likely: {after}" if after else said
