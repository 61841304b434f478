"""Write the report page of a run directory."""

from __future__ import annotations

from pathlib import Path

from encyclo.query.encyclopedia import open_run
from encyclo.report import details
from encyclo.report.page import write_report
from encyclo.runs.directory import read_record
from encyclo.runs.metrics import Metrics, read_metrics
from encyclo.runs.reopen import require_finished
from encyclo.storage import run_files
from encyclo.storage.ledger import locked
from encyclo.storage.run_location import in_working_copy
from encyclo.types import Interpreter


@in_working_copy(parts=False)
def report_run(path: Path, metrics: Metrics | None = None, interpreter: Interpreter | None = None) -> Path:
    """Write report.html into the run in `path`, whose encyclopedia is finished; return its path.

    `interpreter` is read from the run if it isn't given. Without `metrics`, the run is locked and they are read from
    it. Raises UsageError if the run is not finished or in use, StoreError or DamagedError if it can't be read.
    """
    if metrics is None:
        read_record(path)
        require_finished(path)
        with locked(path):
            report_run(path, read_metrics(path), interpreter)
            run_files.settle(path)
        return path / "report.html"
    with open_run(path) as opened:
        reader = interpreter or opened.interpreter()
        found = details.collect(opened, reader, metrics)
        write_report(path / "report.html", opened.record, metrics, opened.book, found, opened.similarity)
    return path / "report.html"
