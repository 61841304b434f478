"""What does a run's units: a worker in the run's own process, or in another one that opens the run by its folder.

RunWorkplace.worker ── Worker.do    UnitSampler.sample → self_test → collect_unit
                    └─ _reopened    elsewhere: configuration → session; run.json, rounds/ and commits/ → the rest
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from encyclo.config import RunConfig
from encyclo.executors import Report, UnitReceipt, UnitTask
from encyclo.pipeline.collect import UnitSampler, collect_unit, self_test
from encyclo.pipeline.judge import recall
from encyclo.pipeline.rounds import Plan, Rounds
from encyclo.pipeline.units import plan_units, recipe
from encyclo.runs import worker_locks
from encyclo.runs.directory import RunDirectory, check_same, read_record
from encyclo.runs.open_run import OpenRun
from encyclo.runs.reopen import known_lists
from encyclo.runs.session import Session, Stage, prepare
from encyclo.storage import files
from encyclo.storage.ledger import Commit, Unit
from encyclo.storage.run_location import join
from encyclo.storage.working_copy import address_of

SamplerOf = Callable[[int], UnitSampler]
"""Returns what asks the sampler of a round, by the round's number."""


class Worker:
    """Does units of an open run in this process (see `encyclo.executors.UnitWorker`)."""

    def __init__(self, run: OpenRun, sampler_of: SamplerOf, report: Report, lock: Any = None) -> None:
        self.run, self._sampler_of, self._report = run, sampler_of, report
        self._lock = lock
        """What this process holds as long as it may write into the run."""
        self._tested: int | None = None
        self._sampler: tuple[int, UnitSampler] | None = None

    def do(self, task: UnitTask) -> UnitReceipt:
        """Do a unit, unless another attempt has committed it."""
        unit, found = task.content, None
        assert isinstance(unit, Unit)
        if not self.run.ledger.has(unit.id):
            prompts = self._sampler_for(task.round).sample(unit)
            if prompts and self._tested != task.round:
                found = self_test(self.run, prompts)
                self._tested = task.round
            collect_unit(self.run, unit, prompts, self._report)
        return UnitReceipt(unit.id, worker_locks.place(), found)

    def _sampler_for(self, number: int) -> UnitSampler:
        if self._sampler is None or self._sampler[0] != number:
            self._sampler = number, self._sampler_of(number)
        return self._sampler[1]


@dataclass
class RunWorkplace:
    """A run that workers find by its folder (see `encyclo.executors.Workplace`).

    In the run's own process, `here` and `sampler_of` are what is open already.
    """

    config: RunConfig
    run: Path
    here: OpenRun | None = None
    sampler_of: SamplerOf | None = None
    token: str = ""
    url: str = ""
    """Where the run is, if `run` is a working copy of a run on an object store."""
    run_id: str = ""
    directory: str = ""
    """The working directory of the run's process: relative paths in the configuration begin there."""

    def __reduce__(self) -> tuple[Any, ...]:
        self.token = self.token or worker_locks.admit(self.run)
        url, run_id = address_of(self.run), read_record(self.run)["run_id"]
        return RunWorkplace, (self.config, self.run, None, None, self.token, url, run_id, os.getcwd())

    def worker(self, report: Report) -> Worker:
        """Return this process's worker. Raises RunDirectoryError if this machine doesn't see the same run."""
        if self.here is not None:
            assert self.sampler_of is not None
            return Worker(self.here, self.sampler_of, report)
        folder = join(self.run, self.url, worker_locks.admits(self.run, self.token))
        lock = worker_locks.enter(folder, self.token) if folder == self.run else None
        with contextlib.suppress(OSError):
            os.chdir(self.directory)
        if read_record(folder)["run_id"] != self.run_id:
            raise worker_locks.unseen(self.url or folder)
        run = _reopened(self.config, folder, report)
        return Worker(run, _Recalled(run), report, lock)


def _reopened(config: RunConfig, path: Path, report: Report) -> OpenRun:
    """Open the run that another process claimed. Raises RunDirectoryError if model or concepts differ here."""
    with known_lists():
        session = prepare(config, _Reported(report), path)
    check_same(path, session.resolved())
    directory = RunDirectory(path, read_record(path))
    directory.ledger.create()  # an object store has no empty folders
    return OpenRun.of(session, directory)


class _Reported:
    """Progress of a worker: lines go to the run's process; bars are shown there."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def stage(self, title: str) -> None:
        """Announce the step that begins."""
        self._report(title)

    @contextmanager
    def track(
        self, title: str, total: int, unit: str, rate: Callable[[], str] | None = None
    ) -> Iterator[Callable[[int], None]]:
        """Show nothing."""
        yield lambda _: None


class _Recalled:
    """Finds a round's sampler and what the rounds before give to it, in the run's folder."""

    def __init__(self, run: OpenRun) -> None:
        self._run = run
        self._rounds = Rounds(run.path, run.directory.record["run_id"])

    def __call__(self, number: int) -> UnitSampler:
        files.refresh(self._run.path)
        plan = self._plan(number)
        earlier = self._earlier(number)
        files.fetch_parts(self._run.path, [name for commit in earlier for name in commit.files])
        return UnitSampler(
            self._run, stage_of(self._run.session, plan), earlier, self._known(number - 1, earlier)
        )

    def _earlier(self, number: int) -> list[Commit]:
        """Return the commits of the rounds before, in the order in which they were planned."""
        session, ledger = self._run.session, self._run.ledger
        commits = ledger.commits()
        earlier: list[Commit] = []
        for index in range(number):
            plan = self._plan(index)
            units = plan_units(session.concepts, plan, recipe(session, stage_of(session, plan), earlier))
            for unit in units:
                if unit.id not in commits:
                    self._wait_for(partial(ledger.has, unit.id), f"record of the unit {unit.id}")
                    commits[unit.id] = ledger.read(unit.id)
                earlier.append(commits[unit.id])
        return earlier

    def _plan(self, number: int) -> Plan:
        self._wait_for(lambda: self._rounds.plan(number), f"plan of the round {number}")
        plan = self._rounds.plan(number)
        assert plan is not None
        return plan

    def _wait_for(self, look: Callable[[], object], what: str) -> None:
        worker_locks.wait_for(
            look, f"The worker on {worker_locks.place()} finds no {what} in {self._run.path}"
        )

    def _known(self, last: int, commits: list[Commit]) -> Mapping[str, Any]:
        """Return the interpreter, scores and signatures of the round `last`; nothing before the first round."""
        result = self._rounds.result(last) if last >= 0 else None
        if result is None:
            return {}
        return recall(self._run, commits, result, self._rounds.saved_interpreter(last)).known()


def stage_of(session: Session, plan: Plan) -> Stage:
    """Return the stage that a plan is for."""
    return next(s for s in session.stages if (s.number, s.key) == (plan.stage, plan.sampler))
