"""The samples of an open run: rows by concept and stage, activations, one layer, shuffled batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encyclo import half_precision
from encyclo.errors import UsageError
from encyclo.schema import Part
from encyclo.storage.sample_rows import Batch, Rows, Source, batches, check_batches, fetch, row_numbers


class RunSamples(ABC):
    """The part of an open run that reads samples; `encyclo.open` gives an `Encyclopedia`, which has it all."""

    path: Path
    source: Source
    """All samples, by row."""
    concepts: list[str]
    """Every concept's name, in the run's order."""

    @property
    @abstractmethod
    def layers(self) -> tuple[int, ...]:
        """The run's layers, as named in its configuration (-1 is the last)."""

    @abstractmethod
    def index(self, name: str) -> int:
        """Return the row of a concept by name, id, word or alias. Raises UsageError if there isn't one."""

    def rows(self, concept: str | None = None, stage: int | None = None) -> NDArray[np.int64]:
        """Return the rows of the samples of `concept`, of `stage`, or of both: int64, ascending.

        Raises UsageError for an unknown concept.
        """
        columns = self.source.columns
        rows = np.arange(len(columns)) if concept is None else self.rows_of(self.index(concept))
        return rows if stage is None else rows[columns.stage[rows] == stage]

    def samples_of(self, row: int) -> Part:
        """Return the samples of the concept in row `row` of the book. Raises DamagedError."""
        return self.source.samples(self.rows_of(row))

    def rows_of(self, place: int) -> NDArray[np.int64]:
        """Return the rows of the samples of the concept in row `place` of the book."""
        order, edges = self._by_concept
        return order[edges[place] : edges[place + 1]]

    @cached_property
    def _by_concept(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All rows by concept, and where in them each concept begins."""
        owner = self.source.columns.concept
        order = np.argsort(owner, kind="stable")
        return order, np.searchsorted(owner[order], np.arange(len(self.concepts) + 1))

    def samples(self, name: str | None = None, stage: int | None = None) -> Part:
        """Return the samples of the concept `name`, of `stage`, or of both. Raises DamagedError."""
        return self.source.samples(self.rows(name, stage))

    def activations(self, rows: Rows, layer: int | None = None) -> NDArray[np.float32]:
        """Return the activations of `rows`: float32 [k, L, H], or [k, H] at one of the run's layers.

        Rows are numbers, a slice, or a mask over all samples. `layer` is named as in the run's configuration (such as
        -6). Raises UsageError, DamagedError.
        """
        rows = self._numbers(rows)
        if layer is None:
            return fetch(self.source, rows)
        place = self._layer(layer)
        scale = self.source.columns.scale[rows, place]
        return half_precision.decode(self.source.halves(rows, [place])[:, 0], scale)

    def layer(self, layer: int, block: int = 16_384) -> Iterator[NDArray[np.float32]]:
        """Yield one layer of all samples in order, float32 [at most `block`, H] at a time."""
        for start in range(0, len(self.source.columns), block):
            yield self.activations(np.arange(start, min(start + block, len(self.source.columns))), layer)

    def batches(self, size: int, seed: int, rows: Rows | None = None) -> Iterator[Batch]:
        """Yield all samples (or those of `rows`) shuffled, `size` at a time; memory does not grow with their number.

        The same rows and seed give the same batches. Raises UsageError for other rows, or a size or seed that can't be.
        """
        check_batches(size, seed)
        return batches(self.source, size, seed, None if rows is None else self._numbers(rows))

    def _numbers(self, rows: Rows) -> NDArray[np.int64]:
        return row_numbers(rows, len(self.source.columns), self.path)

    def _layer(self, layer: int) -> int:
        if layer not in self.layers:
            raise UsageError(f"{self.path} has no layer {layer}; it has {', '.join(map(str, self.layers))}.")
        return self.layers.index(layer)
