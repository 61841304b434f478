"""How much of a text's activations is rebuilt from a few signatures: sparse sums with coefficients of at least 0.

A token's activation, less the mean over tokens and scaled to length 1, is x. It is approximated by k directions d_i of
length 1, chosen for this token among the centred signatures. Explained is

    1 - mean over tokens of |x - (c_1 d_1 + ... + c_k d_k)|^2,    c_i >= 0

Every token counts the same: a few tokens, such as an apostrophe, have activations twenty times as long as others and
would else decide the figure.

Orthogonal matching pursuit chooses the directions (Mallat and Zhang, 1993; Pati et al., 1993): the direction with the
largest product with the residual joins, then all coefficients are fitted again. With coefficients of at least 0 this is
the active-set method for non-negative least squares (Lawson and Hanson, 1974), stopped at k directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from encyclo.statistics.figures import Coverage, KindCoverage, LayerCoverage

if TYPE_CHECKING:
    from scipy.sparse import csr_array

SIZES = (1, 4, 16, 64)
"""The numbers of directions that are measured."""
SHOWN = 16
"""The number of directions in summaries, and at which kinds of token are compared."""
FEWEST = 50
"""The fewest tokens that are measured."""
FEWEST_OF_KIND = 10
"""The fewest measured tokens of a kind that has a figure."""
BLOCK = 128
"""Tokens that are pursued at once, so that memory does not grow with the text."""
KEPT = 5000
"""The most directions whose products with each other are kept: their memory grows with the square of the number."""
TINY = 1e-4
"""A direction whose product with the residual is smaller adds nothing."""

Floats = NDArray[np.float64]


def measure_coverage(
    values: NDArray[np.float32],
    kinds: Sequence[str],
    signatures: NDArray[np.float32],
    layers: Sequence[int],
    seed: int,
    source: str,
) -> Coverage:
    """Return how much of a text's activations signatures explain, by layer and by kind of token.

    values: [T, L, H], in the text's order; kinds: [T]; signatures: [C, L, H]. The first half of the tokens gives the
    mean and the principal components, the second half is measured. The figures are None with fewer than FEWEST
    tokens or fewer than two signatures.
    """
    half = len(values) // 2
    found = Coverage(
        tokens=len(values), measured=0, candidates=len(signatures), source=source, layers=None, kinds=None
    )
    if len(values) < FEWEST or len(signatures) < 2:
        return found
    by_layer, left = {}, np.zeros(len(values) - half)
    for place, layer in enumerate(layers):
        known, new = _centred(values[:half, place], values[half:, place])
        # A copy by layer: no second array of all signatures.
        own = signatures[:, place].astype(np.float64)
        rest = _residuals(known, new, own - own.mean(axis=0), np.random.default_rng([seed, place]))
        by_layer[str(layer)] = LayerCoverage(k=list(SIZES), **{name: _shares(rest[name]) for name in rest})
        left += (rest["entries"][SHOWN] if len(rest["entries"]) > SHOWN else np.nan) / len(layers)
    update = {"measured": len(left), "layers": by_layer, "kinds": _by_kind(1 - left, kinds[half:])}
    return found.model_copy(update=update)


def _residuals(known: Floats, new: Floats, own: Floats, generator: np.random.Generator) -> dict[str, Floats]:
    """Return what is left of `new`, [k + 1, T], after k signatures and after k directions of each reference."""
    most = max(SIZES)
    return {
        "entries": pursue(new, own, most),
        "random": pursue(new, generator.standard_normal(own.shape), most),
        # Each dimension is shuffled over the entries: one that is large in signatures stays large.
        "shuffled": pursue(new, generator.permuted(own, axis=0), most),
        "principal": principal_residuals(known, new, most),
    }


def pursue(values: Floats, directions: Floats, most: int) -> Floats:
    """Return the squared length that is left of each of `values` [T, H] after at most k `directions` [C, H].

    float64 [K + 1, T] for k from 0 to K, where K is `most`, or the number of directions that are not zero if that is
    smaller. A direction only counts with a coefficient above 0.
    """
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    units = _Units((directions / np.where(lengths > 0, lengths, 1))[lengths[:, 0] > 0])
    starts = range(0, len(values), BLOCK)
    found = [_pursue_block(values[start : start + BLOCK], units, most) for start in starts]
    return np.concatenate(found, axis=1)


def _pursue_block(values: Floats, units: _Units, most: int) -> Floats:
    most = min(most, len(units.vectors))
    total, tokens = (values**2).sum(axis=1), np.arange(len(values))
    fit = _Fit(values @ units.vectors.T, units, most)
    left = np.tile(total, (most + 1, 1))
    for _ in range(3 * most):  # a direction that was dropped leaves a place, so it may take more than `most`
        gradient = fit.gradient()
        joining = gradient.argmax(axis=1)
        rows = np.flatnonzero((gradient[tokens, joining] > TINY * np.sqrt(total)) & (fit.count < most))
        if len(rows) == 0:
            break
        fit.join(rows, joining[rows])
        fit.solve(rows)
        left[fit.count, tokens] = np.minimum(left[fit.count, tokens], total - fit.explained())
    return np.minimum.accumulate(left, axis=0)


class _Units:
    """Directions of length 1 and their products with each other, which are kept if there are at most KEPT."""

    def __init__(self, vectors: Floats) -> None:
        self.vectors, self.rough = vectors, vectors.astype(np.float32)
        self.gram = vectors @ vectors.T if len(vectors) <= KEPT else None
        self.rough_gram = None if self.gram is None else self.gram.astype(np.float32)

    def products(self, chosen: NDArray[np.int64], other: NDArray[np.int64]) -> Floats:
        """Return the products of the directions `chosen` [n, k] with `other` [n]: [n, k]."""
        if self.gram is not None:
            return self.gram[chosen, other[:, None]]
        result: Floats = np.einsum("nkh,nh->nk", self.vectors[chosen], self.vectors[other])
        return result

    def all_products(self, coefficients: csr_array) -> NDArray[np.float32]:
        """Return the products of all directions with sums of them, whose `coefficients` are sparse [n, C]: [n, C].

        float32, which is faster: it decides only which direction joins.
        """
        result: NDArray[np.float32]
        if self.rough_gram is not None:
            result = coefficients @ self.rough_gram
        else:
            result = (coefficients @ self.rough) @ self.rough.T
        return result


class _Fit:
    """The directions that T tokens have chosen, K places each, and their least-squares coefficients.

    A place is free where its coefficient is 0. `inverse` is the inverse Gram matrix of a token's chosen directions,
    with zeros at free places; a direction joins or leaves by a change of rank 1.
    """

    def __init__(self, product: Floats, units: _Units, most: int) -> None:
        self.product, self.rough, self.units = product, product.astype(np.float32), units
        self.chosen = np.zeros((len(product), most), np.int64)
        self.coefficient = np.zeros((len(product), most))
        self.inverse = np.zeros((len(product), most, most))
        self.used = 0
        """Places from here on are free for every token."""

    @property
    def count(self) -> NDArray[np.int64]:
        """The number of directions of each token."""
        result: NDArray[np.int64] = (self.coefficient > 0).sum(axis=1)
        return result

    def gradient(self) -> NDArray[np.float32]:
        """Return the products of all directions with the residuals, [T, C]; -inf for those that are chosen."""
        from scipy.sparse import csr_array

        rows, places = np.nonzero(self.coefficient)
        chosen = self.chosen[rows, places]
        coefficient = self.coefficient[rows, places].astype(np.float32)
        ends = np.concatenate([[0], self.count.cumsum()])
        fitted = csr_array((coefficient, chosen, ends), shape=self.product.shape)
        result: NDArray[np.float32] = self.rough - self.units.all_products(fitted)
        result[rows, chosen] = -np.inf
        return result

    def explained(self) -> Floats:
        """Return the squared length of what is rebuilt, [T]."""
        result: Floats = (self.coefficient * np.take_along_axis(self.product, self.chosen, 1)).sum(axis=1)
        return result

    def join(self, rows: NDArray[np.int64], joining: NDArray[np.int64]) -> None:
        """Add a direction to each of the tokens `rows`."""
        place = (self.coefficient[rows] == 0).argmax(axis=1)
        self.chosen[rows, place] = joining
        self.used = top = max(self.used, int(place.max()) + 1)
        inverse = self.inverse[rows, :top, :top]
        # At free places the inverse is 0, so that these products don't count.
        inner = self.units.products(self.chosen[rows, :top], joining)
        change = np.einsum("tij,tj->ti", inverse, inner)
        rest = 1 - (change * inner).sum(axis=1)
        change[np.arange(len(rows)), place] = -1
        self.inverse[rows, :top, :top] = inverse + _square(change) / rest[:, None, None]

    def solve(self, rows: NDArray[np.int64]) -> None:
        """Fit the coefficients of the tokens `rows`; a direction whose coefficient would be negative leaves."""
        top = self.used
        while len(rows):
            inverse, old = self.inverse[rows, :top, :top], self.coefficient[rows, :top]
            product = np.take_along_axis(self.product[rows], self.chosen[rows, :top], 1)
            fitted = np.einsum("tij,tj->ti", inverse, product)
            negative = (inverse.diagonal(axis1=1, axis2=2) > 0) & (fitted <= 0)
            # From the old coefficients towards the fitted ones, until the first of them is 0.
            step = np.where(negative, old / np.maximum(old - fitted, TINY**4), np.inf)
            leaving = step.argmin(axis=1)
            self.coefficient[rows, :top] = old + np.minimum(step.min(axis=1), 1)[:, None] * (fitted - old)
            again = negative.any(axis=1)
            rows, leaving = rows[again], leaving[again]
            self.coefficient[rows, leaving] = 0
            column = self.inverse[rows, :top, leaving]
            size = column[np.arange(len(rows)), leaving][:, None, None]
            self.inverse[rows, :top, :top] -= _square(column) / size
            self.inverse[rows, leaving] = self.inverse[rows, :, leaving] = 0


def principal_residuals(known: Floats, new: Floats, most: int) -> Floats:
    """Return the squared length of `new` [T, H] without the first k principal components of `known`: [K + 1, T].

    K is `most`, or the number of components that `known` has if that is smaller.
    """
    _, spread, components = np.linalg.svd(known, full_matrices=False)
    kept = min(most, int((spread > spread[0] * 1e-9).sum()))
    explained = ((new @ components[:kept].T) ** 2).cumsum(axis=1).T
    total = (new**2).sum(axis=1)
    return np.concatenate([total[None], total - explained])


def _centred(known: NDArray[np.float32], new: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Return both less the mean of `known`, each row scaled to length 1 (a row of zeros stays)."""
    centre = known.mean(axis=0, dtype=np.float64)
    rows = known - centre, new - centre
    lengths = (np.linalg.norm(some, axis=1, keepdims=True) for some in rows)
    one, other = (some / np.where(length > 0, length, 1) for some, length in zip(rows, lengths, strict=True))
    return one, other


def _shares(rest: Floats) -> list[float | None]:
    return [float(1 - rest[size].mean()) if size < len(rest) else None for size in SIZES]


def _by_kind(explained: Floats, kinds: Sequence[str]) -> list[KindCoverage]:
    """Return the explained share of each kind of token, the least first; None for few tokens or few entries."""
    found = []
    for kind in sorted(set(kinds)):
        own = explained[[other == kind for other in kinds]]
        share = float(own.mean()) if len(own) >= FEWEST_OF_KIND and np.isfinite(own).all() else None
        found.append(KindCoverage(kind=kind, tokens=len(own), explained=share))
    return sorted(found, key=lambda row: (row.explained is None, row.explained or 0.0))


def _square(vectors: Floats) -> Floats:
    result: Floats = vectors[:, :, None] * vectors[:, None, :]
    return result
