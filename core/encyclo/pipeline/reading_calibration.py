"""The calibrator that turns a run's readings into confidences: the scorer's, or one fitted here."""

from __future__ import annotations

from encyclo.entry_words import EntryWords
from encyclo.errors import StoreError
from encyclo.pipeline.judge import Judgement
from encyclo.pipeline.natural_sentences import RungSamples
from encyclo.pipeline.train import score
from encyclo.runs.calibration_file import ReadingModel, load_calibration, save_calibration
from encyclo.runs.open_run import OpenRun
from encyclo.statistics.confidence import (
    ENOUGH_SENTENCES,
    FEWEST,
    Calibrator,
    collect_readings,
    fit,
    training_distribution,
)
from encyclo.statistics.word_reader import WordReader
from encyclo.types import Interpreter, SampleSet, Scores, Split


def calibrate_reading(run: OpenRun, judged: Judgement, sentences: RungSamples | None) -> None:
    """Write calibration.json at the end of a run; write nothing if nothing could be held out."""
    scores = judged.scores
    if scores.calibrator is None:  # lost if an earlier process scored
        scores = score(run, judged.interpreter, judged.samples, judged.signatures, sentences)
    keep_calibrator(run, scores, judged.interpreter, judged.samples, sentences)


def keep_calibrator(
    run: OpenRun,
    scores: Scores,
    interpreter: Interpreter,
    samples: SampleSet,
    sentences: RungSamples | None,
) -> None:
    """Write the scorer's calibrator into calibration.json, or the default one if the scorer has none.

    What `encyclo learn` wrote there stays: it does not depend on the interpreter. Writes nothing if there are too few
    readings to fit a calibrator: `encyclo read` then says "not measured".
    """
    calibrator = scores.calibrator or default_calibrator(interpreter, samples, sentences)
    if calibrator is not None:
        words = EntryWords.of(run.session.concepts)
        save_calibration(run.path, ReadingModel(calibrator, words, _learned(run)))


def _learned(run: OpenRun) -> WordReader | None:
    """Return what `encyclo learn` wrote; None if the file is gone or another run's, for it is written anew here."""
    try:
        return load_calibration(run.path).word_reader
    except StoreError:
        return None


def default_calibrator(
    interpreter: Interpreter, samples: SampleSet, sentences: RungSamples | None
) -> Calibrator | None:
    """Fit on natural sentences if there are enough, else on all held-out prompts; None if too few."""
    distribution = training_distribution(samples)
    read, rows, rung = samples, samples.named_rows(Split.CALIBRATION, Split.TEST), "heldout_prompts"
    if sentences is not None and len(sentences.rows) >= ENOUGH_SENTENCES:
        read, rows, rung = sentences.samples, sentences.rows, "natural"
    if len(rows) < FEWEST:
        return None
    return fit(collect_readings(interpreter, read, rows, distribution), distribution, rung)
