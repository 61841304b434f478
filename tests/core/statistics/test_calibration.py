"""Calibration against planted data and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from scipy.stats import beta
from sklearn.metrics import brier_score_loss

from encyclo.statistics import calibration

COUNT = 20_000


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def drawn_truth(scores: np.ndarray, temperature: float, generator: np.random.Generator) -> np.ndarray:
    """Draw the truth of each row from softmax(scores / temperature), by the Gumbel trick."""
    return (scores / temperature + generator.gumbel(size=scores.shape)).argmax(axis=1)


def test_softmax_of_a_worked_example():
    probabilities = calibration.softmax(np.log([[1.0, 2.0, 5.0]]) * 3, temperature=3.0)
    np.testing.assert_allclose(probabilities, [[0.125, 0.25, 0.625]])


def test_softmax_of_huge_scores_stays_finite():
    probabilities = calibration.softmax(np.array([[1e6, 1e6, -1e6]], np.float32), temperature=0.01)
    np.testing.assert_allclose(probabilities, [[0.5, 0.5, 0.0]])


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1.0, 3.0, 20.0])
def test_the_planted_temperature_is_recovered(generator, temperature):
    scores = generator.normal(scale=3 * temperature, size=(COUNT, 20))
    truth = drawn_truth(scores, temperature, generator)
    assert calibration.fit_temperature(scores, truth) == pytest.approx(temperature, rel=0.03)


@pytest.mark.parametrize("candidates", [3, 40, 300])
@pytest.mark.parametrize("temperature", [0.001, 0.7, 300.0])
@pytest.mark.parametrize("right", [0.2, 0.99])
def test_no_other_temperature_has_a_smaller_loss(generator, candidates, temperature, right):
    """The result is scipy's minimum, also if some truths are not among the best scores."""
    top = -np.sort(-generator.normal(scale=3 * temperature, size=(700, candidates)), axis=1).astype(
        np.float32
    )
    place = np.where(generator.uniform(size=700) < right, 0, generator.integers(1, candidates, 700))
    own = top[np.arange(700), place]
    outside = generator.uniform(size=700) < 0.1
    own[outside] = top[outside, -1] - np.float32(temperature)
    scores = np.concatenate([top, np.where(outside, own, -np.inf)[:, None]], axis=1).astype(np.float64)

    def loss(log_temperature: float) -> float:
        inverse = np.exp(-log_temperature)
        return float(np.mean(logsumexp(scores * inverse, axis=1) - own * inverse))

    bounds = (np.log(1e-4), np.log(1e3))
    best = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-9})
    found = calibration.fit_temperature_of_best(top, own, ~outside)
    assert np.log(found) == pytest.approx(best.x, abs=1e-5)


def test_a_score_of_minus_infinity_counts_as_no_candidate(generator):
    scores = -np.sort(-generator.normal(scale=3, size=(400, 20)), axis=1).astype(np.float32)
    truth = drawn_truth(scores[:, :12], 1.0, generator)
    own, inside = scores[np.arange(400), truth], np.ones(400, bool)
    few = calibration.fit_temperature_of_best(scores[:, :12], own, inside)
    scores[:, 12:] = -np.inf
    assert calibration.fit_temperature_of_best(scores, own, inside) == pytest.approx(few, rel=1e-5)


def test_the_temperature_stays_within_its_bounds(generator):
    scores = generator.normal(size=(400, 20))
    for truth, bound in ((scores.argmax(axis=1), 1e-4), (scores.argmin(axis=1), 1e3)):
        assert calibration.fit_temperature(scores, truth) == pytest.approx(bound, rel=1e-3)
    assert calibration.fit_temperature(np.zeros((5, 3)), np.zeros(5, int)) <= 1e3


def test_scaling_the_scores_scales_the_temperature(generator):
    scores = generator.normal(scale=3, size=(2000, 10)).astype(np.float32)
    truth = drawn_truth(scores, 1.0, generator)
    once = calibration.fit_temperature(scores, truth)
    assert calibration.fit_temperature(scores * 8, truth) == pytest.approx(8 * once, rel=1e-3)


def test_calibrated_data_have_a_small_error_and_overconfident_data_a_large_one(generator):
    confidence = generator.uniform(0.2, 1.0, COUNT)
    right = generator.uniform(size=COUNT) < confidence
    overconfident = generator.uniform(size=COUNT) < confidence - 0.2

    def error(correct: np.ndarray) -> float:
        return calibration.expected_calibration_error(calibration.reliability_bins(confidence, correct))

    assert error(right) < 0.015
    assert error(overconfident) == pytest.approx(0.2, abs=0.015)


