"""The loop over stages: after each, only what is not settled yet goes on to the next."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from encyclo import pipeline
from encyclo.ladder import NaturalSentences
from encyclo.ledger import Commit
from encyclo.rundir import RunDirectory
from encyclo.session import Session

TARGETS = (0.40, 0.70, 0.85, 0.95)
"""A concept is settled in a stage when its confidence interval's lower end clears the stage's target
(and its signature has converged)."""


def refine(session: Session, directory: RunDirectory) -> dict[str, Any]:
    """Go through the session's stages and finish the run; return metrics.json's content."""
    out = directory.path
    store = pipeline.open_store(session, out)
    natural = NaturalSentences(session, out, store)
    chosen = list(range(len(session.concepts)))
    settled = np.zeros(len(session.concepts), bool)
    commits: list[Commit] = []
    rows: list[dict[str, Any]] = []
    judged: pipeline.Judgement | None = None
    for stage in session.stages:
        begun = time.perf_counter()
        known = {"interpreter": judged.interpreter, "scores": judged.scores} if judged else {}
        fresh = pipeline.collect_stage(session, directory, store, stage, chosen, **known)
        commits += fresh
        refined = len(chosen)
        judged = pipeline.judge(session, out, store, commits, natural)
        target = TARGETS[min(stage.number, len(TARGETS) - 1)]
        # A confidence that could not be measured (NaN) clears nothing.
        settled |= (judged.scores.low >= target) & judged.converged
        chosen = [int(i) for i in np.flatnonzero(~settled)]
        rows.append(pipeline.stage_row(stage, refined, fresh, int(settled.sum()), begun))
        if not chosen:
            session.progress.stage(f"After stage {stage.number} every concept is settled.")
            break
    assert judged is not None  # a session has at least one stage
    return pipeline.finish(session, directory, store, commits, judged, rows, settled, natural)
