"""Compare random halves of samples by inner products, without computing each half's mean.

A half's mean is a sum of samples, each with a weight, so every length and cosine follows from the inner products of
the samples: |sum of w_i x_i|^2 = sum of w_i w_j <x_i, x_j>. A concept of ten samples has ten of them, and twenty
random splits have forty halves. A concept with more samples than halves is replaced by the halves' means first.
Everything is in float64: the difference of two halves is much smaller than they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TINY = 1e-12
AT_ONCE = 2**19
"""Values of some layers that are worked on at once: 4 MB in float64."""
Reals = NDArray[np.float64]


def compare_takes(
    values: NDArray[np.float32],
    counts: Sequence[int],
    context: NDArray[np.float32] | None,
    centre: NDArray[np.float32],
    scale: NDArray[np.float32],
    ranks: Sequence[NDArray[np.int64]],
    takes: Sequence[int | None],
    shift: int = 0,
) -> Reals:
    """Return raw, centred, adjusted, cosine and null for each of `takes`: float64 [takes, 5, concepts, L].

    `values` [n, L, H] are the samples, `counts` of one concept after another; `context` [n, L, H] is what their
    contexts add (None: unknown, adjusted equals centred). `ranks` are what `draw_ranks` drew for each concept. A take
    is how many of a concept's samples are drawn and halved in each split (None: all). Figures are means over splits.
    null compares a concept with the one `shift` before; it is NaN for a shift of 0.
    """
    picks = [_pick(ranks, take) for take in takes]
    found = np.empty((len(takes), 5, len(counts), values.shape[1]))
    count = max(1, AT_ONCE // max(1, values[:, 0].size))
    for start in range(0, values.shape[1], count):
        layers = slice(start, start + count)
        raw = values[:, layers].swapaxes(0, 1).astype(np.float64)
        middle, spread = centre[layers, None], scale[layers, None].astype(np.float64)
        centred = (raw - middle) / spread
        adjusted = None if context is None else centred - context[:, layers].swapaxes(0, 1) / spread
        for number, pick in enumerate(picks):
            # Unless means have replaced samples, all takes have the same products.
            if number == 0 or pick.means:
                rows = pick.rows(centred)
                products, other = _products(rows), _products(rows, shift) if shift else None
                plain = _products(pick.rows(raw))
                less = None if adjusted is None else _products(pick.rows(adjusted))
            figures = _figures(pick, plain, products, less, other, shift)
            found[number, :, :, layers] = figures.swapaxes(1, 2)
    return found


@dataclass(frozen=True)
class _Pick:
    """Which rows make the halves of each concept, at most `width` rows of a concept.

    first, second: float64 [concepts, splits, width], the weights of the rows in both halves
    place: int64 [concepts, width], a concept's samples (a concept with fewer repeats its last one, with weight zero)
    means: {concept: weights [width, samples]} of a concept whose rows are means of its samples
    """

    first: Reals
    second: Reals
    place: NDArray[np.int64]
    means: dict[int, tuple[int, Reals]]

    def rows(self, values: Reals) -> Reals:
        """Return the rows of each concept, [L, concepts, width, H], from samples [L, n, H]."""
        found: Reals = values[:, self.place]
        for concept, (start, weight) in self.means.items():
            found[:, concept] = weight @ values[:, start : start + weight.shape[1]]
        return found


def draw_ranks(count: int, splits: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return the places of a concept's samples in a random order of each split: int64 [splits, count]."""
    ranks = np.empty((splits, count), np.int64)
    for rank in ranks:
        rank[generator.permutation(count)] = np.arange(count)
    return ranks


def _pick(ranks: Sequence[NDArray[np.int64]], take: int | None) -> _Pick:
    """Return the halves of samples with these ranks: the first ranks are one half, the next the other."""
    splits, counts = len(ranks[0]), [rank.shape[1] for rank in ranks]
    starts = np.cumsum([0, *counts])[:-1]
    width = min(max(counts), 2 * splits)
    halves = np.zeros((2, len(ranks), splits, width))
    means = {}
    for concept, (rank, count) in enumerate(zip(ranks, counts, strict=True)):
        half = (count if take is None else min(count, take)) // 2
        weight = np.stack([rank < half, (rank >= half) & (rank < 2 * half)]) / half
        if count > width:
            means[concept] = int(starts[concept]), weight.reshape(width, count)
            weight = np.eye(width).reshape(2, splits, width)
        halves[:, concept, :, : weight.shape[2]] = weight
    last = starts + np.array(counts) - 1
    place = np.minimum(starts[:, None] + np.arange(width), last[:, None])
    return _Pick(halves[0], halves[1], place, means)


def _products(rows: Reals, shift: int = 0) -> Reals:
    """Return the inner products of a concept's rows with each other, or with those of the concept `shift` before."""
    found: Reals = rows @ (np.roll(rows, shift, axis=1) if shift else rows).swapaxes(2, 3)
    return found


def _figures(
    pick: _Pick, plain: Reals, products: Reals, less: Reals | None, other: Reals | None, shift: int
) -> Reals:
    """Return raw, centred, adjusted, cosine and null, [5, L, concepts], from the inner products of rows."""
    a, b = _lengths(products, pick.first), _lengths(products, pick.second)
    centred = _difference(products, pick)
    adjusted = centred if less is None else _difference(less, pick)
    cosine = _form(products, pick.first, pick.second) / np.maximum(a * b, TINY)
    null = np.full(centred.shape, np.nan)
    if other is not None:
        second, length = np.roll(pick.second, shift, axis=0), np.roll(b, shift, axis=1)
        null = _form(other, pick.first, second) / np.maximum(a * length, TINY)
    found = np.stack([_difference(plain, pick), centred, adjusted, cosine, null])
    result: Reals = found.mean(axis=3)
    return result


def _difference(products: Reals, pick: _Pick) -> Reals:
    lengths = _lengths(products, pick.first) + _lengths(products, pick.second)
    result: Reals = 2 * _lengths(products, pick.first - pick.second) / np.maximum(lengths, TINY)
    return result


def _lengths(products: Reals, weight: Reals) -> Reals:
    """Return the lengths of weighted sums of rows, [L, concepts, splits]; rounding may leave a square below zero."""
    result: Reals = np.sqrt(np.maximum(_form(products, weight, weight), 0))
    return result


def _form(products: Reals, left: Reals, right: Reals) -> Reals:
    """Return the inner products of two weighted sums of rows, [L, concepts, splits]."""
    result: Reals = ((left @ products) * right).sum(axis=3)
    return result
