"""Halves compared by inner products are those compared by computing each half's mean."""

from __future__ import annotations

import numpy as np
import pytest

from encyclo.statistics.compared_halves import compare_takes, draw_ranks

SPLITS = 6


def compared_directly(
    values: np.ndarray,
    counts: list[int],
    context: np.ndarray | None,
    centre: np.ndarray,
    scale: np.ndarray,
    take: int | None,
    shift: int,
) -> np.ndarray:
    """Return what `compare_takes` returns of one take, from the means of the halves."""
    generator = np.random.default_rng(3)
    orders = list(
        zip(*[[generator.permutation(count) for _ in range(SPLITS)] for count in counts], strict=True)
    )

    def halves(given: np.ndarray) -> np.ndarray:
        found = []
        for split in orders:
            for own, order in zip(np.split(given, np.cumsum(counts)[:-1]), split, strict=True):
                half = min(len(own), take or len(own)) // 2
                found.append([own[order[:half]].mean(axis=0), own[order[half : 2 * half]].mean(axis=0)])
        return np.array(found).reshape(SPLITS, len(counts), 2, *given.shape[1:]).swapaxes(0, 2)

    def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        length = np.linalg.norm(a, axis=-1) + np.linalg.norm(b, axis=-1)
        return 2 * np.linalg.norm(a - b, axis=-1) / length

    def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a * b).sum(axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)

    values = values.astype(np.float64)
    (a, b), (first, second) = halves(values), halves((values - centre) / scale)
    less = halves((values - (0 if context is None else context) - centre) / scale)
    null = np.full(first.shape[:-1], np.nan) if not shift else cosine(first, np.roll(second, shift, axis=0))
    figures = (difference(a, b), difference(first, second), difference(*less), cosine(first, second), null)
    return np.array([figure.mean(axis=1) for figure in figures])


# A concept of at most 2 x SPLITS samples is compared by them, one of more by its halves' means.
@pytest.mark.parametrize("counts", [[4, 12, 7, 5], [4, 13, 90, 7], [30, 20], [9], [50]])
@pytest.mark.parametrize("known", [True, False])
def test_inner_products_give_what_means_give(counts: list[int], known: bool):
    generator = np.random.default_rng(0)
    shape = (sum(counts), 2, 16)
    # A large common part, beside which the difference of two halves is small.
    values = (generator.normal(size=shape) + 300).astype(np.float32)
    context = generator.normal(size=shape).astype(np.float32) if known else None
    centre, scale = (generator.uniform(low, low + 1, shape[1:]).astype(np.float32) for low in (299, 1))
    takes = [None, 2, 4]
    draws, shift = np.random.default_rng(3), min(2, len(counts) - 1)
    ranks = [draw_ranks(count, SPLITS, draws) for count in counts]
    found = compare_takes(values, counts, context, centre, scale, ranks, takes, shift)
    for take, figures in zip(takes, found, strict=True):
        expected = compared_directly(values, counts, context, centre, scale, take, shift)
        np.testing.assert_allclose(figures, expected, rtol=1e-7, atol=1e-9)
