"""One concept's entry: what `book["democracy"]` gives. What costs time (neighbours, samples) is found on first use."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from encyclo.query.encyclopedia import Encyclopedia
    from encyclo.schema import Part


@dataclass(frozen=True)
class Neighbour:
    """A concept and how near it is: the cosine of centred, scaled signatures, averaged over layers."""

    name: str
    cosine: float


@dataclass(frozen=True, repr=False, eq=False)
class Entry:
    """One concept's entry. `confidence`, `low` and `high` are NaN where the run could not measure them."""

    id: str
    name: str
    definition: str
    category: str
    stage: int
    n_samples: int
    confidence: float
    low: float
    high: float
    """`low` and `high` are the ends of the confidence's 95% interval."""
    converged: bool
    settled: bool
    signature: NDArray[np.float32]
    """Mean over the samples that mention the concept: float32 [L, H]."""
    layers: tuple[int, ...]
    """The run's layers, in the signature's order."""
    row: int
    """The concept's place in the encyclopedia."""
    book: Encyclopedia = field(repr=False)
    neighbours: int = 8

    @property
    def by_layer(self) -> dict[int, NDArray[np.float32]]:
        """The signature by layer, named as the run names it (such as -6): float32 [H] each."""
        return dict(zip(self.layers, self.signature, strict=True))

    @cached_property
    def nearest(self) -> list[Neighbour]:
        """The concepts whose centred signatures are nearest, the nearest first."""
        return self.book.nearest(self.row, self.neighbours)

    @cached_property
    def samples(self) -> Part:
        """The concept's samples, read from disk on first use: `prompt`, `family`, `span`, `values()` and so on.

        Raises DamagedError if they are not what was written.
        """
        return self.book.source.samples(self.book.rows_of(self.row))

    def __repr__(self) -> str:
        near = ", ".join(neighbour.name for neighbour in self.nearest[:4])
        return (
            f"<Entry {self.name!r}: confidence {confidence_text(self)}, {self.n_samples:,} samples"
            f"{f', nearest {near}' if near else ''}>"
        )

    def _repr_html_(self) -> str:
        from encyclo.query.html import entry_html

        return entry_html(self)


def confidence_text(entry: Entry) -> str:
    """Return `98% (91% to 100%)`, or that it was not measured."""
    if math.isnan(entry.confidence):
        return "not measured"
    return f"{entry.confidence:.0%} ({entry.low:.0%} to {entry.high:.0%})"
