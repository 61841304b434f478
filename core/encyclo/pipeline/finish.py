"""Finish a run: write interpreter, calibration, encyclopedia with its seal, report and, last, metrics.json."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encyclo.pipeline.judge import Judgement
from encyclo.pipeline.metrics import run_metrics
from encyclo.pipeline.reading_calibration import calibrate_reading
from encyclo.pipeline.refine import Refinement
from encyclo.pipeline.train import train_and_score
from encyclo.report import report_run
from encyclo.runs.metrics import Metrics, write_metrics
from encyclo.runs.open_run import OpenRun
from encyclo.schema import Attributes, Book, ConceptTable, SignatureTable
from encyclo.storage.finalise import finalise
from encyclo.storage.ledger import Commit
from encyclo.types import Interpreter
from encyclo.version import __version__


def finish(refined: Refinement) -> Metrics:
    """Write what a finished run holds and, last, metrics.json, which marks it as finished."""
    run = refined.run
    refined.natural.rung(refined.commits)  # the last prompts to be captured
    run.free_model()
    metrics, interpreter = write_encyclopedia(refined)
    refined.forget_samples()  # the report reads the encyclopedia
    run.session.progress.stage("Writing the report")
    report_run(run.path, metrics, interpreter)
    write_metrics(run.path, metrics)
    return metrics


def write_encyclopedia(refined: Refinement) -> tuple[Metrics, Interpreter]:
    """Write interpreter, calibration and encyclopedia; return the run's figures and its interpreter."""
    run, commits, judged = refined.run, refined.commits, refined.judged()
    session, config = run.session, run.session.config
    heldout, read = {config.interpreter: judged.accuracy}, {config.interpreter: judged.natural}
    calibration = {config.interpreter: judged.scores.calibration}
    sentences = refined.natural.rung(commits)
    measured = bool(judged.accuracy or sentences or judged.scores.calibration)
    for name in config.baselines:
        if not measured:  # nothing to compare the interpreter with, such as after stage 0 alone
            heldout[name] = None
        elif name not in heldout:
            trained = train_and_score(run, name, judged.samples, judged.signatures, sentences, baseline=True)
            heldout[name], read[name] = trained.heldout, trained.natural
            calibration[name] = trained.scores.calibration
    book = make_book(run, commits, judged, refined.settled)
    # Before the encyclopedia: its seal lists them, and need not be written again for each.
    run.save_interpreter(judged.interpreter, run.path / "interpreter")
    calibrate_reading(run, judged, sentences)
    session.progress.stage("Writing the encyclopedia")
    run.ledger.keep(commits)
    with session.plugins.blame(config.store):
        finalise(run.store, run.path, [commit for commit in commits if commit.rows], book)
    stages = [result.row for result in refined.results]
    natural = read if sentences else None
    count = refined.natural.count
    metrics = run_metrics(session, commits, judged, stages, heldout, natural, count, calibration)
    return metrics, judged.interpreter


def make_book(run: OpenRun, commits: Sequence[Commit], judged: Judgement, settled: NDArray[np.bool_]) -> Book:
    """Return the encyclopedia without its samples. settled: bool [C]."""
    session, record, samples = run.session, run.directory.record, judged.samples
    concepts, signatures = session.concepts, judged.signatures
    stage_of_row = np.concatenate([np.full(c.rows, c.stage, np.int32) for c in commits])
    stages = sorted({commit.stage for commit in commits})
    reached = np.zeros(len(concepts), np.int32)
    for stage in stages:
        reached[samples.concept[stage_of_row == stage]] = stage
    attributes = Attributes(
        model=session.model.name,
        weights_sha256=session.model.weights_sha256,
        layers=session.schema.layers,
        layer_index=session.schema.layer_index,
        pooling=session.config.pooling,
        hidden_size=session.schema.hidden_size,
        stage=stages[-1],
        run_id=record["run_id"],
        created=record["created"],
        encyclo_version=__version__,
        config=json.dumps(record["config"], sort_keys=True),
    )
    table = ConceptTable(
        id=[c.id for c in concepts],
        name=[c.name for c in concepts],
        definition=[c.definition for c in concepts],
        category=[c.category for c in concepts],
        stage=reached,
        n_samples=np.bincount(samples.concept, minlength=len(concepts)).astype(np.int32),
        confidence=judged.scores.confidence,
        confidence_low=judged.scores.low,
        confidence_high=judged.scores.high,
        converged=judged.converged,
        settled=settled,
    )
    return Book(attributes, table, SignatureTable(signatures.mean, signatures.variance, signatures.count))
