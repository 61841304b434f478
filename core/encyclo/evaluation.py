"""Accuracy of readings: ranks, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.types import Interpreter, SampleSet

BATCH = 1024


def read_in_batches(
    interpreter: Interpreter, samples: SampleSet, rows: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield (rows [k], scores float32 [k, C]) so that memory stays flat in the number of samples."""
    for start in range(0, len(rows), BATCH):
        some = rows[start : start + BATCH]
        yield some, interpreter.read(samples.read(some))


def true_ranks(scores: NDArray[np.float32], truth: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the rank (1 is best) of the true concept in each row of scores [n, C].

    Ties count against the reader: a reader that scores everything alike ranks the truth last.
    """
    own = scores[np.arange(len(truth)), truth]
    # A NaN compares False with everything: count what is *not* worse, so that it ranks last as well.
    ranks: NDArray[np.int64] = (~(scores < own[:, None])).sum(axis=1).astype(np.int64)
    return ranks


def rank_samples(interpreter: Interpreter, samples: SampleSet, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the true concept's rank for each of `rows`."""
    ranks = [
        true_ranks(scores, samples.concept[some])
        for some, scores in read_in_batches(interpreter, samples, rows)
    ]
    return np.concatenate(ranks) if ranks else np.empty(0, np.int64)


def accuracy(ranks: NDArray[np.int64], candidates: int) -> dict[str, Any] | None:
    """Return metrics.json's accuracy object for these ranks; None where nothing was read."""
    if len(ranks) == 0:
        return None
    return {
        "top1": float((ranks == 1).mean()),
        "top10": float((ranks <= 10).mean()),
        "top100": float((ranks <= 100).mean()),
        "median_rank": float(np.median(ranks)),
        "candidates": candidates,
        "n": len(ranks),
    }
