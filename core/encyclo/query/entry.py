"""One concept's entry, `book["democracy"]`. Neighbours and samples are read on first use."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from encyclo.query.html import shown, table
from encyclo.schema import Part
from encyclo.text import one_line

PROMPTS = 5
"""The number of prompts that a notebook shows of an entry."""

NO_NEIGHBOUR = "none: no signature is similar, or too few samples mention it"


@dataclass(frozen=True)
class Neighbour:
    """A concept and its nearness: the cosine of centred, scaled signatures, averaged over layers."""

    name: str
    cosine: float


class EntrySource(Protocol):
    """What an entry reads from its encyclopedia on first use."""

    @property
    def own_readings(self) -> NDArray[np.int64] | None:
        """Each entry's own held-out readings, by row; None if not recorded."""
        ...

    def nearest(self, row: int, count: int) -> list[Neighbour]:
        """Return at most `count` nearest concepts of the concept in `row`."""
        ...

    def samples_of(self, row: int) -> Part:
        """Return the samples of the concept in `row`."""
        ...


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
    """The mean over the samples that mention the concept: float32 [L, H]."""
    layers: tuple[int, ...]
    """The run's layers, in the signature's order."""
    row: int
    """The concept's row in the encyclopedia."""
    book: EntrySource = field(repr=False)
    neighbours: int = 8

    @property
    def by_layer(self) -> dict[int, NDArray[np.float32]]:
        """The signature by layer, named as in the run's configuration (such as -6): float32 [H] each."""
        return dict(zip(self.layers, self.signature, strict=True))

    @property
    def own_readings(self) -> int | None:
        """How many held-out readings of this entry its confidence rests on; None if the run recorded none."""
        found = self.book.own_readings
        return None if found is None else int(found[self.row])

    @cached_property
    def nearest(self) -> list[Neighbour]:
        """The concepts whose centred signatures are nearest, the nearest first."""
        return self.book.nearest(self.row, self.neighbours)

    @cached_property
    def samples(self) -> Part:
        """The concept's samples, read from disk on first use: `prompt`, `family`, `span`, `values()` and so on.

        Raises DamagedError if they were changed.
        """
        return self.book.samples_of(self.row)

    def __repr__(self) -> str:
        near = ", ".join(neighbour.name for neighbour in self.nearest[:4])
        return one_line(
            f"<Entry {self.name!r}: confidence {confidence_text(self)}{_own(self)}, {self.n_samples:,} samples"
            f"{f', nearest {near}' if near else ''}>"
        )

    def _repr_html_(self) -> str:
        state = ("settled" if self.settled else "not settled") + (", converged" if self.converged else "")
        rows = [
            ("Confidence", confidence_text(self) + _own(self)),
            ("Samples", f"{self.n_samples:,}, {state} after stage {self.stage}"),
            ("Length by layer", lengths_text(self)),
            ("Nearest", nearest_text(self)),
            *(("Prompt", prompt) for prompt in self.samples.prompt[:PROMPTS]),
        ]
        title = f"<b>{shown(self.name)}</b> {shown(self.category)}<br>{shown(self.definition)}"
        return f"<div>{title}{table(rows)}</div>"


def confidence_text(entry: Entry) -> str:
    """Return `98% (91% to 100%)`, or `not measured`."""
    if math.isnan(entry.confidence):
        return "not measured"
    return f"{entry.confidence:.0%} ({entry.low:.0%} to {entry.high:.0%})"


def _own(entry: Entry) -> str:
    """Return `, 2 own readings`; nothing without a confidence or where they are not recorded."""
    count = None if math.isnan(entry.confidence) else entry.own_readings
    return "" if count is None else f", {count:,} own reading{'' if count == 1 else 's'}"


def nearest_text(entry: Entry) -> str:
    """Return the neighbours with their cosines, or why there are none."""
    return ", ".join(f"{n.name} {n.cosine:.2f}" for n in entry.nearest) or NO_NEIGHBOUR


def lengths_text(entry: Entry) -> str:
    """Return the signature's length at each layer: `-12: 4,030, -9: 7,537`."""
    lengths = np.linalg.norm(entry.signature, axis=-1)
    return ", ".join(f"{layer}: {length:,.0f}" for layer, length in zip(entry.layers, lengths, strict=True))
