"""Accuracy of readings: ranks, intervals, the null, categories, confusions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from encyclo.statistics.figures import Accuracy
from encyclo.types import Interpreter, SampleSet

BATCH = 1024
"""Samples that are read at once, at most ..."""
SCORES = 2**24
"""... and scores: 64 MB. At 50,000 concepts a batch is 335 samples."""
RESAMPLES = 1000
TOPS = {"top1": 1, "top10": 10, "top100": 100}


def read_in_batches(
    interpreter: Interpreter, samples: SampleSet, rows: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield (rows [k], scores float32 [k, C]); memory does not grow with the number of samples."""
    for some, _, scores in read_batches(interpreter, samples, rows):
        yield some, scores


def read_batches(
    interpreter: Interpreter, samples: SampleSet, rows: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]]:
    """Yield (rows [k], activations float32 [k, L, H], scores float32 [k, C]); each batch is fetched once."""
    size = batch_size(len(interpreter.concepts))
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        activations = samples.read(some)
        yield some, activations, interpreter.read(activations)


def batch_size(candidates: int) -> int:
    """Return how many samples are read at once, so that their scores take at most 64 MB."""
    return max(1, min(BATCH, SCORES // max(1, candidates)))


def true_ranks(scores: NDArray[np.float32], truth: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the rank (1 is best) of the true concept in each row of scores [n, C].

    Ties count against the reader: if all scores are equal, the truth ranks last.
    """
    own = scores[np.arange(len(truth)), truth]
    # A NaN compares False with everything: count what is *not* worse, so that it ranks last too.
    ranks: NDArray[np.int64] = (~(scores < own[:, None])).sum(axis=1).astype(np.int64)
    return ranks


def rank_samples(interpreter: Interpreter, samples: SampleSet, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the true concept's rank for each of `rows`."""
    ranks = [
        true_ranks(scores, samples.concept[some])
        for some, scores in read_in_batches(interpreter, samples, rows)
    ]
    return np.concatenate(ranks) if ranks else np.empty(0, np.int64)


def accuracy(ranks: NDArray[np.int64], candidates: int) -> Accuracy | None:
    """Return metrics.json's accuracy object for these ranks; None if there are no ranks."""
    if len(ranks) == 0:
        return None
    return Accuracy(
        top1=float((ranks == 1).mean()),
        top10=float((ranks <= 10).mean()),
        top100=float((ranks <= 100).mean()),
        median_rank=float(np.median(ranks)),
        candidates=candidates,
        n=len(ranks),
    )


def intervals(
    ranks: NDArray[np.int64], concept: NDArray[np.integer], seed: int = 0, level: float = 0.95
) -> dict[str, float]:
    """Return {top1_low, top1_high, ...}: a bootstrap that draws concepts with all of their readings.

    Readings of one concept are alike, so resampling single readings would give too narrow intervals (cluster
    bootstrap: Davison and Hinkley, "Bootstrap Methods and their Application", 1997, ch. 3.8). If every reading is
    right, or none, resampling shows no variation: the exact binomial interval over concepts is used instead.
    """
    _, place, count = np.unique(concept, return_inverse=True, return_counts=True)
    found: dict[str, float] = {}
    for name, top in TOPS.items():
        low, high = share_interval(np.bincount(place, ranks <= top), count, seed, level)
        found |= {f"{name}_low": low, f"{name}_high": high}
    return found


def share_interval(
    hits: NDArray[np.integer], count: NDArray[np.integer], seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Return (low, high) of a share, `hits` of `count` by cluster [c]: see `intervals`."""
    from scipy.stats import binomtest, bootstrap

    share = hits.sum() / count.sum()
    if len(count) < 2 or share in (0.0, 1.0):
        exact = binomtest(round(share * len(count)), len(count)).proportion_ci(level)
        return float(exact.low), float(exact.high)
    drawn = bootstrap(
        (hits, count),
        lambda hits, count, axis: hits.sum(axis=axis) / count.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, 10_000_000 // len(count)),
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(drawn.low), float(drawn.high)


def shuffled(concept: NDArray[np.int32], candidates: int, seed: int = 0) -> NDArray[np.int32]:
    """Return the truth with the concepts' identities shuffled: every concept gets another one's identity."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(candidates)
    other = np.empty(candidates, np.int32)
    other[order] = np.roll(order, 1)  # one cycle through all concepts
    return other[concept]


def by_category(
    ranks: NDArray[np.int64], concept: NDArray[np.int32], categories: Sequence[str]
) -> dict[str, Accuracy]:
    """Return the figures of each category by name; `categories` has one for each candidate."""
    own = np.array([categories[c] for c in concept.tolist()])
    return {
        str(name) or "none": Accuracy(
            top1=float((ranks[own == name] == 1).mean()),
            top10=float((ranks[own == name] <= 10).mean()),
            n=int((own == name).sum()),
        )
        for name in np.unique(own)
    }


def confused_pairs(
    truth: NDArray[np.int32], best: NDArray[np.int32], names: Sequence[str], most: int = 20
) -> list[tuple[str, str, int]]:
    """Return the most frequent misreadings as (truth, read instead, times), the most frequent first."""
    wrong = truth != best
    pairs = Counter(zip(truth[wrong].tolist(), best[wrong].tolist(), strict=True))
    ordered = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:most]
    return [(names[a], names[b], times) for (a, b), times in ordered]
