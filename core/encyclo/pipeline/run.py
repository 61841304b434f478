"""`encyclo run`: claim the directory, run the stages, write the results.

run ── refine ── Dispatcher       prompts → activations → parts
    │         └─ judge            samples → interpreter → figures
    └─ finish                     encyclopedia, interpreter, metrics, report
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encyclo.pipeline.collect import require_prompts
from encyclo.pipeline.finish import finish
from encyclo.pipeline.refine import Refinement
from encyclo.runs import judging_times
from encyclo.runs.directory import check_usable, claimed
from encyclo.runs.metrics import FILE, Metrics, read_metrics
from encyclo.runs.open_run import OpenRun
from encyclo.runs.reopen import check_model
from encyclo.runs.session import Session
from encyclo.storage.checksums import SEAL
from encyclo.storage.run_files import RECORD


@dataclass(frozen=True)
class Outcome:
    """A finished run: its directory, run.json and metrics.json."""

    out: Path
    record: dict[str, Any]
    metrics: Metrics
    was_finished: bool
    """True if an earlier command had finished the run; nothing was computed."""
    remarks: tuple[str, ...] = ()
    """The remarks of the wrappers given by --with."""


def run(session: Session, out: Path) -> Outcome:
    """Write the encyclopedia into `out`; resume if an earlier process stopped."""
    check_usable(out)
    if not (out / RECORD).exists():
        require_prompts(session)
    with claimed(out, session.resolved(), session.provenance(), session.default_options()) as directory:
        check_model(out, directory.record, session.model)
        if (out / FILE).exists() and (out / SEAL).exists():
            return Outcome(out, directory.record, read_metrics(out), was_finished=True)
        opened = OpenRun.of(session, directory)
        refined = Refinement(opened)
        refined.refine()
        metrics = _timed_finish(refined)
        return Outcome(out, directory.record, metrics, False, _remarks(opened, metrics))


def _timed_finish(refined: Refinement) -> Metrics:
    """Finish the run; remember how long everything after capture took, for `encyclo plan`."""
    begun = time.perf_counter()
    metrics = finish(refined)
    if refined.judging is not None:
        seconds = refined.judging + time.perf_counter() - begun
        samples = sum(commit.rows for commit in refined.commits)
        judging_times.remember(refined.run.session, samples, seconds)
    return metrics


def _remarks(run: OpenRun, metrics: Metrics) -> tuple[str, ...]:
    """Call `end_run` of the wrappers given by --with; return their remarks."""
    plugins = run.session.plugins
    names = [name for name in plugins.wrappers if plugins.implements(name, "end_run")]
    return tuple(
        plugins.call("end_run", name, metrics=metrics.as_json(), context=run.context(name)) for name in names
    )
