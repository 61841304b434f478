"""The contract of the hook `run_units`.

    from encyclo.testing.executors import ExecutorContract

    class TestMine(ExecutorContract):
        plugin = "mine"

The units are small files, and some of them make their worker fail or die (`fixtures.folder_workplace`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import psutil

from encyclo.errors import CaptureError, EncycloError
from encyclo.executors import Executor, Report, UnitReceipt, UnitTask
from encyclo.testing.contract import require
from encyclo.testing.fixtures.folder_workplace import (
    DIES,
    DIES_ONCE,
    FAILS,
    SENTENCE,
    TAKES_LONG,
    FolderWorkplace,
    tasks,
)
from encyclo.testing.hooked import HookContract

SECONDS_TO_END = 20.0


def _silent(said: int | str) -> None:
    """Report nothing."""


class ExecutorContract(HookContract):
    """The contract of executors; subclass it and name the plugin."""

    hooks: ClassVar[tuple[str, ...]] = ("run_units",)
    in_process: ClassVar[bool] = False
    """The plugin works in the run's own process, so there is no worker that could die alone."""

    @contextmanager
    def executor(self, workplace: FolderWorkplace) -> Iterator[Executor]:
        """Give the plugin's executor; close it at the end."""
        found: Executor = self.call(
            "run_units", workplace=workplace.prepared(), context=self.context(workplace.run)
        )
        try:
            yield found
        finally:
            found.close()

    def check_each_unit_has_a_receipt(self, folder: Path) -> None:
        """Every task is done and committed, and gives one receipt."""
        workplace = FolderWorkplace(folder / "run")
        with self.executor(workplace) as executor:
            receipts = _do(executor, tasks(7))
        require(len(receipts) == 7, f"7 tasks gave {len(receipts)} receipts.")
        require(set(workplace.committed()) == {task.unit for task in tasks(7)}, "A unit is not committed.")

    def check_reports_arrive(self, folder: Path) -> None:
        """What workers report reaches the run: numbers of prompts, and lines as they are."""
        said: list[int | str] = []
        with self.executor(FolderWorkplace(folder / "run")) as executor:
            _do(executor, tasks(5), said.append)
        prompts = sum(item for item in said if isinstance(item, int))
        lines = sorted(item for item in said if isinstance(item, str))
        require(prompts == 15, f"{prompts} prompts were reported, but 15 were done.")
        require(lines == [f"unit 0-{place}" for place in range(5)], f"These lines were reported: {lines}.")

    def check_does_one_round_after_another(self, folder: Path) -> None:
        """The same executor does the tasks of several rounds, also more of them than before."""
        workplace = FolderWorkplace(folder / "run")
        with self.executor(workplace) as executor:
            for number in range(3):
                _do(executor, tasks(1 + 3 * number, number))
        require(len(workplace.committed()) == 12, "A unit of a later round is not committed.")

    def check_a_committed_unit_stays_as_it_is(self, folder: Path) -> None:
        """A second attempt at a unit gives a receipt too, and changes nothing."""
        workplace = FolderWorkplace(folder / "run")
        with self.executor(workplace) as executor:
            _do(executor, tasks(3))
            before = workplace.committed()
            _do(executor, tasks(3))
        require(workplace.committed() == before, "A second attempt changed a commit record.")

    def check_a_worker_s_error_arrives(self, folder: Path) -> None:
        """An error that a worker raises is raised in the run, with its class and its sentence."""
        try:
            with self.executor(FolderWorkplace(folder / "run")) as executor:
                _do(executor, tasks(4, content=[FAILS]))
        except CaptureError as error:
            require(str(error) == SENTENCE, f"The worker's sentence became: {error}")
            return
        require(False, "A worker's CaptureError did not reach the run.")

    def check_a_dead_worker_s_unit_is_done_again(self, folder: Path) -> None:
        """If workers are killed in the middle of their units, these are done by others, and nothing is lost."""
        if self.in_process:
            return
        workplace = FolderWorkplace(folder / "run")
        with self.executor(workplace) as executor:
            receipts = _do(executor, tasks(6, content=[DIES_ONCE, DIES_ONCE]))
        require(len(receipts) == len(workplace.committed()) == 6, "A unit is lost.")
        attempts = workplace.attempts()
        require(attempts["0-0"] == attempts["0-1"] == 2, f"The units had these attempts: {attempts}.")
        others = {task.unit: attempts[task.unit] for task in tasks(6)[2:]}
        require(set(others.values()) == {1}, f"A dead worker cost other units too: {others}.")

    def check_a_unit_that_kills_ends_the_run(self, folder: Path) -> None:
        """A unit that kills every worker ends in an EncycloError, after a few attempts."""
        if self.in_process:
            return
        workplace = FolderWorkplace(folder / "run")
        try:
            with self.executor(workplace) as executor:
                _do(executor, tasks(3, content=[DIES]))
        except EncycloError as error:
            require("0-0" in str(error), f"The error doesn't name the unit 0-0: {error}")
            require(workplace.attempts()["0-0"] <= 10, "The unit had more than 10 attempts.")
            return
        require(False, "A unit that kills every worker raised no EncycloError.")

    def check_close_ends_the_workers(self, folder: Path) -> None:
        """After `close` no worker lives, also none that was in the middle of a unit."""
        if self.in_process:
            return
        workplace = FolderWorkplace(folder / "run")
        with self.executor(workplace) as executor:
            for _ in executor.run(tasks(4, content=[TAKES_LONG]), _silent):
                break
        _wait_for_the_end_of(workplace.processes() - {workplace.process})


def _do(executor: Executor, some: Sequence[UnitTask], report: Report = _silent) -> list[UnitReceipt]:
    return list(executor.run(some, report))


def _wait_for_the_end_of(processes: set[int]) -> None:
    until = time.monotonic() + SECONDS_TO_END
    while alive := [number for number in processes if _is_alive(number)]:
        require(time.monotonic() < until, f"The worker processes {alive} live on after `close`.")
        time.sleep(0.1)


def _is_alive(number: int) -> bool:
    try:
        return bool(psutil.Process(number).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
