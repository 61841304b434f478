"""Scorer `calibrated`: one calibrator, fitted on some held-out families, judged on others.

A concept's confidence is the probability that the interpreter names it right from one fresh sample: its own
held-out readings, drawn towards what is usual over concepts as far as concepts are alike, which is estimated from
all of them. Few own readings leave a wide interval where concepts differ.
"""

from __future__ import annotations

import numpy as np

from encyclo import calibration, hookimpl
from encyclo.statistics.confidence import (
    ENOUGH_SENTENCES,
    FEWEST,
    Calibrator,
    collect_readings,
    fit,
    report,
    training_distribution,
)
from encyclo.types import Context, Interpreter, SampleSet, Scores, Split


@hookimpl
def score_confidence(interpreter: Interpreter, samples: SampleSet, context: Context) -> Scores:
    """Fit the calibrator on `Split.CALIBRATION`, report on `Split.TEST`, score concepts from both.

    Samples that only describe their concept are left out: they are a rung of their own. Where there are enough
    natural sentences, readings in a text are calibrated on them instead. A run without held-out families can't
    measure this: confidences are NaN and calibration is empty.
    """
    count, known = len(interpreter.concepts), training_distribution(samples)
    fitting, test = (
        collect_readings(interpreter, samples, samples.named_rows(split), known)
        for split in (Split.CALIBRATION, Split.TEST)
    )
    if len(fitting) == 0 or len(test) == 0:
        unknown = np.full(count, np.nan, np.float32)
        return Scores(unknown, unknown.copy(), unknown.copy(), {})
    calibrator = fit(fitting, known)
    judged = report(calibrator.confidences(test.top, test.distance)[:, 0], test.right, calibrator.temperature)
    truth = np.concatenate([fitting.truth, test.truth])
    right = np.concatenate([fitting.right, test.right])
    hits = np.bincount(truth, right, minlength=count).astype(np.int64)
    total = np.bincount(truth, minlength=count)
    mean, low, high = calibration.accuracy_intervals(calibration.fit_accuracies(hits, total), hits, total)
    chosen: Calibrator | None = calibrator if len(fitting) >= FEWEST else None
    natural = context.natural
    if natural is not None and len(natural) >= ENOUGH_SENTENCES:
        sentences = collect_readings(interpreter, natural, np.arange(len(natural)), known)
        chosen = fit(sentences, known, "natural")
    return Scores(mean, low, high, judged.as_json(), chosen)