def test_fitting_the_temperature_mends_overconfidence(generator):
    scores = generator.normal(scale=2, size=(COUNT, 10))
    truth = drawn_truth(scores, 1.0, generator)
    right = scores.argmax(axis=1) == truth

    def error(temperature: float) -> float:
        confidence = calibration.softmax(scores, temperature).max(axis=1)
        return calibration.expected_calibration_error(calibration.reliability_bins(confidence, right))

    assert error(0.3) > 0.1
    assert error(calibration.fit_temperature(scores, truth)) < 0.015


def test_bins_of_a_worked_example():
    confidence = np.array([0.0, 0.05, 0.3, 0.31, 1.0])
    correct = np.array([False, True, True, False, True])
    bins = calibration.reliability_bins(confidence, correct, bins=10)
    assert [b.count for b in bins] == [2, 2, 1]
    assert [b.accuracy for b in bins] == [0.5, 0.5, 1.0]
    assert [b.confidence for b in bins] == pytest.approx([0.025, 0.305, 1.0])
    expected = (2 * 0.475 + 2 * 0.195 + 0) / 5
    assert calibration.expected_calibration_error(bins) == pytest.approx(expected)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=200), st.integers(1, 30))
def test_bins_hold_every_reading_once_by_rising_confidence(readings, number):
    confidence = np.array([c for c, _ in readings])
    correct = np.array([r for _, r in readings])
    bins = calibration.reliability_bins(confidence, correct, number)
    assert sum(b.count for b in bins) == len(readings)
    assert len(bins) <= number
    assert all(b.count > 0 for b in bins)
    assert [b.confidence for b in bins] == sorted(b.confidence for b in bins)
    assert sum(b.count * b.accuracy for b in bins) == pytest.approx(correct.sum())
    assert sum(b.count * b.confidence for b in bins) == pytest.approx(confidence.sum())
    assert 0 <= calibration.expected_calibration_error(bins) <= 1


def test_brier_score_is_scikit_learns(generator):
    confidence = generator.uniform(size=500)
    correct = generator.uniform(size=500) < 0.4
    expected = brier_score_loss(correct, confidence)
    assert calibration.brier_score(confidence, correct) == pytest.approx(expected, rel=1e-12)
    as_stored = confidence.astype(np.float32)
    assert calibration.brier_score(as_stored, correct) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("mean", "strength"), [(0.6, 3.0), (0.9, 8.0), (0.2, 1.0), (0.97, 60.0)])
def test_the_planted_population_is_recovered(generator, mean, strength):
    accuracy = generator.beta(mean * strength, (1 - mean) * strength, size=5000)
    total = generator.integers(5, 30, size=5000)
    found = calibration.fit_accuracies(generator.binomial(total, accuracy), total)
    assert found.mean == pytest.approx(mean, abs=0.02)
    assert found.strength == pytest.approx(strength, rel=0.2)


def test_how_alike_concepts_are_follows_from_the_readings(generator):
    total = np.full(1000, 10)
    alike = calibration.fit_accuracies(generator.binomial(total, 0.7), total)
    differing = calibration.fit_accuracies(np.where(np.arange(1000) < 700, 10, 0), total)
    assert differing.strength < 1 and alike.strength > 100
    few = calibration.fit_accuracies(generator.binomial(total[:10], 0.7), total[:10])
    assert few.strength < alike.strength / 5  # ten concepts can't show that a thousand are alike


def test_concepts_without_readings_say_nothing_about_the_others():
    right, total = np.array([3, 1, 4]), np.array([4, 4, 4])
    alone = calibration.fit_accuracies(right, total)
    with_unread = calibration.fit_accuracies(np.append(right, [0, 0]), np.append(total, [0, 0]))
    np.testing.assert_array_equal(with_unread.weight, alone.weight)
    assert with_unread.share == alone.share


def intervals(right: np.ndarray, total: np.ndarray, **level) -> tuple[np.ndarray, ...]:
    return calibration.accuracy_intervals(calibration.fit_accuracies(right, total), right, total, **level)


@pytest.mark.parametrize("right", [0, 10])
def test_all_wrong_or_all_right_still_leaves_room_for_the_other(right):
    mean, low, high = intervals(np.full(50, right), np.full(50, 10))
    assert (low < high).all()
    assert (mean > 0).all() and (mean < 1).all()


readings = st.integers(0, 40).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total)))


@settings(max_examples=30, deadline=None)
@given(st.lists(readings, min_size=1, max_size=30))
def test_an_interval_holds_its_mean_and_stays_within_0_and_1(several):
    right, total = np.array(several).T
    mean, low, high = intervals(right, total)
    assert ((low >= 0) & (low <= mean) & (mean <= high) & (high <= 1)).all()
    assert mean.dtype == low.dtype == high.dtype == np.float32


