"""Where naming and describing meet: directions that a concept's mention and its description share.

A mention and the last token of a description lie in different parts of the activation space, and what a
description tells of a concept is a part of what a mention does. Canonical correlation analysis (Hotelling,
1936; regularised as in Vinod, 1976) finds, in closed form, pairs of directions, one for each kind, along which the
two go together most. Activations are standardised per layer and dimension and all layers joined.

Which kind a sample is, nobody says when it is read. The two kinds are told apart by Fisher's discriminant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.types import SampleSet
from encyclo_interpreters.sample_statistics import blocks, safe_deviation

NAMED, DESCRIBED = 0, 1
# How much of the mean variance is added to every direction's, against noise in the estimate. Chosen on concepts
# that were kept from the fit: thrice as much for descriptions, a third for names, moved top-10 by under a point.
RIDGE = {DESCRIBED: 1.0, NAMED: 10.0}
MOST_ROWS = 200_000
"""Descriptions beyond this many are left out of the closed form: it no longer changes."""


@dataclass(frozen=True)
class SharedSpace:
    """scale and centre float32 [2, L, H] standardise each kind; 0 is named, 1 described.

    project:     float32 [2, L * H, K], onto the canonical directions, of unit variance along each
    correlation: float32 [K], falling
    gate:        float32 [L * H], and offset: above 0 a sample is taken to describe
    """

    scale: NDArray[np.float32]
    centre: NDArray[np.float32]
    project: NDArray[np.float32]
    correlation: NDArray[np.float32]
    gate: NDArray[np.float32]
    offset: float


def fit_shared_space(
    samples: SampleSet,
    described: NDArray[np.int64],
    means: NDArray[np.float32],
    count: NDArray[np.int64],
    width: int,
    seed: int,
) -> SharedSpace:
    """Fit to the `described` rows and their concepts' means over named samples.

    means float32 [C, L, H], count [C] (concepts without named samples play no part). Where the data have fewer
    directions than `width` the last columns are zero.
    """
    generator = np.random.default_rng(seed)
    described = described[count[samples.concept[described]] > 0]
    if len(described) > MOST_ROWS:
        described = np.sort(generator.choice(described, MOST_ROWS, replace=False))
    seen = np.flatnonzero(count > 0)
    moments = _Moments(means[0].shape)
    for some in blocks(seen):
        moments.add(NAMED, means[some])
    for some in blocks(described):
        moments.add(DESCRIBED, samples.read(some))
    scale = moments.scale()
    named, other, across = moments.scatters(scale, samples, described, means)
    factors = {NAMED: _factor(named, RIDGE[NAMED]), DESCRIBED: _factor(other, RIDGE[DESCRIBED])}
    project, correlation = _canonical(factors, across, width, seed)
    gate, offset = _gate(moments.centre(), scale, named, other)
    return SharedSpace(scale, moments.centre(), project, correlation, gate, offset)


class _Moments:
    """Sums of each kind, and the scatter matrices that follow once the scale is known."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._sum = np.zeros((2, *shape))
        self._squares = np.zeros((2, *shape))
        self._n = [0, 0]

    def add(self, kind: int, values: NDArray[np.float32]) -> None:
        """Take in samples, float32 [n, L, H]."""
        self._sum[kind] += values.sum(axis=0, dtype=np.float64)
        self._squares[kind] += (values.astype(np.float64) ** 2).sum(axis=0)
        self._n[kind] += len(values)

    def centre(self) -> NDArray[np.float32]:
        """Return the means, float32 [2, L, H]."""
        return np.stack([self._sum[k] / self._n[k] for k in (NAMED, DESCRIBED)]).astype(np.float32)

    def scale(self) -> NDArray[np.float32]:
        """Return the standard deviations, float32 [2, L, H]."""
        kinds = (NAMED, DESCRIBED)
        variances = [self._squares[k] / self._n[k] - (self._sum[k] / self._n[k]) ** 2 for k in kinds]
        return np.stack([safe_deviation(variance) for variance in variances])

    def scatters(
        self,
        scale: NDArray[np.float32],
        samples: SampleSet,
        described: NDArray[np.int64],
        means: NDArray[np.float32],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Return the scatter of the described concepts' means, of descriptions, and across: float32 [LH, LH]."""
        size = scale[NAMED].size
        named, other, across = (np.zeros((size, size), np.float32) for _ in range(3))
        centre = self.centre()
        for some in blocks(described):
            x = ((samples.read(some) - centre[DESCRIBED]) / scale[DESCRIBED]).reshape(len(some), size)
            y = ((means[samples.concept[some]] - centre[NAMED]) / scale[NAMED]).reshape(len(some), size)
            other += x.T @ x
            across += x.T @ y
        met = np.unique(samples.concept[described]).astype(np.int64)
        for some in blocks(met):
            y = ((means[some] - centre[NAMED]) / scale[NAMED]).reshape(len(some), size)
            named += y.T @ y
        named /= len(met)
        other /= len(described)
        across /= len(described)
        return named, other, across


def _factor(scatter: NDArray[np.float32], ridge: float) -> NDArray[np.float64]:
    """Return the Cholesky factor of the scatter with its ridge."""
    size = len(scatter)
    added = scatter + (ridge * np.trace(scatter) / size + 1e-6) * np.eye(size, dtype=np.float32)
    result: NDArray[np.float64] = np.linalg.cholesky(added.astype(np.float64))
    return result


def _canonical(
    factors: dict[int, NDArray[np.float64]], across: NDArray[np.float32], width: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    from scipy.linalg import solve_triangular
    from sklearn.utils.extmath import randomized_svd

    solve: Any = solve_triangular
    whitened = solve(factors[DESCRIBED], across.astype(np.float64), lower=True)
    whitened = solve(factors[NAMED], whitened.T, lower=True).T
    found = min(width, len(across))
    left, correlation, right = randomized_svd(
        whitened.astype(np.float32), found, n_iter=4, random_state=seed % 2**32
    )
    project = np.zeros((2, len(across), width), np.float32)
    project[DESCRIBED, :, :found] = solve(factors[DESCRIBED].T, left.astype(np.float64))
    project[NAMED, :, :found] = solve(factors[NAMED].T, right.T.astype(np.float64))
    filled = np.zeros(width, np.float32)
    filled[:found] = correlation
    return project, filled


def _gate(
    centre: NDArray[np.float32],
    scale: NDArray[np.float32],
    named: NDArray[np.float32],
    described: NDArray[np.float32],
) -> tuple[NDArray[np.float32], float]:
    """Return Fisher's discriminant between the kinds: above 0 is nearer to the descriptions."""
    common = scale.mean(axis=0)
    within = np.zeros_like(named)
    for kind, scatter in ((NAMED, named), (DESCRIBED, described)):
        ratio = (scale[kind] / common).reshape(-1)
        within += scatter * ratio[:, None] * ratio / 2
    apart = ((centre[DESCRIBED] - centre[NAMED]) / common).reshape(-1).astype(np.float64)
    factor = _factor(within, 1.0)
    direction = np.linalg.solve(factor.T, np.linalg.solve(factor, apart))
    middle = (centre.mean(axis=0) / common).reshape(-1)
    gate = (direction / common.reshape(-1)).astype(np.float32)
    return gate, float(-(direction @ middle))
