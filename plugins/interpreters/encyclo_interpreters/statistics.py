"""Means and deviations over training samples, in blocks of rows so that memory stays flat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from encyclo.types import SampleSet

BLOCK = 2048


def layer_statistics(
    samples: SampleSet, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (mean, standard deviation) per layer and dimension, float32 [L, H] each; no deviation is 0."""
    total: NDArray[np.float64] | float = 0.0
    for start in range(0, len(rows), BLOCK):
        total = total + samples.read(rows[start : start + BLOCK]).sum(axis=0, dtype=np.float64)
    mean = np.asarray(total / len(rows))
    squares: NDArray[np.float64] | float = 0.0
    for start in range(0, len(rows), BLOCK):
        squares = squares + ((samples.read(rows[start : start + BLOCK]) - mean) ** 2).sum(axis=0)
    std = np.sqrt(np.asarray(squares) / len(rows))
    floor = max(float(std.mean()) * 1e-3, 1e-12)  # a dead dimension must not be blown up
    return mean.astype(np.float32), np.maximum(std, floor).astype(np.float32)


def training_means(
    samples: SampleSet, rows: NDArray[np.int64], concepts: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return (mean float32 [C, L, H], count [C]) over the named ones among `rows`.

    A concept without any named row gets the mean over all of them: it is never the nearest.
    """
    from scipy.sparse import csr_array

    rows = rows[samples.named[rows]]
    count = np.bincount(samples.concept[rows], minlength=concepts)
    total: NDArray[np.float64] | None = None
    for start in range(0, len(rows), BLOCK):
        some = rows[start : start + BLOCK]
        values = samples.read(some)
        pick = csr_array(
            (np.ones(len(some)), (samples.concept[some], np.arange(len(some)))), shape=(concepts, len(some))
        )
        sums = (pick @ values.reshape(len(some), -1).astype(np.float64)).reshape(-1, *values.shape[1:])
        total = sums if total is None else total + sums
    assert total is not None, "no training sample mentions its concept"
    means = total / np.maximum(count, 1)[:, None, None]
    means[count == 0] = total.sum(axis=0) / len(rows)
    return means.astype(np.float32), count
