"""The built-in scorer keeps the contract; one that says 0.99 always, and other careless ones, break it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from encyclo.testing.scorers import ScorerContract
from encyclo.types import Context, Scores, Split


class TestCalibrated(ScorerContract):
    plugin = "calibrated"


def honest(planted, samples) -> Scores:
    from encyclo_scorers.calibrated import score_confidence

    return score_confidence(planted, samples, Context(0, "cpu", None, Path()))


def changed(scores: Scores, **fields) -> Scores:
    return Scores(**{**vars(scores), **fields})


def always_sure(planted, samples) -> Scores:
    sure = np.full(len(planted.concepts), 0.99, np.float32)
    right = honest(planted, samples)
    return Scores(sure, sure - np.float32(0.01), sure + np.float32(0.01), right.calibration)


def wide(planted, samples) -> Scores:
    scores = honest(planted, samples)
    return changed(scores, low=scores.low * 0, high=scores.high * 0 + 1)


def narrow(planted, samples) -> Scores:
    scores = honest(planted, samples)
    return changed(scores, low=scores.confidence, high=scores.confidence)


def peeking(planted, samples) -> Scores:
    planted.read(samples.read(samples.rows(Split.TRAIN)))
    return honest(planted, samples)


def boasting(planted, samples) -> Scores:
    scores = honest(planted, samples)
    return changed(scores, calibration={**scores.calibration, "ece": 0.001})


def uncounted(planted, samples) -> Scores:
    scores = honest(planted, samples)
    return changed(scores, calibration={**scores.calibration, "n": 10})


def uncalibrated(planted, samples) -> Scores:
    scores = honest(planted, samples)
    bins = [[0.99, accuracy, count] for _, accuracy, count in scores.calibration["bins"]]
    ece = sum(abs(c - a) * n for c, a, n in bins) / scores.calibration["n"]
    return changed(scores, calibration={**scores.calibration, "bins": bins, "ece": ece})


def percent(planted, samples) -> Scores:
    scores = honest(planted, samples)
    return changed(scores, confidence=scores.confidence * 100)


def drifting(planted, samples, calls=[]) -> Scores:  # noqa: B006
    calls.append(1)
    scores = honest(planted, samples)
    return changed(scores, low=scores.low * np.float32(0.99 ** len(calls)))


CARELESS = {
    "scores_are_probabilities": [percent],
    "confidence_is_calibrated": [always_sure],
    "it_is_not_sure_of_a_poor_reader": [always_sure],
    "intervals_hold_the_truth": [always_sure, narrow],
    "more_samples_narrow_the_interval": [wide],
    "reads_what_training_never_saw": [peeking],
    "nothing_is_made_up": [always_sure],
    "calibration_is_reported": [boasting, uncounted],
    "readings_are_calibrated": [uncalibrated],
    "is_the_same_for_a_seed": [drifting],
}
CASES = [(check, scorer) for check, scorers in CARELESS.items() for scorer in scorers]


def contract_of(scorer) -> ScorerContract:
    class Given(ScorerContract):
        plugin = "calibrated"

        def call(self, hook, **arguments):
            return scorer(arguments["interpreter"], arguments["samples"])

    return Given()


@pytest.mark.parametrize(("check", "scorer"), CASES, ids=[f"{c}-{s.__name__}" for c, s in CASES])
def test_a_careless_scorer_is_found_out(check: str, scorer, tmp_path: Path):
    problem = contract_of(scorer).find(check, tmp_path).problem
    assert problem is not None and problem.startswith("ContractError"), problem


def test_a_scorer_that_says_99_percent_always_fails(tmp_path: Path):
    failed = {finding.check for finding in contract_of(always_sure).report(tmp_path) if finding.problem}
    assert failed >= {
        "confidence_is_calibrated",
        "it_is_not_sure_of_a_poor_reader",
        "intervals_hold_the_truth",
    }
