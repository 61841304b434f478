"""The report page of a run directory: opens it, reads what the page needs from its samples, writes the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from encyclo.errors import DamagedError
from encyclo.report.page import write_report
from encyclo.types import Interpreter


def report_run(
    path: Path, metrics: dict[str, Any] | None = None, interpreter: Interpreter | None = None
) -> Path:
    """Write report.html of the run in `path`, whose encyclopedia is finished; return its path.

    `metrics` and `interpreter` are read from the run unless they are given. Raises UsageError if the run is not
    finished, StoreError or DamagedError if it can't be read.
    """
    from encyclo.query.encyclopedia import open_run
    from encyclo.report import details
    from encyclo.runs.reopen import require_finished

    if metrics is None:
        require_finished(path)
        metrics = _read_metrics(path)
    with open_run(path) as opened:
        reader = interpreter or opened.interpreter()
        seed = opened.record["config"]["seed"]
        found = details.collect(opened.source, opened.book, reader, metrics, seed)
        write_report(path / "report.html", opened.record, metrics, opened.book, found)
    return path / "report.html"


def _read_metrics(path: Path) -> dict[str, Any]:
    try:
        metrics: dict[str, Any] = json.loads((path / "metrics.json").read_text(encoding="utf-8"))
        if not isinstance(metrics, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError) as error:
        raise DamagedError(
            f"{path}/metrics.json can't be read ({error}); delete it, and the command that began the run writes "
            "it again."
        ) from error
    return metrics
