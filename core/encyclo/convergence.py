"""Has a signature settled? Two random halves of a concept's samples should have the same mean.

For a layer and a concept with m samples, split at random into halves A and B of floor(m/2):

    raw_rel_diff      |mean_A - mean_B| / (|mean_A| + |mean_B|) * 2
    centred_rel_diff  the same after taking from both the signatures' mean over concepts and dividing each
                      dimension by their standard deviation over concepts
    cosine            of the centred, scaled halves
    samples_to_5pct   (m/2) * (centred_rel_diff / 0.05)^2: the difference falls as 1/sqrt(samples)

each averaged over random splits. The raw figure flatters: all vectors share one large direction, so that
unrelated concepts agree as well. `null` says how well: the cosine of A with another concept's B.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encyclo.seeds import derive_seed
from encyclo.types import SampleSet, Signatures

SPLITS = 20
FEWEST = 4
"""Samples a concept needs to be halved."""
CLOSE = 0.05
CONCEPTS_AT_ONCE = 50


@dataclass(frozen=True)
class HalfSplit:
    """Means over random splits, for the concepts with at least FEWEST samples: float64 [concepts, L]."""

    concepts: NDArray[np.int64]
    samples: NDArray[np.int64]
    raw: NDArray[np.float64]
    centred: NDArray[np.float64]
    cosine: NDArray[np.float64]
    null: NDArray[np.float64]


def estimate_signatures(samples: SampleSet, concepts: int, block: int = 2048) -> Signatures:
    """Return each concept's mean, variance (population) and count over its samples that mention it.

    Two passes over blocks of rows, summed in float64: memory does not grow with the number of samples.
    Raises ValueError if no sample mentions its concept.
    """
    rows = np.flatnonzero(samples.named)
    if len(rows) == 0:
        raise ValueError("no sample mentions its concept")
    count = np.bincount(samples.concept[rows], minlength=concepts).astype(np.int32)
    divisor = np.maximum(count, 1)[:, None, None]
    shape = (concepts, *samples.read(rows[:1]).shape[1:])
    mean, variance = np.zeros(shape), np.zeros(shape)
    for some, values in _blocks(samples, rows, block):
        mean += _sum_by(samples.concept[some], values, concepts)
    mean /= divisor
    for some, values in _blocks(samples, rows, block):
        owner = samples.concept[some]
        variance += _sum_by(owner, (values - mean[owner]) ** 2, concepts)
    return Signatures(mean.astype(np.float32), (variance / divisor).astype(np.float32), count)


def relative_standard_error(signatures: Signatures) -> NDArray[np.float64]:
    """Return float64 [C]: the standard error of the centred, scaled signature over its length.

    Averaged over layers; infinite where fewer than two samples leave it unknown. The sample variance is
    count/(count-1) times the population variance that a signature holds.
    """
    count = signatures.count.astype(np.float64)
    seen = count > 0
    centre = signatures.mean[seen].mean(axis=0)
    scale = np.maximum(signatures.mean[seen].std(axis=0), 1e-12)
    length = np.linalg.norm((signatures.mean - centre) / scale, axis=-1)
    spread = (signatures.variance / scale**2).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(spread / np.maximum(count - 1, 0)[:, None]) / np.maximum(length, 1e-12)
    error[count < 2] = np.inf
    result: NDArray[np.float64] = error.mean(axis=1)
    return result


def half_splits(
    samples: SampleSet, signatures: Signatures, seed: int, splits: int = SPLITS
) -> HalfSplit | None:
    """Compare random halves of each concept's named samples; None where no two concepts have FEWEST.

    Concepts are taken a slice at a time, so that memory stays flat in the number of samples.
    """
    chosen = np.flatnonzero(signatures.count >= FEWEST)
    if len(chosen) < 2:
        return None
    centre = signatures.mean[chosen].mean(axis=0)
    scale = np.maximum(signatures.mean[chosen].std(axis=0), 1e-12)
    rows = np.flatnonzero(samples.named)
    rows = rows[np.argsort(samples.concept[rows], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(signatures.count)])
    found = []
    for index, some in enumerate(np.array_split(chosen, max(1, len(chosen) // CONCEPTS_AT_ONCE))):
        own = [rows[starts[c] : starts[c + 1]] for c in some]
        values = samples.read(np.concatenate(own))
        generator = np.random.default_rng(derive_seed(seed, "halves", index))
        first, second = _half_means(values, [len(o) for o in own], splits, generator)
        found.append(_compare(first, second, centre, scale, generator))
    raw, centred, cosine, null = (np.concatenate(column) for column in zip(*found, strict=True))
    return HalfSplit(chosen, signatures.count[chosen].astype(np.int64), raw, centred, cosine, null)


def convergence_table(
    halves: HalfSplit | None, layers: tuple[int, ...]
) -> dict[str, dict[str, float]] | None:
    """Return metrics.json's `convergence`: means and shares over concepts, a row a layer."""
    if halves is None:
        return None
    table = {}
    for index, layer in enumerate(layers):
        raw, centred = halves.raw[:, index], halves.centred[:, index]
        needed = halves.samples / 2 * (centred / CLOSE) ** 2
        table[str(layer)] = {
            "raw_rel_diff": float(raw.mean()),
            "centred_rel_diff": float(centred.mean()),
            "cosine": float(halves.cosine[:, index].mean()),
            "null_cosine": float(halves.null[:, index].mean()),
            "within_5pct_raw": float((raw <= CLOSE).mean()),
            "within_5pct_centred": float((centred <= CLOSE).mean()),
            "samples_to_5pct_median": float(np.median(needed)),
            "concepts": len(raw),
        }
    return table


