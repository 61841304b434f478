"""The executor `local`: units in the run's own process, or in several processes of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ConfigDict, Field

from encyclo import hookimpl
from encyclo.executors import Executor, Report, UnitReceipt, UnitTask, Workers, Workplace
from encyclo.types import Context
from encyclo_executors.processes import Processes
from encyclo_executors.shares import environments, workers_here


class Options(BaseModel):
    """Options: `-o local.workers=N` on the command line."""

    model_config = ConfigDict(extra="forbid")

    workers: int = Field(1, ge=1, le=1_000)
    """Processes, each with a model of its own; 1 works in the run's own process."""

    def planned(self, device: str) -> Workers:
        """Return what `encyclo plan` says of the workers."""
        return workers_here(self.workers, device)


class InOrder:
    """Does one unit after the other in the run's own process."""

    def __init__(self, workplace: Workplace) -> None:
        self.workplace = workplace

    def run(self, tasks: Sequence[UnitTask], report: Report) -> Iterator[UnitReceipt]:
        """Do the tasks in their order."""
        worker = self.workplace.worker(report)
        for task in tasks:
            yield worker.do(task)

    def close(self) -> None:
        """Do nothing: there is no other process."""


@hookimpl
def run_units(workplace: Workplace, context: Context) -> Executor:
    """Return an executor with the number of workers that the options say."""
    assert isinstance(context.options, Options)
    workers = context.options.workers
    if workers == 1:
        return InOrder(workplace)
    return Processes(workplace, environments(workers, getattr(context.model, "device", "cpu")))
