"""Convergence of signatures: two random halves of a concept's samples should have the same mean.

For a layer and a concept with m samples, split at random into halves A and B of floor(m/2):

    raw_rel_diff      |mean_A - mean_B| / (|mean_A| + |mean_B|) * 2
    centred_rel_diff  the same after subtracting the signatures' mean over concepts and dividing each
                      dimension by their standard deviation over concepts
    adjusted_rel_diff the centred one after subtracting what contexts add to every concept (signatures.py):
                      how far the signature itself has converged
    cosine            of the centred, scaled halves

each averaged over random splits. A difference falls as 1/sqrt(samples), so each of two means needs
(m/2) * (difference / goal)^2 samples:

    samples_to_5pct_median    at the median concept, until its adjusted difference is 5%
    samples_to_95pct_raw      until 95% of the concepts are within 5%, raw
    samples_to_10pct_centred  until the centred difference, averaged over concepts, is 10%
    samples_to_10pct_adjusted the same of the adjusted one

The raw figure looks better than it should: all vectors share one large direction, so even unrelated concepts agree.
`null` shows how much: it is the cosine of A with another concept's B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from encyclo.seeds import derive_seed
from encyclo.statistics.compared_halves import compare_takes, draw_ranks
from encyclo.statistics.figures import LayerConvergence, LayerCurve
from encyclo.statistics.signatures import Contexts, estimate
from encyclo.statistics.similarity import centre_and_scale
from encyclo.types import SampleSet, Signatures

SPLITS = 20
"""The number of random splits that figures are averaged over."""
FEWEST = 4
"""The fewest samples of a concept that are halved."""
CLOSE = 0.05
NEAR = 0.1
"""The goal for the centred difference, averaged over concepts."""
MOST = 0.95
"""The share of concepts whose raw difference should be at most CLOSE."""
CONCEPTS_AT_ONCE = 50
Point = tuple[int | None, NDArray[np.int64]]
"""How many samples of a concept are halved (None: all of them), and the concepts."""


@dataclass(frozen=True)
class HalfSplit:
    """Means over random splits, for the concepts with at least FEWEST samples: float64 [concepts, L]."""

    concepts: NDArray[np.int64]
    samples: NDArray[np.int64]
    raw: NDArray[np.float64]
    centred: NDArray[np.float64]
    adjusted: NDArray[np.float64]
    cosine: NDArray[np.float64]
    null: NDArray[np.float64]


def half_splits(
    samples: SampleSet,
    signatures: Signatures,
    contexts: Contexts,
    seed: int,
    take: int | None = None,
    among: NDArray[np.int64] | None = None,
) -> HalfSplit | None:
    """Compare random halves of each concept's named samples; None if fewer than two concepts have FEWEST.

    With `take`, each split draws `take` of a concept's samples and halves those. With `among`, only these
    concepts (each with `take` named samples, or two) are compared. Concepts are read a slice at a time, so memory
    does not grow with the number of samples.
    """
    chosen = np.flatnonzero(signatures.count >= FEWEST) if among is None else among
    return _half_splits_of(samples, signatures, contexts, seed, chosen, [take])[0]


def _half_splits_of(
    samples: SampleSet,
    signatures: Signatures,
    contexts: Contexts,
    seed: int,
    chosen: NDArray[np.int64],
    takes: Sequence[int | None],
) -> list[HalfSplit | None]:
    """Compare halves of the `chosen` concepts for each of `takes`; None for each if they are fewer than two."""
    if len(chosen) < 2:
        return [None] * len(takes)
    centre, scale = centre_and_scale(signatures.mean[chosen])
    rows = np.flatnonzero(samples.named)
    rows = rows[np.argsort(samples.concept[rows], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(signatures.count)])
    found = []
    for index, some in enumerate(np.array_split(chosen, max(1, len(chosen) // CONCEPTS_AT_ONCE))):
        own = [rows[starts[c] : starts[c + 1]] for c in some]
        together = np.concatenate(own)
        generator = np.random.default_rng(derive_seed(seed, "halves", index))
        values, counts = samples.read(together), [len(o) for o in own]
        context = contexts.of(together)
        ranks = [draw_ranks(count, SPLITS, generator) for count in counts]
        # Shift by a random non-zero distance: every concept is paired with another one.
        shift = int(generator.integers(1, len(counts))) if len(counts) > 1 else 0
        found.append(compare_takes(values, counts, context, centre, scale, ranks, takes, shift))
    figures = np.concatenate(found, axis=2)
    used = signatures.count[chosen].astype(np.int64)
    return [
        HalfSplit(chosen, used if take is None else np.minimum(used, take), *own)
        for take, own in zip(takes, figures, strict=True)
    ]


def measure(samples: SampleSet, concepts: int, seed: int) -> dict[str, LayerConvergence] | None:
    """Return the table of these samples by layer; None if fewer than two concepts can be halved."""
    signatures, contexts = estimate(samples, concepts)
    return convergence_table(half_splits(samples, signatures, contexts, seed), samples.layers)


def convergence_table(
    halves: HalfSplit | None, layers: tuple[int, ...]
) -> dict[str, LayerConvergence] | None:
    """Return metrics.json's `convergence`: means and shares over concepts, one row per layer."""
    if halves is None:
        return None
    table = {}
    for index, layer in enumerate(layers):
        raw, centred, adjusted = (f[:, index] for f in (halves.raw, halves.centred, halves.adjusted))
        half = halves.samples / 2
        table[str(layer)] = LayerConvergence(
            raw_rel_diff=float(raw.mean()),
            centred_rel_diff=float(centred.mean()),
            adjusted_rel_diff=float(adjusted.mean()),
            cosine=float(halves.cosine[:, index].mean()),
            null_cosine=float(halves.null[:, index].mean()),
            within_5pct_raw=float((raw <= CLOSE).mean()),
            within_5pct_centred=float((centred <= CLOSE).mean()),
            samples_to_5pct_median=float(np.median(half * (adjusted / CLOSE) ** 2)),
            samples_to_95pct_raw=float(np.quantile(half * (raw / CLOSE) ** 2, MOST)),
            samples_to_10pct_centred=float((centred * np.sqrt(half)).mean() / NEAR) ** 2,
            samples_to_10pct_adjusted=float((adjusted * np.sqrt(half)).mean() / NEAR) ** 2,
            concepts=len(raw),
        )
    return table


