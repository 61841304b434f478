"""A run, straight down: claim the directory, collect samples stage by stage, train, judge, write.

run ── refinement.refine ── collect_stage ── sampling.Collector      prompts → activations → parts
    │                    └─ judge                                    samples → interpreter → figures
    └─ finish                                                        encyclopedia, interpreter, metrics, report
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from encyclo import __version__, codec, convergence, evaluation, files, rundir
from encyclo.ladder import NaturalSentences
from encyclo.ledger import Commit, plan_units, read_committed
from encyclo.sampling import Collector
from encyclo.schema import Attributes, Book, ConceptTable, Part, SignatureTable
from encyclo.session import Session, Stage
from encyclo.splits import split_families
from encyclo.types import Interpreter, SampleSet, Scores, Signatures, Split, Store

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


@dataclass(frozen=True)
class Judgement:
    """What one stage's training found out, from which samples."""

    samples: SampleSet
    interpreter: Interpreter
    signatures: Signatures
    scores: Scores
    accuracy: dict[str, dict[str, Any] | None]
    natural: dict[str, dict[str, Any] | None] | None
    """On sentences by other authors; None where the concepts have none."""
    calibration: dict[str, Any]
    converged: np.ndarray[Any, np.dtype[np.bool_]]


def run(session: Session, out: Path) -> Outcome:
    """Write the encyclopedia into `out`, or go on where an earlier process stopped."""
    from encyclo.refinement import refine

    rundir.check_usable(out)
    with rundir.claimed(out, session.resolved(), session.provenance()) as directory:
        metrics_file = out / "metrics.json"
        if metrics_file.exists():
            metrics = json.loads(metrics_file.read_text(encoding="utf-8"))
            return Outcome(out, directory.record, metrics, was_finished=True)
        metrics = refine(session, directory)
        return Outcome(out, directory.record, metrics, was_finished=False)


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
    chosen: Sequence[int],
    **known: Any,
) -> list[Commit]:
    """Sample and capture the `chosen` concepts (indices); return the stage's commits in unit order.

    The capture checks itself on the first prompts; run.json says that it passed. `known` is what the stages
    before have found: interpreter, scores.
    """
    out = directory.path
    collector = Collector(session, out, store, directory.ledger)
    wanted = session.config.per_concept if stage.number else 1
    units = plan_units(session.concepts, chosen, stage.number, wanted, _recipe(session, stage))
    done = collector.ledger.commits()
    todo = [unit for unit in units if unit.id not in done]
    committed = f", {len(units) - len(todo)} of {len(units)} units already committed"
    session.progress.stage(
        f"Stage {stage.number} ({stage.sampler}): {len(chosen):,} concepts"
        + (committed if len(todo) < len(units) else "")
    )
    context = session.context(stage.sampler, out, **known)
    total = wanted * sum(len(unit.concepts) for unit in todo)
    with session.progress.track("Capturing", total, "prompts") as advance:
        for unit in todo:
            prompts = collector.sample(unit, stage, context)
            if unit is todo[0]:
                directory.note("self_test", collector.self_test(prompts))
            done[unit.id] = collector.collect(unit, stage, prompts, advance)
    return [done[unit.id] for unit in units]


def judge(
    session: Session, out: Path, store: Store, commits: Sequence[Commit], natural: NaturalSentences
) -> Judgement:
    """Train the interpreter and the baselines, measure both on what training never saw, score every concept."""
    samples = load_samples(session, store, commits)
    config, plugins = session.config, session.plugins
    signatures = convergence.estimate_signatures(samples, len(session.concepts))
    accuracy: dict[str, dict[str, Any] | None] = {}
    calibration: dict[str, Any] = {}
    kept: dict[str, tuple[Interpreter, Scores]] = {}
    sentences, read = natural.material(commits), {}
    for name in dict.fromkeys((*config.baselines, config.interpreter)):
        session.progress.stage(
            f"Training the {name} interpreter on {len(samples.rows(Split.TRAIN)):,} samples"
        )
        interpreter = train(session, out, name, samples)
        ranks = evaluation.rank_samples(interpreter, samples, samples.rows(Split.TEST))
        accuracy[name] = evaluation.accuracy(ranks, len(session.concepts))
        if sentences:
            ranks = evaluation.rank_samples(interpreter, sentences.samples, sentences.rows)
            read[name] = evaluation.accuracy(ranks, len(session.concepts))
        context = session.context(config.scorer, out, interpreter=interpreter, signatures=signatures)
        scores = plugins.call(
            "score_confidence", config.scorer, interpreter=interpreter, samples=samples, context=context
        )
        calibration[name] = dict(scores.calibration)
        kept[name] = interpreter, scores
    interpreter, scores = kept[config.interpreter]
    error = convergence.relative_standard_error(signatures)
    converged = error <= config.converged_below
    return Judgement(samples, interpreter, signatures, scores, accuracy, read or None, calibration, converged)