@settings(max_examples=30, deadline=None)
@given(st.lists(readings, min_size=1, max_size=30), st.integers(1, 100))
def test_right_readings_raise_the_interval_and_wrong_ones_lower_it(several, count):
    found = calibration.fit_accuracies(*np.array(several).T)
    mean, low, high = calibration.accuracy_intervals(
        found, np.array([count, 0, 0]), np.array([count, count, 0])
    )
    for figure in (mean, low, high):
        assert figure[1] <= figure[2] + 1e-6 <= figure[0] + 2e-6
    assert mean[1] < mean[0]


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_fewer_readings_leave_a_wider_interval(generator, share):
    usual = np.full(500, 8)
    found = calibration.fit_accuracies(generator.binomial(usual, generator.beta(2, 2, 500)), usual)
    total = np.array([0, 4, 8, 40, 400])
    _, low, high = calibration.accuracy_intervals(found, (share * total).astype(int), total)
    assert (np.diff(high - low) < 0).all()


@pytest.mark.parametrize("every", [3, 0])
def test_a_few_readings_that_all_agree_leave_doubt(every):
    """Twenty concepts of three readings each, all right or all wrong: no interval may claim certainty."""
    mean, low, high = intervals(np.full(20, every), np.full(20, 3))
    assert (high - low > 0.05).all()
    assert (abs(mean - every / 3) < 0.05).all()


def test_others_count_as_so_many_readings_in_an_interval():
    """300 concepts of at most one reading, all right: each interval has its own width, however many others there are."""
    few = np.array([0] * 79 + [1] * 221 + [3, 10, 40])
    mean, low, high = intervals(few, few)
    for count, place in ((0, 0), (1, 79), (3, 300), (10, 301)):
        assert low[place] == pytest.approx(beta.ppf(0.025, count + calibration.BORROWED + 0.5, 0.5), abs=1e-6)
    assert low[0] < low[79] < low[300] < low[301] < low[302] < mean.min()
    assert low[302] >= beta.ppf(0.025, 40.5, 0.5)  # a concept's own readings count in full
    assert low[0] > 0.9 and high.max() <= 1
    many = np.concatenate([few, np.ones(100_000, int)])
    np.testing.assert_allclose(intervals(many, many)[1][: len(few)], low, atol=1e-6)


def test_a_misread_concept_is_promised_little():
    right, total = np.array([*[4] * 400, 1]), np.array([*[4] * 400, 2])
    _, low, _ = intervals(right, total)
    assert low[400] < 0.7 < 0.9 < low[0]


def test_the_interval_covers_as_often_as_it_says(generator):
    accuracy = generator.beta(3.5, 1.5, size=COUNT)
    total = generator.integers(0, 15, size=COUNT)
    right = generator.binomial(total, accuracy)
    for level in (0.8, 0.95):
        _, low, high = intervals(right, total, level=level)
        covered = np.mean((low <= accuracy) & (accuracy <= high))
        assert level - 0.01 < covered < level + 0.03  # a little more often: see the test before


def test_concepts_that_are_alike_take_each_others_readings_for_their_own(generator):
    """Three readings each, all of 1,000 concepts right in 99.8%: together they say what three alone can't."""
    total = np.full(1000, 3)
    right = generator.binomial(total, 0.998)
    _, low, _ = intervals(right, total)
    assert low[right == 3].min() > 0.9 and low.max() < 0.998


def test_accuracy_by_coverage_of_a_worked_example():
    confidence = np.array([0.2, 0.9, 0.6, 0.6])
    correct = np.array([False, True, True, False])
    assert calibration.accuracy_by_coverage(confidence, correct, steps=4) == [
        [0.25, 1.0, 0.9], [0.5, 0.75, 0.6], [0.75, pytest.approx(2 / 3), 0.6], [1.0, 0.5, 0.2],
    ]  # fmt: skip


def test_a_conformal_threshold_is_the_right_order_statistic():
    values = np.array([5.0, 1.0, 4.0, 2.0, 3.0, 9.0, 8.0, 7.0, 6.0])
    assert calibration.conformal_threshold(values, 0.9) == 9.0
    assert calibration.conformal_threshold(values, 0.5) == 5.0
    assert calibration.conformal_threshold(values, 0.95) == np.inf


def test_a_conformal_threshold_covers_as_often_as_it_says(generator):
    thresholds = [calibration.conformal_threshold(generator.exponential(size=99), 0.9) for _ in range(400)]
    held = [generator.exponential(size=200) <= threshold for threshold in thresholds]
    assert np.mean(held) == pytest.approx(0.9, abs=0.01)


def test_exact_confidences_have_an_error_by_chance_that_falls_with_their_number():
    generator = np.random.default_rng(3)
    few, many = generator.random(100), generator.random(10_000)
    assert calibration.error_by_chance(few) > 0.05 > 0.015 > calibration.error_by_chance(many) > 0.005
    right = generator.random(10_000) < many
    measured = calibration.expected_calibration_error(calibration.reliability_bins(many, right))
    assert measured == pytest.approx(calibration.error_by_chance(many), abs=0.005)
    assert calibration.error_by_chance(np.ones(9)) == 0