def table_and_curve(
    samples: SampleSet, signatures: Signatures, contexts: Contexts, seed: int
) -> tuple[dict[str, LayerConvergence] | None, dict[str, LayerCurve] | None]:
    """Return `convergence_table` and `convergence_curve` of these samples, which are read once where possible."""
    points = [(None, np.flatnonzero(signatures.count >= FEWEST)), *_points(signatures.count)]
    first, *others = _measured(points, samples, signatures, contexts, seed)
    return convergence_table(first, samples.layers), _curve(points[1:], others, samples.layers)


def convergence_curve(
    samples: SampleSet, signatures: Signatures, contexts: Contexts, seed: int
) -> dict[str, LayerCurve] | None:
    """Return the figures by the number of samples per concept, by layer; None if no two concepts have any."""
    points = _points(signatures.count)
    return _curve(points, _measured(points, samples, signatures, contexts, seed), samples.layers)


def _measured(
    points: Sequence[Point], samples: SampleSet, signatures: Signatures, contexts: Contexts, seed: int
) -> list[HalfSplit | None]:
    """Compare halves at each point; points of the same concepts share what is read and computed."""
    found: list[HalfSplit | None] = []
    for _, group in groupby(points, lambda point: point[1].tolist()):
        same = list(group)
        takes = [take for take, _ in same]
        found += _half_splits_of(samples, signatures, contexts, seed, same[0][1], takes)
    return found


def _curve(
    points: Sequence[Point], halves: Sequence[HalfSplit | None], layers: tuple[int, ...]
) -> dict[str, LayerCurve] | None:
    known = [(take, half) for (take, _), half in zip(points, halves, strict=True) if take and half]
    if not known:
        return None
    found = {}
    for index, layer in enumerate(layers):
        takes = [take for take, _ in known]
        raw, centred, adjusted, cosine, null = (
            [float(getattr(half, name)[:, index].mean()) for _, half in known]
            for name in ("raw", "centred", "adjusted", "cosine", "null")
        )
        found[str(layer)] = LayerCurve(
            samples=takes, concepts=[len(half.concepts) for _, half in known], raw=raw, centred=centred,
            adjusted=adjusted, cosine=cosine, null=null, exponent=_slope(takes, adjusted),
        )  # fmt: skip
    return found


def _points(count: NDArray[np.int32]) -> list[Point]:
    """Return the curve's points (samples, concepts to compare); the last has a twentieth of the concepts."""
    enough = count[count >= FEWEST]
    if len(enough) < 2:
        return []
    panel = 2 ** int(np.log2(np.median(enough)))
    points: list[Point] = []
    take = 2
    fewest = max(2, len(enough) // 20)
    while (chosen := np.flatnonzero(count >= max(take, panel))).size >= fewest:
        points.append((take, chosen))
        take *= 2
    return points


def _slope(samples: list[int], figures: list[float]) -> float | None:
    """Return the least-squares slope of log(figure) over log(samples); None for fewer than two points."""
    if len(samples) < 2 or min(figures) <= 0:
        return None
    return float(np.polyfit(np.log(samples), np.log(figures), 1)[0])
