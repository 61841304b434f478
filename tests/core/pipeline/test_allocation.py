"""How many new samples a concept gets: the formulas are right, and no budget is exceeded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encyclo.pipeline.allocation import FEWEST, MARGIN, TIMES, allocate, samples_to_clear, samples_to_converge


def test_a_signature_twice_too_uncertain_needs_four_times_its_samples():
    needed = samples_to_converge(np.array([10, 10, 10, 1]), np.array([0.5, 0.25, 0.1, np.inf]), 0.25)
    np.testing.assert_array_equal(needed, [30, 0, 0, np.nan])


def test_the_promise_of_convergence_holds_on_drawn_samples():
    generator = np.random.default_rng(0)
    draws = generator.normal(1.0, 2.0, (4000, 200))
    error = draws[:, :20].std(axis=1, ddof=1) / np.sqrt(20)
    needed = samples_to_converge(np.full(4000, 20), error, 0.25).astype(int)
    after = [row[: 20 + k].std(ddof=1) / np.sqrt(20 + k) for row, k in zip(draws, needed, strict=True)]
    assert abs(np.mean(after) - 0.25) < 0.01


def test_clearing_a_target_follows_the_interval():
    count = np.array([10, 10, 10, 10])
    confidence = np.array([0.95, 0.95, 0.80, np.nan])
    low = np.array([0.75, 0.90, 0.70, np.nan])
    needed = samples_to_clear(count, confidence, low, 0.85)
    # 0.2 must shrink to 0.1: four times the samples; cleared already; hopeless as it is; unknown.
    np.testing.assert_array_equal(needed, [30, 0, np.inf, np.nan])


@given(
    needed=st.lists(
        st.one_of(st.floats(0, 1e6), st.just(float("inf")), st.just(float("nan"))), min_size=1, max_size=60
    ),
    usual=st.integers(1, 50),
    budget=st.integers(1, 5000),
)
def test_no_budget_is_overspent_and_none_is_left_while_someone_needs_it(needed, usual, budget):
    given_ = allocate(np.array(needed), usual, budget)
    asked = np.clip(
        np.where(np.isnan(needed), usual, MARGIN * np.array(needed)), FEWEST, max(FEWEST, TIMES * usual)
    )
    assert given_.sum() <= budget
    assert (given_ >= 0).all() and (given_ <= np.ceil(asked)).all()
    if asked.sum() > budget:
        assert given_.sum() == budget
    else:
        np.testing.assert_array_equal(given_, asked.astype(int))


def test_who_needs_more_never_gets_less():
    needed = np.array([3.0, 9.0, 27.0, 5.0])
    given_ = allocate(needed, 10, 20)
    order = np.argsort(needed)
    assert (np.diff(given_[order]) >= 0).all() and given_.sum() == 20


@pytest.mark.parametrize("usual", [1, 10])
def test_an_unknown_need_is_the_usual_number(usual):
    np.testing.assert_array_equal(allocate(np.full(3, np.nan), usual, 1000), [max(usual, FEWEST)] * 3)
