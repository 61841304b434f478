"""Write the report page of a run directory."""

from __future__ import annotations

from pathlib import Path

from encyclo.query.encyclopedia import open_run
from encyclo.report import details
from encyclo.report.page import write_report
from encyclo.runs.metrics import Metrics, read_metrics
from encyclo.runs.reopen import require_finished
from encyclo.types import Interpreter


def report_run(path: Path, metrics: Metrics | None = None, interpreter: Interpreter | None = None) -> Path:
    """Write report.html into the run in `path`, whose encyclopedia is finished; return its path.

    `metrics` and `interpreter` are read from the run if they are not given. Raises UsageError if the run is not
    finished, StoreError or DamagedError if it can't be read.
    """
    if metrics is None:
        require_finished(path)
        metrics = read_metrics(path)
    with open_run(path) as opened:
        reader = interpreter or opened.interpreter()
        found = details.collect(opened, reader, metrics)
        write_report(path / "report.html", opened.record, metrics, opened.book, found, opened.similarity)
    return path / "report.html"
