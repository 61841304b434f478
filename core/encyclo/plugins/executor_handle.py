"""An executor that the hook `run_units` returned: its receipts are checked as they arrive."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from encyclo.executors import Report, UnitReceipt, UnitTask
from encyclo.plugins.guards import through
from encyclo.plugins.handles import Handle
from encyclo.plugins.values import WrongAnswer, shown, with_article


class ExecutorHandle(Handle):
    """An executor (see `encyclo.executors.Executor`)."""

    KIND = "an executor"
    NEEDS = ("run", "close")

    def run(self, tasks: Sequence[UnitTask], report: Report) -> Generator[UnitReceipt, None, None]:
        """Do every task; yield each one's receipt once."""
        left = {task.unit for task in tasks}

        def check(receipt: object) -> UnitReceipt:
            if not isinstance(receipt, UnitReceipt):
                raise WrongAnswer(f"gave {with_article(receipt)} from run, but must give a UnitReceipt")
            if receipt.unit not in left:
                raise WrongAnswer(
                    f"gave a receipt of the unit {shown(receipt.unit)}, which is done already or was not asked for; "
                    "give one receipt for each task"
                )
            left.remove(receipt.unit)
            return receipt

        with self._blame():
            receipts = self._object.run(tasks, report)
        yield from through(receipts, self._blame, check)
        if left:
            with self._blame():
                raise WrongAnswer(
                    f"ended its run without the unit {shown(min(left))} ({len(left):,} of {len(tasks):,} units are "
                    "missing); give one receipt for each task"
                )

    def close(self) -> None:
        """End all workers."""
        with self._blame():
            self._object.close()
