"""The types of the hook `run_units`: tasks go in, receipts come back, workers do the work in between.

The core decides what a unit is and what its worker does. An executor decides where workers are: in this process, in
others, on other machines. It carries tasks to them and their receipts back, and does a task again if its worker died.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

Report = Callable[[int | str], None]
"""Takes a number of prompts that were captured, or a line for the terminal."""


@dataclass(frozen=True)
class UnitTask:
    """A unit to do. Any worker of the run may do it, also several times: one result counts."""

    unit: str
    """The unit's id."""
    prompts: int
    """The number of prompts that the unit wants."""
    round: int
    content: Any = field(repr=False, default=None)
    """What the worker needs to know; picklable."""


@dataclass(frozen=True)
class UnitReceipt:
    """A unit that is committed, by this attempt or another; picklable."""

    unit: str
    place: str
    """The machine and the process that say so."""
    self_test: Mapping[str, float] | None = None
    """The result of the capture's self-test, if the worker made one."""


@dataclass(frozen=True)
class Workers:
    """What `encyclo plan` knows of an executor's workers, from its options."""

    number: int = 1
    at_once: int = 1
    """How many compute as fast as one alone: those that have a GPU or a machine of their own."""
    elsewhere: bool = False
    """Whether they are on other machines."""


class UnitWorker(Protocol):
    """Does units in the process that opened it, one at a time; loads the model once."""

    def do(self, task: UnitTask) -> UnitReceipt:
        """Sample, capture, store and commit a unit; return at once if it is committed."""
        ...


class Workplace(Protocol):
    """A run as its workers find it; picklable, in a few kilobytes."""

    run: Path
    """The run directory; every worker must see it under this path."""

    def worker(self, report: Report) -> UnitWorker:
        """Return this process's worker, which calls `report` while it works. Call it once in a process.

        Raises RunDirectoryError if this machine doesn't see the run, or has another model or other concepts.
        """
        ...


class Executor(Protocol):
    """Does the tasks of one round after another; a run has one executor."""

    def run(self, tasks: Sequence[UnitTask], report: Report) -> Iterable[UnitReceipt]:
        """Do every task; yield each one's receipt as it arrives, in any order.

        An error that a worker raises is raised here. If a worker dies, its task is done again, a few times at most.
        """
        ...

    def close(self) -> None:
        """End all workers, also in the middle of a unit: the run is over, failed or interrupted."""
        ...
