"""Scorer `calibrated`: a temperature fitted on some held-out families, judged on others.

A concept's confidence is the probability that the interpreter names it right from one fresh sample: its own
held-out readings, drawn towards what is usual over concepts as far as concepts are alike, which is estimated from
all of them. Few own readings leave a wide interval where concepts differ.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo import hookimpl
from encyclo.statistics import calibration
from encyclo.statistics.accuracy import read_in_batches, true_ranks
from encyclo.types import Interpreter, SampleSet, Scores, Split


@hookimpl
def score_confidence(interpreter: Interpreter, samples: SampleSet) -> Scores:
    """Fit the temperature on `Split.CALIBRATION`, report on `Split.TEST`, score concepts from both.

    Samples that only describe their concept are left out: they are a rung of their own.
    A run without held-out families can't measure this: confidences are NaN and calibration is empty.
    """
    fit_rows, test_rows = samples.named_rows(Split.CALIBRATION), samples.named_rows(Split.TEST)
    count = len(interpreter.concepts)
    if len(fit_rows) == 0 or len(test_rows) == 0:
        unknown = np.full(count, np.nan, np.float32)
        return Scores(unknown, unknown.copy(), unknown.copy(), {})
    fit_scores, fit_truth = _read(interpreter, samples, fit_rows)
    temperature = calibration.fit_temperature(fit_scores, fit_truth)
    test_scores, test_truth = _read(interpreter, samples, test_rows)
    confidence = calibration.softmax(test_scores, temperature).max(axis=1)
    test_right = true_ranks(test_scores, test_truth) == 1
    fit_right = true_ranks(fit_scores, fit_truth) == 1
    truth = np.concatenate([fit_truth, test_truth])
    right = np.bincount(truth, np.concatenate([fit_right, test_right]), minlength=count).astype(np.int64)
    total = np.bincount(truth, minlength=count)
    usual = calibration.fit_accuracies(right, total)
    mean, low, high = calibration.accuracy_intervals(usual, right, total)
    return Scores(mean, low, high, _report(confidence, test_right, temperature))


def _read(
    interpreter: Interpreter, samples: SampleSet, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    scores = [scores for _, scores in read_in_batches(interpreter, samples, rows)]
    return np.concatenate(scores), samples.concept[rows]


def _report(confidence: NDArray[np.float64], right: NDArray[np.bool_], temperature: float) -> dict[str, Any]:
    bins = calibration.reliability_bins(confidence, right)
    return {
        "ece": calibration.expected_calibration_error(bins),
        "brier": calibration.brier_score(confidence, right),
        "temperature": temperature,
        "n": len(right),
        "bins": [[b.confidence, b.accuracy, b.count] for b in bins],
    }
