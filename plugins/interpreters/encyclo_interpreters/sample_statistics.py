"""Means and standard deviations over training samples, computed in blocks of rows to bound memory.

The table of the concepts' means grows with the number of concepts (float32, 12.8 kB per concept for five layers
of 640). No array grows with the number of samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from encyclo.types import SampleSet

Scalar = TypeVar("Scalar", bound=np.generic)

BLOCK = 2048
"""Rows read at once: 26 MB for five layers of 640."""


def blocks(array: NDArray[Scalar], size: int = BLOCK) -> Iterator[NDArray[Scalar]]:
    """Yield `array` (row numbers or samples) in slices of at most `size`."""
    for start in range(0, len(array), size):
        yield array[start : start + size]


def layer_statistics(
    samples: SampleSet, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (mean, standard deviation) per layer and dimension, float32 [L, H] each; every deviation is above 0."""
    total: NDArray[np.float64] | float = 0.0
    for block in blocks(rows):
        total = total + samples.read(block).sum(axis=0, dtype=np.float64)
    mean = np.asarray(total / len(rows))
    squares: NDArray[np.float64] | float = 0.0
    for block in blocks(rows):
        squares = squares + ((samples.read(block) - mean) ** 2).sum(axis=0)
    return mean.astype(np.float32), safe_deviation(np.asarray(squares) / len(rows))


def safe_deviation(variance: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the square root, raised in dead dimensions so that a division by it stays bounded."""
    std = np.sqrt(np.maximum(variance, 0))
    return np.maximum(std, max(float(std.mean()) * 1e-3, 1e-12)).astype(np.float32)


def standardised(
    values: NDArray[np.float32], mean: NDArray[np.float32], std: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return samples, float32 [n, L, H], centred and scaled per layer and dimension."""
    return ((values - mean) / std).astype(np.float32, copy=False)


def flattened(
    values: NDArray[np.float32], mean: NDArray[np.float32], std: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return samples standardised, with their layers concatenated: float32 [n, L * H]."""
    return standardised(values, mean, std).reshape(len(values), mean.size)


def training_means(
    samples: SampleSet, rows: NDArray[np.int64], concepts: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return (means float32 [C, L, H], count [C]) over the named samples among `rows`.

    A concept without a named row gets the mean over all named rows, which is never the nearest.
    """
    from scipy.sparse import csr_array

    rows = rows[samples.named[rows]]
    count = np.bincount(samples.concept[rows], minlength=concepts)
    means: NDArray[np.float32] | None = None
    overall: NDArray[np.float64] | None = None
    for block in blocks(rows):
        values = samples.read(block)
        if means is None or overall is None:
            means = np.zeros((concepts, *values.shape[1:]), np.float32)
            overall = np.zeros(values.shape[1:])
        block_concepts, place = np.unique(samples.concept[block], return_inverse=True)
        # Dividing before summing keeps the mean as precise in float32 as the samples are.
        share = 1 / count[samples.concept[block]]
        averaging = csr_array(
            (share, (place, np.arange(len(block)))), shape=(len(block_concepts), len(block))
        )
        means[block_concepts] += (averaging @ values.reshape(len(block), -1)).reshape(-1, *values.shape[1:])
        overall += values.sum(axis=0, dtype=np.float64) / len(rows)
    assert means is not None, "no training sample mentions its concept"
    means[count == 0] = overall
    return means, count
