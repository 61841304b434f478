"""Scorer `calibrated`: one calibrator for all concepts, fitted on held-out families and judged by cross-fitting.

A concept's confidence is the probability that the interpreter reads one new sample of it right. It is the accuracy on
the concept's held-out readings, shrunk towards the mean over concepts; the shrinkage is estimated from all concepts
and is strong if concepts are alike. If they differ, a concept with few readings gets a wide interval.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from encyclo import calibration, hookimpl
from encyclo.statistics.accuracy import rank_samples
from encyclo.statistics.confidence import (
    ENOUGH_SENTENCES,
    collect_readings,
    cross_fitted,
    few_enough,
    fit,
    report,
    training_distribution,
)
from encyclo.types import Context, Interpreter, SampleSet, Scores, Split

FOLDS = 10
"""Groups of families for cross-fitting."""


@hookimpl
def score_confidence(interpreter: Interpreter, samples: SampleSet, context: Context) -> Scores:
    """Fit the calibrator on all held-out families; judge it on the test families, each with a fit on other families.

    The families of `Split.CALIBRATION` and `Split.TEST` are held out; every concept is scored on both. Descriptions
    are left out, since they are a separate rung. With enough natural sentences, the calibrator for readings in texts
    is fitted on these instead. Without held-out families, confidences are NaN and the calibration is empty.
    """
    count, known = len(interpreter.concepts), training_distribution(samples)
    every = samples.named_rows(Split.CALIBRATION, Split.TEST)
    rows = few_enough(every)
    readings = collect_readings(interpreter, samples, rows, known)
    test = samples.split[rows] == Split.TEST
    parts = list(cross_fitted(readings, samples.family[rows], known, FOLDS, context.seed))
    if not parts or test.all() or not test.any():
        unknown = np.full(count, np.nan, np.float32)
        return Scores(unknown, unknown.copy(), unknown.copy(), {})
    calibrator, confidence = fit(readings, known), np.empty(len(readings))
    for judged, others in parts:
        confidence[judged] = others.best_confidences(readings.top[judged], readings.distance[judged])
    calibration_report = report(confidence[test], readings.right[test], calibrator.temperature)
    right = _right(interpreter, samples, every, rows, readings.right)
    hits = np.bincount(samples.concept[every], right, minlength=count).astype(np.int64)
    total = np.bincount(samples.concept[every], minlength=count)
    mean, low, high = calibration.accuracy_intervals(calibration.fit_accuracies(hits, total), hits, total)
    natural = context.natural
    if natural is not None and len(natural) >= ENOUGH_SENTENCES:
        sentences = collect_readings(interpreter, natural, np.arange(len(natural)), known)
        calibrator = fit(sentences, known, "natural")
    return Scores(mean, low, high, calibration_report.as_json(), calibrator)


def _right(
    interpreter: Interpreter,
    samples: SampleSet,
    every: NDArray[np.int64],
    read: NDArray[np.int64],
    right: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Return whether each of the rows `every` is read right; of `read`, some of them, `right` says it already."""
    found, known = np.empty(len(every), bool), np.isin(every, read)
    found[known] = right
    found[~known] = rank_samples(interpreter, samples, every[~known]) == 1
    return found
