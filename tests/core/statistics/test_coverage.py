"""Coverage: the pursuit in exact cases, its references, and the figures by layer and by kind of token."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import nnls

from encyclo.statistics import coverage
from encyclo.statistics.coverage import SIZES, measure_coverage, principal_residuals, pursue

RANDOM = np.random.default_rng(0)
DIRECTIONS = RANDOM.standard_normal((40, 24))
LAYERS = (3, -1)


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def text_of(signatures: np.ndarray, tokens: int, entries: int = 3) -> np.ndarray:
    """Activations [T, L, H] that are non-negative sums of a few centred signatures, far from 0."""
    some = np.random.default_rng(5)
    centred = signatures - signatures.mean(axis=0)
    values = np.zeros((tokens, *signatures.shape[1:]), np.float32)
    for token in range(tokens):
        chosen = some.choice(len(signatures), entries, replace=False)
        values[token] = np.tensordot(some.uniform(1, 2, entries), centred[chosen], axes=1)
    return values + 100


def test_a_sum_of_two_directions_is_rebuilt_by_two():
    values = 3 * unit(DIRECTIONS)[[4]] + 2 * unit(DIRECTIONS)[[9]]
    left = pursue(values, DIRECTIONS, 4)[:, 0] / (values**2).sum()
    assert left[0] == 1 and 0.01 < left[1] < 0.6
    np.testing.assert_allclose(left[2:], 0, atol=1e-12)


def test_a_negative_multiple_of_a_direction_is_not_rebuilt_by_it():
    direction = unit(DIRECTIONS[:1])
    assert pursue(-direction, direction, 1)[:, 0].tolist() == [1, 1]
    np.testing.assert_allclose(pursue(direction, direction, 1)[:, 0], [1, 0], atol=1e-12)


@pytest.mark.parametrize("kept", [5000, 10])
def test_the_whole_pursuit_is_non_negative_least_squares(kept: int, monkeypatch: pytest.MonkeyPatch):
    """scipy's solver is the reference; a direction may be there twice, and more tokens than a block."""
    monkeypatch.setattr(coverage, "KEPT", kept)
    directions = np.concatenate([DIRECTIONS, DIRECTIONS[:2], np.zeros((1, 24))])
    values = RANDOM.standard_normal((coverage.BLOCK + 20, 24))
    left = pursue(values, directions, 64)
    assert left.shape == (len(DIRECTIONS) + 2 + 1, len(values)), "a direction of zeros is none"
    assert (np.diff(left, axis=0) <= 1e-12).all()
    exact = [nnls(unit(DIRECTIONS).T, value)[1] ** 2 for value in values]
    np.testing.assert_allclose(left[-1], exact, atol=1e-6)


def test_the_first_direction_is_the_nearest():
    values = RANDOM.standard_normal((30, 24))
    nearest = (values @ unit(DIRECTIONS).T).max(axis=1)
    np.testing.assert_allclose(pursue(values, DIRECTIONS, 1)[1], (values**2).sum(axis=1) - nearest**2)


def test_principal_components_of_other_tokens():
    plane = RANDOM.standard_normal((2, 24))
    known, new = RANDOM.standard_normal((30, 2)) @ plane, RANDOM.standard_normal((5, 2)) @ plane
    left = principal_residuals(known, new, 64)
    assert left.shape == (3, 5), "two dimensions have two components"
    np.testing.assert_allclose(left[2], 0, atol=1e-9)


def test_entries_of_which_a_text_is_made_explain_it_and_the_references_less():
    signatures = np.random.default_rng(1).standard_normal((80, 2, 128)).astype(np.float32)
    values = text_of(signatures, 120)
    found = measure_coverage(values, ["word"] * 100 + ["number"] * 20, signatures, LAYERS, 0, "a text")
    assert (found.tokens, found.measured, found.candidates, found.source) == (120, 60, 80, "a text")
    assert list(found.layers) == ["3", "-1"]
    for row in found.layers.values():
        assert row.k == list(SIZES) and row.entries[1] > 0.9
        for reference in (row.random, row.shuffled, row.principal):
            assert reference[1] < row.entries[1] - 0.3
    assert found.layers["3"].principal[3] is None, "60 tokens have fewer than 64 components"
    assert found.mean("entries", 4) == pytest.approx(
        np.mean([row.entries[1] for row in found.layers.values()])
    )
    assert {(row.kind, row.tokens) for row in found.kinds} == {("word", 40), ("number", 20)}
    assert all(0.9 < row.explained <= 1 for row in found.kinds)
    assert found == measure_coverage(
        values, ["word"] * 100 + ["number"] * 20, signatures, LAYERS, 0, "a text"
    )
    other = measure_coverage(values, ["word"] * 120, signatures, LAYERS, 1, "a text")
    assert other.layers["3"].random != found.layers["3"].random
    assert other.layers["3"].entries == found.layers["3"].entries


def test_a_token_with_a_huge_activation_counts_like_any_other():
    signatures = np.random.default_rng(1).standard_normal((80, 1, 128)).astype(np.float32)
    values = text_of(signatures, 120)
    before = measure_coverage(values, ["word"] * 120, signatures, (3,), 0, "a text").mean("entries", 4)
    values[-1] = 1e6 * np.random.default_rng(2).standard_normal(128)
    after = measure_coverage(values, ["word"] * 120, signatures, (3,), 0, "a text").mean("entries", 4)
    assert before - 1 / 60 <= after < before


def test_what_cannot_be_measured_is_none():
    signatures = np.random.default_rng(1).standard_normal((30, 2, 128)).astype(np.float32)
    short = measure_coverage(text_of(signatures, 49), ["word"] * 49, signatures, LAYERS, 0, "a text")
    assert (short.tokens, short.measured, short.layers, short.kinds) == (49, 0, None, None)
    assert short.mean("entries", 16) is None
    kinds = ["word"] * 55 + ["number"] * 5
    found = measure_coverage(text_of(signatures, 60), kinds, signatures, LAYERS, 0, "a text")
    assert found.layers["3"].entries[3] is None and found.layers["3"].principal[3] is None, "30 are not 64"
    assert [(row.kind, row.explained is None) for row in found.kinds] == [("word", False), ("number", True)]
    alone = measure_coverage(text_of(signatures, 60), kinds, signatures[:1], LAYERS, 0, "a text")
    assert alone.layers is None


def test_signatures_that_do_not_differ_explain_nothing():
    signatures = np.random.default_rng(1).standard_normal((30, 1, 128)).astype(np.float32)
    values = text_of(signatures, 60)
    found = measure_coverage(values, ["word"] * 60, np.ones_like(signatures), (3,), 0, "a text")
    assert found.layers["3"].entries == [None] * 4 and found.kinds[0].explained is None
    few = measure_coverage(values, ["word"] * 60, signatures[:10], (3,), 0, "a text")
    assert few.layers["3"].entries[1] > 0 and few.layers["3"].entries[2] is None
    assert few.kinds[0].explained is None, "10 entries are not 16"
