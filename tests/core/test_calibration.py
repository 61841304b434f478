"""Calibration against planted data and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from encyclo import calibration
from encyclo.calibration import BetaPrior

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


@pytest.mark.parametrize(("mean", "strength"), [(0.6, 3.0), (0.9, 8.0), (0.2, 1.0)])
def test_the_planted_prior_is_recovered(generator, mean, strength):
    accuracy = generator.beta(mean * strength, (1 - mean) * strength, size=5000)
    total = generator.integers(5, 30, size=5000)
    prior = calibration.fit_beta_prior(generator.binomial(total, accuracy), total)
    assert prior.mean == pytest.approx(mean, abs=0.02)
    assert prior.strength == pytest.approx(strength, rel=0.1)


def test_concepts_alike_give_a_strong_prior_and_never_above_the_most(generator):
    total = np.full(1000, 10)
    alike = calibration.fit_beta_prior(generator.binomial(total, 0.7), total)
    differing = calibration.fit_beta_prior(np.where(np.arange(1000) < 700, 10, 0), total)
    assert differing.strength < 2 < alike.strength <= 20.0
    assert calibration.fit_beta_prior(generator.binomial(total, 0.7), total, most=5).strength <= 5.0


def test_concepts_without_readings_say_nothing_about_the_prior():
    right, total = np.array([3, 1, 4]), np.array([4, 4, 4])
    alone = calibration.fit_beta_prior(right, total)
    assert calibration.fit_beta_prior(np.append(right, [0, 0]), np.append(total, [0, 0])) == alone


@pytest.mark.parametrize("right", [0, 10])
def test_all_wrong_or_all_right_still_leaves_room_for_the_other(right):
    prior = calibration.fit_beta_prior(np.full(50, right), np.full(50, 10))
    assert 0 < prior.mean < 1
    mean, low, high = calibration.beta_interval(prior, np.array([right]), np.array([10]))
    assert low[0] < high[0]
    assert 0 < mean[0] < 1


priors = st.builds(BetaPrior, st.floats(1e-4, 1 - 1e-4), st.floats(0.5, 20.0))
readings = st.integers(0, 200).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total)))


@given(priors, readings)
def test_an_interval_holds_its_mean_and_stays_within_0_and_1(prior, reading):
    mean, low, high = calibration.beta_interval(prior, np.array([reading[0]]), np.array([reading[1]]))
    assert 0 <= low[0] <= mean[0] <= high[0] <= 1
    assert mean.dtype == low.dtype == high.dtype == np.float32


@given(priors, st.integers(1, 100))
def test_right_readings_raise_the_interval_and_wrong_ones_lower_it(prior, count):
    total = np.array([count, count, 0])
    mean, low, high = calibration.beta_interval(prior, np.array([count, 0, 0]), total)
    for figure in (mean, low, high):
        assert figure[1] <= figure[2] <= figure[0]
    assert mean[1] < mean[0]


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_fewer_readings_leave_a_wider_interval(share):
    total = np.array([0, 4, 8, 40, 400])
    _, low, high = calibration.beta_interval(BetaPrior(share, 2.0), (share * total).astype(int), total)
    assert (np.diff(high - low) < 0).all()


@pytest.mark.parametrize("every", [3, 0])
def test_a_few_readings_that_all_agree_leave_doubt(every):
    """Twenty concepts of three readings each, all right or all wrong: no interval may claim certainty."""
    right, total = np.full(20, every), np.full(20, 3)
    mean, low, high = calibration.beta_interval(calibration.fit_beta_prior(right, total), right, total)
    assert (high - low > 0.05).all()
    assert (abs(mean - every / 3) < 0.05).all()


def test_the_interval_covers_as_often_as_it_says(generator):
    prior = BetaPrior(0.7, 5.0)
    accuracy = generator.beta(3.5, 1.5, size=COUNT)
    total = generator.integers(0, 15, size=COUNT)
    right = generator.binomial(total, accuracy)
    for level in (0.8, 0.95):
        _, low, high = calibration.beta_interval(prior, right, total, level)
        assert np.mean((low <= accuracy) & (accuracy <= high)) == pytest.approx(level, abs=0.01)


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
