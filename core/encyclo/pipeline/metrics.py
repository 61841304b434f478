"""The figures of metrics.json that a run measures: one row per stage, the cost of capture, the final figures."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import psutil

from encyclo.pipeline.judge import Judgement
from encyclo.runs.metrics import CaptureFigures, LadderFigures, Metrics, RunCalibration, StageFigures
from encyclo.runs.session import Session, Stage
from encyclo.statistics import convergence
from encyclo.statistics.figures import Accuracy
from encyclo.storage.ledger import Commit
from encyclo.types import Split


def stage_figures(
    session: Session,
    stage: Stage,
    concepts: int,
    commits: Sequence[Commit],
    settled: int,
    judged: Judgement,
    begun: float,
) -> StageFigures:
    """Return one row of metrics.json's `stages`, over all samples so far; `begun` is from perf_counter."""
    halves = convergence.half_splits(judged.samples, judged.signatures, judged.contexts, session.config.seed)
    confidence = judged.scores.confidence
    measured = confidence[~np.isnan(confidence)]
    return StageFigures(
        stage=stage.number,
        sampler=stage.sampler,
        concepts=concepts,
        samples=sum(c.rows for c in commits),
        settled=settled,
        heldout_top1=judged.accuracy.top1 if judged.accuracy else None,
        heldout_n=judged.accuracy.n if judged.accuracy else 0,
        natural_top1=judged.natural.top1 if judged.natural else None,
        natural_n=judged.natural.n if judged.natural else 0,
        confidence=float(measured.mean()) if len(measured) else None,
        ece=judged.scores.calibration.get("ece"),
        converged=int(judged.converged.sum()),
        convergence=convergence.convergence_table(halves, session.schema.layers),
        seconds=time.perf_counter() - begun,
    )


def capture_figures(session: Session, commits: Sequence[Commit]) -> CaptureFigures:
    """Return metrics.json's `capture`; seconds are those spent in `capture_layers`."""
    prompts, seconds = sum(c.rows for c in commits), sum(c.seconds for c in commits)
    memory = psutil.Process().memory_info()
    peak = getattr(memory, "peak_wset", None) or _peak_rss()
    return CaptureFigures(
        prompts=prompts,
        tokens=sum(c.tokens for c in commits),
        tokens_computed=sum(c.tokens_computed for c in commits),
        seconds=seconds,
        prompts_per_second=prompts / seconds if seconds else None,
        peak_rss_mb=peak / 2**20,
        device=session.model.device,
        dtype=session.model.dtype,
    )


def run_metrics(
    session: Session,
    commits: Sequence[Commit],
    judged: Judgement,
    stages: Sequence[StageFigures],
    heldout: dict[str, Accuracy | None],
    natural: dict[str, Accuracy | None] | None,
    sentences: int,
    calibration: Mapping[str, Mapping[str, Any]],
) -> Metrics:
    """Return all of metrics.json. Rungs that a run does not measure are null until `encyclo evaluate`.

    `heldout`, `natural` and `calibration` are keyed by interpreter: the run's own and its baselines. `sentences` is
    the number of natural sentences, of which all may be prompts of the run too.
    """
    samples, name = judged.samples, session.config.interpreter
    return Metrics(
        capture=capture_figures(session, commits),
        accuracy=LadderFigures(
            heldout_prompts=heldout,
            natural=natural,
            described=None,
            unseen=None,
            adversarial=_withstood(stages, name),
        ),
        calibration=_with_baselines(calibration, name),
        convergence=stages[-1].convergence,
        stages=list(stages),
        splits={
            split.name.lower(): sorted(
                {samples.families[f] for f in np.unique(samples.family[samples.rows(split)])}
            )
            for split in Split
        },
        natural_sentences=sentences,
    )


def _peak_rss() -> int:
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _withstood(stages: Sequence[StageFigures], name: str) -> dict[str, Accuracy | None] | None:
    """Return the `adversarial` rung: the last fresh attacks on the interpreter; None without such a stage."""
    last = [row.attacks.after for row in stages if row.attacks]
    return {name: last[-1]} if last and last[-1] else None


def _with_baselines(calibration: Mapping[str, Mapping[str, Any]], name: str) -> RunCalibration | None:
    """Return the interpreter's calibration with each baseline's under the baseline's name."""
    if not calibration[name]:
        return None
    others = {other: dict(found) for other, found in calibration.items() if other != name}
    return RunCalibration.model_validate({**calibration[name], **others})
