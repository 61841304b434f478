"""The oracle: a store that keeps everything in memory and can't be wrong.

It does what `encyclo.types.Store` says and nothing else, so that what another store answers can be compared
with what it answers. What is written in one process is gone with it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encyclo.errors import StoreError
from encyclo.schema import Book, Part, Schema
from encyclo.testing.stores_data import Content


@dataclass
class Shelf:
    """What is kept for one location."""

    parts: dict[str, Part] = field(default_factory=dict)
    finished: Content | None = None


class MemoryStore:
    """Keeps samples in memory; stores of one `location` and process share what they keep."""

    _shelves: dict[Path, Shelf] = {}  # noqa: RUF012 - shared on purpose: reopening finds what was written

    def __init__(self, location: Path, schema: Schema) -> None:
        self.location, self.schema = location, schema
        self._shelf = self._shelves.setdefault(location, Shelf())

    def write_part(self, name: str, part: Part) -> None:
        """Keep a copy of one part; an old one is replaced."""
        self._shelf.parts[name] = copy.deepcopy(part)

    def read_part(self, name: str) -> Part:
        """Return a copy of one part. Raises StoreError if it was never written."""
        try:
            return copy.deepcopy(self._shelf.parts[name])
        except KeyError as error:
            raise StoreError(f"There is no part {name} in {self.location}.") from error

    def finalise(self, parts: Sequence[str], book: Book) -> Path:
        """Join the parts, in that order, and the book; an old encyclopedia is replaced."""
        samples = Part.join([self.read_part(name) for name in parts])
        self._shelf.finished = Content(copy.deepcopy(book), samples)
        return self.location

    def open(self) -> MemoryReader:
        """Open the encyclopedia. Raises StoreError if there is none."""
        if self._shelf.finished is None:
            raise StoreError(f"There is no encyclopedia in {self.location}; run the same command again.")
        return MemoryReader(self._shelf.finished)


class MemoryReader:
    """A finished encyclopedia in memory."""

    def __init__(self, content: Content) -> None:
        self.book, self._samples = content.book, content.samples

    def owners(self) -> NDArray[np.int32]:
        """Return each sample's concept: int32 [n]."""
        return self._samples.concept.copy()

    def samples(self, rows: slice | NDArray[np.int64]) -> Part:
        """Return samples by row."""
        return take(self._samples, rows)

    def close(self) -> None:
        """Do nothing."""


def take(part: Part, rows: slice | NDArray[np.int64]) -> Part:
    """Return some rows of a part."""
    numbers = np.arange(len(part))[rows]
    return Part(
        activations=part.activations[numbers],
        scale=part.scale[numbers],
        concept=part.concept[numbers],
        stage=part.stage[numbers],
        family=[part.family[i] for i in numbers],
        prompt=[part.prompt[i] for i in numbers],
        span=part.span[numbers],
    )
