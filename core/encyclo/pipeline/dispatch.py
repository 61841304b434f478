"""Hand a round's units to the run's executor, and take their commits as they arrive.

Dispatcher.collect_stage ── plan_units           the plan → units; committed ones are skipped
                         └─ Executor.run         units → receipts, from workers (`workplace.py`)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from types import TracebackType
from typing import Any

from encyclo.errors import EncycloError
from encyclo.executors import UnitReceipt, UnitTask
from encyclo.pipeline.collect import UnitSampler
from encyclo.pipeline.rounds import Plan
from encyclo.pipeline.units import plan_units, recipe
from encyclo.pipeline.workplace import RunWorkplace
from encyclo.plugins.executor_handle import ExecutorHandle
from encyclo.runs import worker_locks
from encyclo.runs.open_run import OpenRun
from encyclo.runs.session import Stage
from encyclo.storage.ledger import Commit
from encyclo.storage.working_copy import THREADS


class Dispatcher:
    """Does the units of a run's rounds with its executor; a context manager, which ends the workers."""

    def __init__(self, run: OpenRun) -> None:
        self.run = run
        self._sampler: Callable[[], UnitSampler]
        self._executor: ExecutorHandle | None = None
        self._workplace = RunWorkplace(
            run.session.config, run.path.absolute(), run, lambda _: self._sampler()
        )

    def __enter__(self) -> Dispatcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._executor is None:
            return
        with (
            contextlib.suppress(EncycloError) if kind else contextlib.nullcontext()
        ):  # the first error counts
            self._executor.close()
        if self._workplace.token and kind is None:
            worker_locks.clear(self.run.path)
            self.run.ledger.sweep()  # parts of attempts that were too late, or of workers that died

    def collect_stage(
        self,
        number: int,
        stage: Stage,
        plan: Plan,
        earlier: Sequence[Commit],
        known: Callable[[], Mapping[str, Any]],
    ) -> list[Commit]:
        """Sample and capture what `plan` says; return the commits of the round `number` in unit order.

        The capture plugin checks itself on the first prompts; the result goes into run.json. `earlier` are the
        commits of the earlier rounds. `known` returns their interpreter, scores and signatures; it is called only
        if something is left to sample in this process.
        """
        session = self.run.session
        units = plan_units(session.concepts, plan, recipe(session, stage, earlier))
        done = self.run.ledger.commits()
        todo = [UnitTask(u.id, sum(u.wanted), number, u) for u in units if u.id not in done]
        committed = f", {len(units) - len(todo)} of {len(units)} units already committed"
        session.progress.stage(
            f"Stage {stage.number} ({stage.sampler}): {len(plan.concepts):,} concepts"
            + (committed if len(todo) < len(units) else "")
        )
        if todo:
            self._sampler = lambda: UnitSampler(self.run, stage, earlier, known())
            done |= {commit.unit: commit for commit in self._do(todo)}
        return [done[unit.id] for unit in units]

    def _do(self, tasks: Sequence[UnitTask]) -> Iterator[Commit]:
        progress = self.run.session.progress
        with progress.track("Sampling and capturing", sum(t.prompts for t in tasks), "prompts") as advance:

            def report(said: int | str) -> None:
                progress.stage(said) if isinstance(said, str) else advance(said)

            with closing(self._open().run(tasks, report)) as receipts, _Commits(self._commit) as commits:
                for receipt in receipts:
                    if receipt.self_test is not None:
                        self.run.directory.note("self_test", dict(receipt.self_test))
                    commits.expect(receipt)
                yield from commits.all()

    def _open(self) -> ExecutorHandle:
        if self._executor is None:
            name, plugins = self.run.session.config.executor, self.run.session.plugins
            self._executor = plugins.call(
                "run_units", name, workplace=self._workplace, context=self.run.context(name)
            )
        return self._executor

    def _commit(self, receipt: UnitReceipt) -> Commit:
        """Read the commit record that a receipt promises. Raises RunDirectoryError if it is not in this run.

        If another machine wrote it into an object store, it and its part are copied first.
        """
        worker_locks.wait_for(
            lambda: self.run.ledger.has(receipt.unit),
            f"The worker on {receipt.place} has committed the unit {receipt.unit}, but {self.run.path} has no record "
            "of it",
        )
        return self.run.ledger.read(receipt.unit)


class _Commits:
    """Reads the commits that receipts promise, several at a time: parts may have to be copied from an object store.

    A context manager, which at an error waits for those that are being read and leaves out the others.
    """

    def __init__(self, read: Callable[[UnitReceipt], Commit]) -> None:
        self._read = read
        self._pool = ThreadPoolExecutor(THREADS)
        self._waiting: list[Future[Commit]] = []
        self._read_already: list[Commit] = []

    def __enter__(self) -> _Commits:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def expect(self, receipt: UnitReceipt) -> None:
        """Begin to read a commit; raise the error of an earlier one."""
        self._waiting.append(self._pool.submit(self._read, receipt))
        while self._waiting and self._waiting[0].done():
            self._read_already.append(self._waiting.pop(0).result())

    def all(self) -> Iterator[Commit]:
        """Yield the commits in the order of their receipts; raise the first one's error."""
        yield from self._read_already
        for future in self._waiting:
            yield future.result()
