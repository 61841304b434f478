"""Rows as interpreters and scorers see them: one sample set over a source of samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from encyclo.rows import Source, fetch
from encyclo.types import SampleSet, Split


def sample_set(source: Source, layers: tuple[int, ...], split: NDArray[np.int8] | None = None) -> SampleSet:
    """Return all rows of `source` as one set, activations read by row; without `split` all of them train."""
    columns = source.columns
    families, family = np.unique(np.array(columns.family, object), return_inverse=True)
    return SampleSet(
        concept=columns.concept,
        named=columns.span[:, 0] >= 0,
        family=family.astype(np.int32),
        families=tuple(families.tolist()),
        split=np.full(len(columns), Split.TRAIN, np.int8) if split is None else split,
        layers=layers,
        fetch=lambda rows: fetch(source, rows),
    )
