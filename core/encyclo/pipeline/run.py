"""A run, straight down: claim the directory, collect samples stage by stage, train, judge, write.

run ── refinement.refine ── collect_stage ── sampling.Collector      prompts → activations → parts
    │                    └─ judging.judge                            samples → interpreter → figures
    └─ finish                                                        encyclopedia, interpreter, metrics, report
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from encyclo.evaluation.rungs import NaturalSentences
from encyclo.pipeline.collect import Collector
from encyclo.pipeline.judge import Judgement, save_interpreter, train_and_score
from encyclo.pipeline.rounds import Plan
from encyclo.runs import directory as rundir
from encyclo.runs.session import Session, Stage
from encyclo.schema import Attributes, Book, ConceptTable, SignatureTable
from encyclo.statistics import convergence
from encyclo.storage import files
from encyclo.storage.finalise import finalise
from encyclo.storage.ledger import Commit, plan_units
from encyclo.types import Split, Store
from encyclo.version import __version__

LATER_RUNGS = ("described", "unseen", "adversarial")
"""Rungs of the ladder that a run does not measure by itself: null in metrics.json until `encyclo evaluate`."""


@dataclass(frozen=True)
class Outcome:
    """What a finished run left: its directory, run.json and metrics.json."""

    out: Path
    record: dict[str, Any]
    metrics: dict[str, Any]
    was_finished: bool
    """The run had been finished before; nothing was computed."""
    remarks: tuple[str, ...] = ()
    """What the wrappers that were opted in have to say about the run."""


def run(session: Session, out: Path) -> Outcome:
    """Write the encyclopedia into `out`, or go on where an earlier process stopped."""
    from encyclo.pipeline.refine import refine

    rundir.check_usable(out)
    with rundir.claimed(out, session.resolved(), session.provenance()) as directory:
        metrics_file = out / "metrics.json"
        if metrics_file.exists():
            metrics = json.loads(metrics_file.read_text(encoding="utf-8"))
            return Outcome(out, directory.record, metrics, was_finished=True)
        metrics = refine(session, directory)
        remarks = _remarks(session, out, metrics)
        return Outcome(out, directory.record, metrics, was_finished=False, remarks=remarks)


def _remarks(session: Session, out: Path, metrics: dict[str, Any]) -> tuple[str, ...]:
    """Let the wrappers that were opted in end the run; return what they say."""
    plugins = session.plugins
    speakers = [name for name in plugins.wrappers if plugins.implements(name, "end_run")]
    return tuple(
        plugins.call("end_run", name, metrics=metrics, context=session.context(name, out))
        for name in speakers
    )


def open_store(session: Session, out: Path) -> Store:
    """Return the run's store."""
    store: Store = session.plugins.call(
        "store_activations", session.config.store, location=out, schema=session.schema
    )
    return store


def collect_stage(
    session: Session,
    directory: rundir.RunDirectory,
    store: Store,
    stage: Stage,
    plan: Plan,
    earlier: Sequence[Commit],
    judged: Callable[[], Judgement] | None,
) -> list[Commit]:
    """Sample and capture what `plan` says; return the round's commits in unit order.

    The capture checks itself on the first prompts; run.json says that it passed. `earlier` are the commits of
    the rounds before; `judged` gives what they found (None in a run's first round) and is asked only where
    something is left to sample.
    """
    collector = Collector(session, directory.path, store, directory.ledger)
    units = plan_units(session.concepts, plan, recipe(session, stage, earlier))
    done = collector.ledger.commits()
    todo = [unit for unit in units if unit.id not in done]
    committed = f", {len(units) - len(todo)} of {len(units)} units already committed"
    session.progress.stage(
        f"Stage {stage.number} ({stage.sampler}): {len(plan.concepts):,} concepts"
        + (committed if len(todo) < len(units) else "")
    )
    if todo:
        known = judged().known() if judged else {}
        with session.progress.track("Capturing", sum(sum(u.wanted) for u in todo), "prompts") as advance:
            for unit in todo:
                prompts = collector.sample(unit, stage, earlier, known)
                if unit is todo[0] and prompts:
                    directory.note("self_test", collector.self_test(prompts))
                done[unit.id] = collector.collect(unit, stage, prompts, advance)
    return [done[unit.id] for unit in units]


def finish(
    session: Session,
    directory: rundir.RunDirectory,
    store: Store,
    commits: Sequence[Commit],
    judged: Judgement,
    stages: list[dict[str, Any]],
    settled: np.ndarray[Any, np.dtype[np.bool_]],
    natural: NaturalSentences,
) -> dict[str, Any]:
    """Write encyclopedia, interpreter, report and, last, metrics.json: a run that has it is finished."""
    from encyclo.evaluation import evaluate as climb
    from encyclo.report import report_run

    out, samples, config = directory.path, judged.samples, session.config
    heldout, read = {config.interpreter: judged.accuracy}, {config.interpreter: judged.natural}
    calibration = {config.interpreter: dict(judged.scores.calibration)}
    sentences = natural.material(commits)
    for name in config.baselines:
        if name not in heldout:
            trained = train_and_score(session, out, name, samples, judged.signatures, sentences)
            heldout[name], read[name] = trained.heldout, trained.natural
            calibration[name] = dict(trained.scores.calibration)
    book = _book(session, directory, judged, settled, commits)
    session.progress.stage("Writing the encyclopedia")
    with session.plugins.blame(config.store):
        finalise(store, out, [commit for commit in commits if commit.rows], book)
    save_interpreter(session, judged.interpreter, out / "interpreter")
    climb.calibrate_reading(out, samples, judged.interpreter, sentences)
    metrics = {
        "capture": capture_metrics(session, commits),
        "accuracy": {
            "heldout_prompts": heldout,
            "natural": read if sentences else None,
            **dict.fromkeys(LATER_RUNGS),
            "adversarial": _withstood(stages, config.interpreter),
        },
        "calibration": _beside_baselines(calibration, config.interpreter),
        "convergence": stages[-1]["convergence"],
        "stages": stages,
        "splits": {
            split.name.lower(): sorted({samples.families[f] for f in samples.family[samples.rows(split)]})
            for split in Split
        },
    }
    session.progress.stage("Writing the report")
    report_run(out, metrics, judged.interpreter)
    files.write_json(out / "metrics.json", metrics)
    return metrics


