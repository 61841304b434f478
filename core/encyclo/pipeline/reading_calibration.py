"""The calibrator by which a run's readings are turned into confidences: the scorer's, else one that is fitted here."""

from __future__ import annotations

from encyclo.pipeline.judge import Judgement
from encyclo.pipeline.natural_sentences import RungSamples
from encyclo.pipeline.train import score
from encyclo.runs.calibration_file import FILE, save_calibrator
from encyclo.runs.open_run import OpenRun
from encyclo.statistics.confidence import (
    ENOUGH_SENTENCES,
    FEWEST,
    Calibrator,
    collect_readings,
    fit,
    training_distribution,
)
from encyclo.types import Interpreter, SampleSet, Scores, Split


def calibrate_reading(run: OpenRun, judged: Judgement, sentences: RungSamples | None) -> None:
    """Write calibration.json at the end of a run; nothing where nothing could be held out."""
    scores = judged.scores
    if scores.calibrator is None:  # an earlier process may have scored: its calibrator went with it
        scores = score(run, judged.interpreter, judged.samples, judged.signatures, sentences)
    keep_calibrator(run, scores, judged.interpreter, judged.samples, sentences)


def keep_calibrator(
    run: OpenRun, scores: Scores, interpreter: Interpreter, samples: SampleSet, sentences: RungSamples | None
) -> None:
    """Write the scorer's calibrator into calibration.json; of a scorer without one, the default.

    Where there is too little to fit one on, nothing is written: `encyclo read` then says not measured.
    """
    calibrator = scores.calibrator or default_calibrator(interpreter, samples, sentences)
    if calibrator is not None:
        save_calibrator(run.path / FILE, calibrator)


def default_calibrator(
    interpreter: Interpreter, samples: SampleSet, sentences: RungSamples | None
) -> Calibrator | None:
    """Fit on natural sentences where there are enough, else on all held-out prompts; None on too few readings."""
    distribution = training_distribution(samples)
    read, rows, rung = samples, samples.named_rows(Split.CALIBRATION, Split.TEST), "heldout_prompts"
    if sentences is not None and len(sentences.rows) >= ENOUGH_SENTENCES:
        read, rows, rung = sentences.samples, sentences.rows, "natural"
    if len(rows) < FEWEST:
        return None
    return fit(collect_readings(interpreter, read, rows, distribution), distribution, rung)
