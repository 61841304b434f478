"""Scorer `calibrated`: one calibrator, fitted on held-out families, judged on others than it was fitted on.

A concept's confidence is the probability that the interpreter names it right from one fresh sample: its own
held-out readings, drawn towards what is usual over concepts as far as concepts are alike, which is estimated from
all of them. Few own readings leave a wide interval where concepts differ.
"""

from __future__ import annotations

import numpy as np

from encyclo import calibration, hookimpl
from encyclo.statistics.confidence import (
    ENOUGH_SENTENCES,
    collect_readings,
    cross_fitted,
    fit,
    report,
    training_distribution,
)
from encyclo.types import Context, Interpreter, SampleSet, Scores, Split

FOLDS = 10
"""Groups of families by which the calibrator is judged."""


@hookimpl
def score_confidence(interpreter: Interpreter, samples: SampleSet, context: Context) -> Scores:
    """Fit the calibrator on all held-out families; judge it on those that test, each by what is fitted on others.

    Held out are the families of `Split.CALIBRATION` and `Split.TEST`; every concept is scored on both. Samples that
    only describe their concept are left out: they are a rung of their own. Where there are enough natural
    sentences, readings in a text are calibrated on them instead. A run without held-out families can't measure
    this: confidences are NaN and calibration is empty.
    """
    count, known = len(interpreter.concepts), training_distribution(samples)
    rows = samples.named_rows(Split.CALIBRATION, Split.TEST)
    readings = collect_readings(interpreter, samples, rows, known)
    test = samples.split[rows] == Split.TEST
    parts = list(cross_fitted(readings, samples.family[rows], known, FOLDS, context.seed))
    if not parts or test.all() or not test.any():
        unknown = np.full(count, np.nan, np.float32)
        return Scores(unknown, unknown.copy(), unknown.copy(), {})
    calibrator, sure = fit(readings, known), np.empty(len(readings))
    for judged, others in parts:
        sure[judged] = others.confidences(readings.top[judged], readings.distance[judged])[:, 0]
    found = report(sure[test], readings.right[test], calibrator.temperature)
    hits = np.bincount(readings.truth, readings.right, minlength=count).astype(np.int64)
    total = np.bincount(readings.truth, minlength=count)
    mean, low, high = calibration.accuracy_intervals(calibration.fit_accuracies(hits, total), hits, total)
    natural = context.natural
    if natural is not None and len(natural) >= ENOUGH_SENTENCES:
        sentences = collect_readings(interpreter, natural, np.arange(len(natural)), known)
        calibrator = fit(sentences, known, "natural")
    return Scores(mean, low, high, found.as_json(), calibrator)