def _withstood(stages: Sequence[dict[str, Any]], name: str) -> dict[str, Any] | None:
    """Return the `adversarial` rung: the last fresh attacks on the interpreter; None without such a stage."""
    last = [row["attacks"]["after"] for row in stages if row.get("attacks")]
    return {name: last[-1]} if last and last[-1] else None


def capture_metrics(session: Session, commits: Sequence[Commit]) -> dict[str, Any]:
    """Return metrics.json's `capture`; seconds are those spent in `capture_layers`."""
    prompts, seconds = sum(c.rows for c in commits), sum(c.seconds for c in commits)
    memory = psutil.Process().memory_info()
    peak = getattr(memory, "peak_wset", None) or _peak_rss()
    return {
        "prompts": prompts,
        "tokens": sum(c.tokens for c in commits),
        "tokens_computed": sum(c.tokens_computed for c in commits),
        "seconds": seconds,
        "prompts_per_second": prompts / seconds if seconds else None,
        "peak_rss_mb": peak / 2**20,
        "device": session.model.device,
        "dtype": session.model.dtype,
    }


def _peak_rss() -> int:
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _beside_baselines(calibration: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Return the interpreter's calibration with each baseline's under the baseline's name."""
    if not calibration[name]:
        return None
    return {**calibration[name], **{other: calibration[other] for other in calibration if other != name}}


def recipe(session: Session, stage: Stage, earlier: Sequence[Commit]) -> dict[str, Any]:
    """Return what determines a unit's content, besides its concepts.

    What a sampler that looks at the interpreter yields depends on all samples before: their checksums say which.
    """
    plugins, config = session.plugins, session.config
    options = {name: session.options[name] for name in (stage.sampler, config.capture)}
    return {
        "weights": session.model.weights_sha256,
        "dtype": session.model.dtype,
        "layers": session.schema.layer_index,
        "pooling": config.pooling,
        "seed": config.seed,
        "after": [c.checksum for c in earlier] if plugins.needs_interpreter(stage.sampler) else None,
        "sampler": [stage.sampler, plugins.load(stage.sampler).version, plugins.fingerprint(stage.sampler)],
        "options": {n: o.model_dump(mode="json") for n, o in options.items() if o},
    }


def _book(
    session: Session,
    directory: rundir.RunDirectory,
    judged: Judgement,
    settled: np.ndarray[Any, np.dtype[np.bool_]],
    commits: Sequence[Commit],
) -> Book:
    concepts, record, samples = session.concepts, directory.record, judged.samples
    count = len(concepts)
    reached = np.zeros(count, np.int32)
    place = {commit.stage for commit in commits}
    stage_of_row = np.concatenate([np.full(c.rows, c.stage, np.int32) for c in commits])
    for stage in sorted(place):
        reached[samples.concept[stage_of_row == stage]] = stage
    attributes = Attributes(
        model=session.model.name,
        weights_sha256=session.model.weights_sha256,
        layers=session.schema.layers,
        layer_index=session.schema.layer_index,
        pooling=session.config.pooling,
        hidden_size=session.schema.hidden_size,
        stage=max(place),
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
        n_samples=np.bincount(samples.concept, minlength=count).astype(np.int32),
        confidence=judged.scores.confidence,
        confidence_low=judged.scores.low,
        confidence_high=judged.scores.high,
        converged=judged.converged,
        settled=settled,
    )
    signatures = judged.signatures
    return Book(attributes, table, SignatureTable(signatures.mean, signatures.variance, signatures.count))


def stage_row(
    session: Session,
    stage: Stage,
    concepts: int,
    commits: Sequence[Commit],
    settled: int,
    judged: Judgement,
    begun: float,
) -> dict[str, Any]:
    """Return one row of metrics.json's `stages`, of all samples so far; seconds are this process's, all steps."""
    halves = convergence.half_splits(judged.samples, judged.signatures, judged.contexts, session.config.seed)
    confidence = judged.scores.confidence
    measured = confidence[~np.isnan(confidence)]
    return {
        "stage": stage.number,
        "sampler": stage.sampler,
        "concepts": concepts,
        "samples": sum(c.rows for c in commits),
        "settled": settled,
        "heldout_top1": judged.accuracy["top1"] if judged.accuracy else None,
        "heldout_n": judged.accuracy["n"] if judged.accuracy else 0,
        "natural_top1": judged.natural["top1"] if judged.natural else None,
        "natural_n": judged.natural["n"] if judged.natural else 0,
        "confidence": float(measured.mean()) if len(measured) else None,
        "ece": judged.scores.calibration.get("ece"),
        "converged": int(judged.converged.sum()),
        "convergence": convergence.convergence_table(halves, session.schema.layers),
        "seconds": time.perf_counter() - begun,
    }