def train(session: Session, out: Path, name: str, samples: SampleSet) -> Interpreter:
    """Train the interpreter plugin `name`; check that it knows the run's concepts."""
    interpreter: Interpreter = session.plugins.call(
        "train_interpreter",
        name,
        samples=samples,
        concepts=session.concepts,
        context=session.context(name, out),
    )
    if not isinstance(interpreter, Interpreter):
        raise session.plugins.fault(name, f"returned a {type(interpreter).__name__}, which is no interpreter")
    if list(interpreter.concepts) != [concept.id for concept in session.concepts]:
        raise session.plugins.fault(name, "returned an interpreter that doesn't know the run's concepts")
    return interpreter


def load_samples(session: Session, store: Store, commits: Sequence[Commit]) -> SampleSet:
    """Read the committed parts (checked against their commits) and split them by family."""
    with session.plugins.blame(session.config.store):
        part = Part.join([read_committed(store, commit) for commit in commits])
    stages: dict[int, set[str]] = {}
    for stage, family in zip(part.stage.tolist(), part.family, strict=True):
        stages.setdefault(stage, set()).add(family)
    assigned = split_families({s: sorted(names) for s, names in stages.items()}, session.config.seed)
    families = sorted(set(part.family))
    place = {family: index for index, family in enumerate(families)}
    return SampleSet(
        concept=part.concept,
        named=part.span[:, 0] >= 0,
        family=np.array([place[f] for f in part.family], np.int32),
        families=tuple(families),
        split=np.array(
            [assigned[s, f] for s, f in zip(part.stage.tolist(), part.family, strict=True)], np.int8
        ),
        layers=session.schema.layers,
        fetch=lambda rows: _decode(part, rows),
    )


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
    from encyclo import climb
    from encyclo.report import write_report

    out, samples = directory.path, judged.samples
    halves = convergence.half_splits(samples, judged.signatures, session.config.seed)
    book = _book(session, directory, judged, settled, commits)
    session.progress.stage("Writing the encyclopedia")
    with session.plugins.blame(session.config.store):
        store.finalise([commit.part for commit in commits], book)
    _save_interpreter(session, judged.interpreter, out / "interpreter")
    climb.calibrate_reading(out, samples, judged.interpreter, natural.material(commits))
    metrics = {
        "capture": capture_metrics(session, commits),
        "accuracy": {"heldout_prompts": judged.accuracy, "natural": judged.natural}
        | dict.fromkeys(LATER_RUNGS),
        "calibration": _beside_baselines(judged.calibration, session.config.interpreter),
        "convergence": convergence.convergence_table(halves, session.schema.layers),
        "stages": stages,
        "splits": {
            split.name.lower(): sorted({samples.families[f] for f in samples.family[samples.rows(split)]})
            for split in Split
        },
    }
    write_report(out / "report.html", directory.record, metrics, book)
    files.write_json(out / "metrics.json", metrics)
    return metrics


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


def _recipe(session: Session, stage: Stage) -> dict[str, Any]:
    """Return what determines a unit's content, besides its concepts."""
    plugins, config = session.plugins, session.config
    options = {name: session.options[name] for name in (stage.sampler, config.capture)}
    return {
        "weights": session.model.weights_sha256,
        "dtype": session.model.dtype,
        "layers": session.schema.layer_index,
        "pooling": config.pooling,
        "per_concept": config.per_concept,
        "seed": config.seed,
        "sampler": [stage.sampler, plugins.load(stage.sampler).version],
        "options": {n: o.model_dump(mode="json") for n, o in options.items() if o},
    }


def _decode(part: Part, rows: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return codec.decode(part.activations[rows], part.scale[rows])


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


def _save_interpreter(session: Session, interpreter: Interpreter, folder: Path) -> None:
    """Write the interpreter's files and their sha256 beside them, then put the folder in place."""
    fresh = folder.with_name(".interpreter-new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    with session.plugins.blame(session.config.interpreter):
        interpreter.save(fresh)
    sums = {path.name: files.sha256_of(path) for path in sorted(fresh.iterdir())}
    files.write_json(fresh / "sha256.json", sums)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def stage_row(
    stage: Stage, concepts: int, commits: Sequence[Commit], settled: int, begun: float
) -> dict[str, Any]:
    """Return one row of metrics.json's `stages`; seconds are this process's, sampling to scoring."""
    return {
        "stage": stage.number,
        "sampler": stage.sampler,
        "concepts": concepts,
        "samples": sum(c.rows for c in commits),
        "settled": settled,
        "seconds": time.perf_counter() - begun,
    }
