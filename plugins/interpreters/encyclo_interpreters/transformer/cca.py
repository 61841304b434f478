"""Canonical correlation analysis: directions that a concept's mentions and descriptions share.

Mentions and the last tokens of descriptions occupy different parts of the activation space, and a description
carries only a part of a mention's information. Canonical correlation analysis (Hotelling, 1936; regularised as in
Vinod, 1976) finds in closed form the pairs of directions, one per kind, with the highest correlation. Activations
are standardised per layer and dimension, and all layers are concatenated.

The kind of a new sample is unknown. Fisher's discriminant decides it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo_interpreters.sample_statistics import blocks, flattened, safe_deviation
from encyclo_interpreters.transformer.training_data import TrainingData

NAMED, DESCRIBED = 0, 1
# Ridge: the multiple of the mean variance that is added to each direction's variance, against noise. Chosen on
# concepts left out of the fit: three times the ridge for descriptions, or a third for names, moved top-10 by under a
# point.
RIDGE = {DESCRIBED: 1.0, NAMED: 10.0}
MOST_ROWS = 200_000
"""The closed form uses at most this many descriptions; more no longer change it."""


@dataclass(frozen=True)
class CanonicalSpace:
    """The fitted directions and gate; the first axis of length 2 is the kind: 0 named, 1 described.

    scale, centre: float32 [2, L, H], standardise each kind
    project:       float32 [2, L * H, K], onto the canonical directions, with unit variance along each
    correlation:   float32 [K], in falling order
    gate, offset:  float32 [L * H] and a number; a sample counts as a description if gate @ sample + offset > 0
    """

    scale: NDArray[np.float32]
    centre: NDArray[np.float32]
    project: NDArray[np.float32]
    correlation: NDArray[np.float32]
    gate: NDArray[np.float32]
    offset: float


def fit_canonical_space(data: TrainingData, width: int, seed: int) -> CanonicalSpace:
    """Fit to the training descriptions and to their concepts' means over named samples.

    If the data have fewer than `width` directions, the last columns are zero.
    """
    generator = np.random.default_rng(seed)
    described = data.described_rows
    if len(described) > MOST_ROWS:
        described = np.sort(generator.choice(described, MOST_ROWS, replace=False))
    named_moments = _moments(data.means[block] for block in blocks(np.flatnonzero(data.count > 0)))
    described_moments = _moments(data.samples.read(block) for block in blocks(described))
    centre, scale = (np.stack(pair) for pair in zip(named_moments, described_moments, strict=True))
    named_scatter, described_scatter, across = _scatters(data, described, centre, scale)
    factors = {
        NAMED: _factor(named_scatter, RIDGE[NAMED]),
        DESCRIBED: _factor(described_scatter, RIDGE[DESCRIBED]),
    }
    project, correlation = _canonical(factors, across, width, seed)
    gate, offset = _gate(centre, scale, named_scatter, described_scatter)
    return CanonicalSpace(scale, centre, project, correlation, gate, offset)


def _moments(pieces: Iterable[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (mean, standard deviation), float32 [L, H] each, of samples in pieces [n, L, H].

    One pass, unlike `layer_statistics`, so that each row is read from the store once.
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
    """Return three scatters, float32 [LH, LH]: of the described concepts' means, of descriptions, between both."""
    size = scale[NAMED].size
    named_scatter, described_scatter, across = (np.zeros((size, size), np.float32) for _ in range(3))
    owner = data.samples.concept
    for block in blocks(described):
        x = flattened(data.samples.read(block), centre[DESCRIBED], scale[DESCRIBED])
        described_scatter += x.T @ x
        across += x.T @ flattened(data.means[owner[block]], centre[NAMED], scale[NAMED])
    concepts = np.unique(owner[described]).astype(np.int64)
    for block in blocks(concepts):
        y = flattened(data.means[block], centre[NAMED], scale[NAMED])
        named_scatter += y.T @ y
    named_scatter /= len(concepts)
    described_scatter /= len(described)
    across /= len(described)
    return named_scatter, described_scatter, across


def _factor(scatter: NDArray[np.float32], ridge: float) -> NDArray[np.float64]:
    """Return the Cholesky factor of the scatter plus its ridge."""
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
    rank = min(width, len(across))
    left, correlation, right = randomized_svd(
        whitened.astype(np.float32), rank, n_iter=4, random_state=seed % 2**32
    )
    project = np.zeros((2, len(across), width), np.float32)
    project[DESCRIBED, :, :rank] = solve(factors[DESCRIBED].T, left.astype(np.float64))
    project[NAMED, :, :rank] = solve(factors[NAMED].T, right.T.astype(np.float64))
    padded_correlation = np.zeros(width, np.float32)
    padded_correlation[:rank] = correlation
    return project, padded_correlation


def _gate(
    centre: NDArray[np.float32],
    scale: NDArray[np.float32],
    named: NDArray[np.float32],
    described: NDArray[np.float32],
) -> tuple[NDArray[np.float32], float]:
    """Return Fisher's discriminant between the kinds (weights, offset): above 0 is a description."""
    from scipy.linalg import cho_solve

    common = scale.mean(axis=0)
    within = np.zeros_like(named)
    for kind, scatter in ((NAMED, named), (DESCRIBED, described)):
        ratio = (scale[kind] / common).reshape(-1)
        within += scatter * ratio[:, None] * ratio / 2
    difference = ((centre[DESCRIBED] - centre[NAMED]) / common).reshape(-1).astype(np.float64)
    solve: Any = cho_solve
    direction: NDArray[np.float64] = solve((_factor(within, 1.0), True), difference)
    middle = (centre.mean(axis=0) / common).reshape(-1)
    gate = (direction / common.reshape(-1)).astype(np.float32)
    return gate, float(-(direction @ middle))