def _half_means(
    values: NDArray[np.float32], counts: list[int], splits: int, generator: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the means of both halves of each concept: float32 [splits, concepts, L, H] each.

    `values` holds the concepts' samples one concept after another. One sparse product does all splits.
    """
    from scipy.sparse import csr_array

    entries: list[tuple[int, NDArray[np.int64], int]] = []
    for split in range(splits):
        start = 0
        for concept, count in enumerate(counts):
            order = start + generator.permutation(count)
            half = count // 2
            row = (split * len(counts) + concept) * 2
            entries += [(row, order[:half], half), (row + 1, order[half : 2 * half], half)]
            start += count
    column = np.concatenate([picked for _, picked, _ in entries])
    rows = np.concatenate([np.full(len(picked), r) for r, picked, _ in entries])
    weight = np.concatenate([np.full(len(picked), 1 / half, np.float32) for _, picked, half in entries])
    pick = csr_array((weight, (rows, column)), shape=(2 * splits * len(counts), len(values)))
    means = (pick @ values.reshape(len(values), -1)).reshape(splits, len(counts), 2, *values.shape[1:])
    return means[:, :, 0], means[:, :, 1]


def _compare(
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    centre: NDArray[np.float32],
    scale: NDArray[np.float32],
    generator: np.random.Generator,
) -> tuple[NDArray[np.float64], ...]:
    """Return raw, centred, cosine and null, each float64 [concepts, L], averaged over the splits."""
    a, b = (first - centre) / scale, (second - centre) / scale
    # Shift by a random non-zero distance: every concept meets another one, never itself.
    other = np.roll(b, int(generator.integers(1, b.shape[1])), axis=1)
    figures = (_difference(first, second), _difference(a, b), _cosine(a, b), _cosine(a, other))
    return tuple(figure.mean(axis=0).astype(np.float64) for figure in figures)


def _difference(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(a, axis=-1) + np.linalg.norm(b, axis=-1)
    result: NDArray[np.float32] = 2 * np.linalg.norm(a - b, axis=-1) / np.maximum(lengths, 1e-12)
    return result


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    result: NDArray[np.float32] = (a * b).sum(axis=-1) / np.maximum(lengths, 1e-12)
    return result


def _sum_by(owner: NDArray[np.int32], values: NDArray[np.floating], owners: int) -> NDArray[np.float64]:
    """Return float64 [owners, L, H]: the sum of each owner's values [n, L, H]."""
    from scipy.sparse import csr_array

    ones = np.ones(len(owner))
    pick = csr_array((ones, (owner, np.arange(len(owner)))), shape=(owners, len(owner)))
    flat: NDArray[np.float64] = pick @ values.reshape(len(values), -1).astype(np.float64)
    return flat.reshape(owners, *values.shape[1:])


def _blocks(
    samples: SampleSet, rows: NDArray[np.int64], size: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        yield some, samples.read(some)
