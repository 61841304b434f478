"""`encyclo evaluate`: climb the evaluation ladder of a finished run and write what was measured into it.

evaluate ── reopen                  configuration, concepts and model are the run's, or it refuses
         ├─ heldout, natural        the run's own interpreter, and its baselines trained again
         ├─ trial.run_trial         described and unseen
         └─ write                   calibration.json, metrics.json, report.html: each replaced atomically
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from encyclo.evaluation import rungs as ladder
from encyclo.evaluation.rungs import AT_MOST, Material, NaturalSentences
from encyclo.evaluation.unseen_concepts import prepare_trial, run_trial
from encyclo.pipeline import judge as judging
from encyclo.pipeline import run as pipeline
from encyclo.query.encyclopedia import open_run
from encyclo.runs import directory as rundir
from encyclo.runs.reopen import reopen, require_finished
from encyclo.runs.session import Session
from encyclo.statistics import confidence
from encyclo.statistics.confidence import Readings, Surroundings
from encyclo.storage import files
from encyclo.storage.ledger import Commit, Ledger, locked
from encyclo.types import Interpreter, Progress, SampleSet, Split, Store

CALIBRATION = "calibration.json"
ENOUGH_SENTENCES = 200
"""From so many natural sentences on, `encyclo read` is calibrated on them: they are what it reads."""


def evaluate(path: Path, progress: Progress, device: str = "auto", at_most: int = AT_MOST) -> dict[str, Any]:
    """Measure every rung on the finished run in `path`, write the results there, return metrics.json's content.

    `at_most` limits the sentences and the definitions that are captured. The same run gives the same figures.
    Raises UsageError (or a kind of it) if the run is not finished or can't be gone on with.
    """
    record = rundir.read_record(path)
    require_finished(path)
    session = reopen(path, record, progress, device)
    with locked(path):
        store = pipeline.open_store(session, path)
        commits = sorted(Ledger(path).commits().values(), key=lambda commit: (commit.stage, commit.unit))
        samples = judging.load_samples(session, path, store, commits)
        with open_run(path) as book:
            own = book.interpreter()
        accuracy, unfamiliar = climb(session, path, store, commits, samples, own, at_most)
        metrics: dict[str, Any] = json.loads((path / "metrics.json").read_text(encoding="utf-8"))
        metrics["accuracy"] = {**metrics["accuracy"], **accuracy}
        metrics["unfamiliar"] = unfamiliar
        _write(path, metrics)
        return metrics


def climb(
    session: Session,
    path: Path,
    store: Store,
    commits: Sequence[Commit],
    samples: SampleSet,
    own: Interpreter,
    at_most: int,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return ({rung: {interpreter: figures}}, {interpreter: the unfamiliar}); writes calibration.json."""
    config, near = session.config, confidence.survey(samples)
    natural = NaturalSentences(session, path, store, at_most).material(commits)
    if natural:
        ladder.check_apart(samples, natural, "natural")
    found: dict[str, Any] = {"heldout_prompts": {}, "natural": {} if natural else None}
    for name in dict.fromkeys((config.interpreter, *config.baselines)):
        interpreter = own
        if name != config.interpreter:
            session.progress.stage(f"Training the {name} interpreter again")
            interpreter = judging.train(session, path, name, samples)
        session.progress.stage(f"Reading with the {name} interpreter")
        found["heldout_prompts"][name], held = read_heldout(session, interpreter, samples, near)
        sentences = None
        if natural:
            found["natural"][name], sentences = read_natural(session, interpreter, natural, near)
        if name == config.interpreter:
            keep_calibrator(path, near, held, sentences)
    trial = prepare_trial(session, samples, _definitions(session, path, store, at_most))
    if trial is None:
        return found | {"described": None, "unseen": None}, None
    rungs, unfamiliar = run_trial(session, trial)
    return found | rungs, unfamiliar


def read_heldout(
    session: Session, interpreter: Interpreter, samples: SampleSet, near: Surroundings
) -> tuple[dict[str, Any] | None, Readings]:
    """Read the families that training did not see: accuracy on those that test, calibration over families.

    Returns the rung's object, and the readings of all of them, which calibrate `encyclo read`.
    """
    rows = samples.named_rows(Split.TEST)
    found, _ = ladder.measure(
        interpreter, Material(samples, rows), session.concepts, near, session.config.seed
    )
    both = samples.named_rows(Split.CALIBRATION, Split.TEST)
    readings = confidence.collect_readings(interpreter, samples, both, near)
    if found is not None:
        found["calibration"] = confidence.cross_fit(
            readings, samples.family[both], folds=len(samples.families), seed=session.config.seed
        )
    return found, readings


def read_natural(
    session: Session, interpreter: Interpreter, natural: Material, near: Surroundings
) -> tuple[dict[str, Any] | None, Readings]:
    """Read the natural sentences; calibration is judged on concepts that it was not fitted on."""
    seed = session.config.seed
    found, readings = ladder.measure(interpreter, natural, session.concepts, near, seed)
    if found is not None:
        found["calibration"] = confidence.cross_fit(readings, readings.truth, seed=seed)
    return found, readings


def keep_calibrator(path: Path, near: Surroundings, held: Readings, sentences: Readings | None) -> None:
    """Write calibration.json for `encyclo read`, from natural sentences where there are enough.

    Where nothing could be held out there is nothing to write: `encyclo read` then says not measured.
    """
    chosen, source = held, "heldout_prompts"
    if sentences is not None and len(sentences) >= ENOUGH_SENTENCES:
        chosen, source = sentences, "natural"
    if len(chosen) >= confidence.FEWEST:
        confidence.save(path / CALIBRATION, confidence.fit(chosen), near, source)


def calibrate_reading(
    path: Path, samples: SampleSet, interpreter: Interpreter, natural: Material | None
) -> None:
    """Write calibration.json at the end of a run."""
    near = confidence.survey(samples)
    rows = samples.named_rows(Split.CALIBRATION, Split.TEST)
    held = confidence.collect_readings(interpreter, samples, rows, near)
    sentences = None
    if natural:
        sentences = confidence.collect_readings(interpreter, natural.samples, natural.rows, near)
    keep_calibrator(path, near, held, sentences)


def _definitions(session: Session, path: Path, store: Store, at_most: int) -> Material | None:
    prompts, left_out = ladder.described_prompts(session.concepts, session.config.seed, at_most)
    if not prompts:
        return None
    samples = ladder.capture(session, path, store, prompts, "definitions")
    return Material(samples, np.arange(len(samples)), left_out)


def _write(path: Path, metrics: dict[str, Any]) -> None:
    """Replace the page, then metrics.json: a crash between them leaves the old figures, to be measured again."""
    from encyclo.report import report_run

    report_run(path, metrics)
    files.write_json(path / "metrics.json", metrics)
