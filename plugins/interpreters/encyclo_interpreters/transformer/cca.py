"""Where naming and describing meet: directions that a concept's mention and its description share.

A mention and the last token of a description lie in different parts of the activation space, and what a
description tells of a concept is a part of what a mention does. Canonical correlation analysis (Hotelling,
1936; regularised as in Vinod, 1976) finds, in closed form, pairs of directions, one for each kind, along which the
two go together most. Activations are standardised per layer and dimension and all layers joined.

When a sample is read its kind is not known. Fisher's discriminant tells the two kinds apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo_interpreters.sample_statistics import blocks, safe_deviation
from encyclo_interpreters.transformer.training_data import TrainingData

NAMED, DESCRIBED = 0, 1
# How much of the mean variance is added to every direction's, against noise in the estimate. Chosen on concepts
# that were kept from the fit: thrice as much for descriptions, a third for names, moved top-10 by under a point.
RIDGE = {DESCRIBED: 1.0, NAMED: 10.0}
MOST_ROWS = 200_000
"""Descriptions beyond this many are left out of the closed form: it no longer changes."""


@dataclass(frozen=True)
class CanonicalSpace:
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


def fit_canonical_space(data: TrainingData, width: int, seed: int) -> CanonicalSpace:
    """Fit to the descriptions that train and to their concepts' means over named samples.

    Where the data have fewer directions than `width` the last columns are zero.
    """
    generator = np.random.default_rng(seed)
    described = data.described_rows
    if len(described) > MOST_ROWS:
        described = np.sort(generator.choice(described, MOST_ROWS, replace=False))
    of_named = _moments(data.means[some] for some in blocks(np.flatnonzero(data.count > 0)))
    of_described = _moments(data.samples.read(some) for some in blocks(described))
    centre, scale = (np.stack(both) for both in zip(of_named, of_described, strict=True))
    named, other, across = _scatters(data, described, centre, scale)
    factors = {NAMED: _factor(named, RIDGE[NAMED]), DESCRIBED: _factor(other, RIDGE[DESCRIBED])}
    project, correlation = _canonical(factors, across, width, seed)
    gate, offset = _gate(centre, scale, named, other)
    return CanonicalSpace(scale, centre, project, correlation, gate, offset)


def _moments(pieces: Iterable[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (mean, standard deviation), float32 [L, H] each, of samples that come in pieces [n, L, H].

    In one pass, unlike `layer_statistics`: the rows are not read from the store twice.
    """
    total, squares, count = 0.0, 0.0, 0
    for values in pieces:
        total = total + values.sum(axis=0, dtype=np.float64)
        squares = squares + (values.astype(np.float64) ** 2).sum(axis=0)
        count += len(values)
    mean = np.asarray(total) / count
    return mean.astype(np.float32), safe_deviation(np.asarray(squares) / count - mean**2)


def _scatters(
    data: TrainingData, described: NDArray[np.int64], centre: NDArray[np.float32], scale: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return the scatter of the described concepts' means, of descriptions, and across: float32 [LH, LH]."""

    def standardised(values: NDArray[np.float32], kind: int) -> NDArray[np.float32]:
        flat: NDArray[np.float32] = ((values - centre[kind]) / scale[kind]).reshape(len(values), -1)
        return flat

    size = scale[NAMED].size
    named, other, across = (np.zeros((size, size), np.float32) for _ in range(3))
    owner = data.samples.concept
    for some in blocks(described):
        x = standardised(data.samples.read(some), DESCRIBED)
        other += x.T @ x
        across += x.T @ standardised(data.means[owner[some]], NAMED)
    concepts = np.unique(owner[described]).astype(np.int64)
    for some in blocks(concepts):
        y = standardised(data.means[some], NAMED)
        named += y.T @ y
    named /= len(concepts)
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
