"""Means, deviations and scatter over training samples, in blocks of rows so that memory stays flat.

A table of the concepts' means (float32, 12.8 kB a concept for five layers of 640) is the one array that is as
long as the list of concepts; nothing here grows with the number of samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from encyclo.types import SampleSet

Scalar = TypeVar("Scalar", bound=np.generic)

BLOCK = 2048
"""Rows that are read at once: 26 MB for five layers of 640."""


def blocks(array: NDArray[Scalar], size: int = BLOCK) -> Iterator[NDArray[Scalar]]:
    """Cut row numbers (or the samples themselves) into the pieces that are read at once."""
    for start in range(0, len(array), size):
        yield array[start : start + size]


def layer_statistics(
    samples: SampleSet, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (mean, standard deviation) per layer and dimension, float32 [L, H] each; no deviation is 0."""
    total: NDArray[np.float64] | float = 0.0
    for some in blocks(rows):
        total = total + samples.read(some).sum(axis=0, dtype=np.float64)
    mean = np.asarray(total / len(rows))
    squares: NDArray[np.float64] | float = 0.0
    for some in blocks(rows):
        squares = squares + ((samples.read(some) - mean) ** 2).sum(axis=0)
    return mean.astype(np.float32), safe_deviation(np.asarray(squares) / len(rows))


def safe_deviation(variance: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the root, but for dead dimensions, which dividing by it must not blow up."""
    std = np.sqrt(np.maximum(variance, 0))
    return np.maximum(std, max(float(std.mean()) * 1e-3, 1e-12)).astype(np.float32)


def standardised(
    values: NDArray[np.float32], mean: NDArray[np.float32], std: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return samples, float32 [n, L, H], with each layer and dimension centred and scaled."""
    return ((values - mean) / std).astype(np.float32, copy=False)


def training_means(
    samples: SampleSet, rows: NDArray[np.int64], concepts: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return (means float32 [C, L, H], count [C]) over the named ones among `rows`.

    A concept without any named row gets the mean over all of them: it is never the nearest.
    """
    from scipy.sparse import csr_array

    rows = rows[samples.named[rows]]
    count = np.bincount(samples.concept[rows], minlength=concepts)
    means: NDArray[np.float32] | None = None
    overall: NDArray[np.float64] | None = None
    for some in blocks(rows):
        values = samples.read(some)
        if means is None or overall is None:
            means = np.zeros((concepts, *values.shape[1:]), np.float32)
            overall = np.zeros(values.shape[1:])
        met, place = np.unique(samples.concept[some], return_inverse=True)
        # Divided before it is summed: float32 holds the mean as well as it held the samples.
        share = 1 / count[samples.concept[some]]
        pick = csr_array((share, (place, np.arange(len(some)))), shape=(len(met), len(some)))
        means[met] += (pick @ values.reshape(len(some), -1)).reshape(-1, *values.shape[1:])
        overall += values.sum(axis=0, dtype=np.float64) / len(rows)
    assert means is not None, "no training sample mentions its concept"
    means[count == 0] = overall
    return means, count
