"""Write the report page of a run directory."""

from __future__ import annotations

from pathlib import Path

from encyclo.errors import DamagedError
from encyclo.query.encyclopedia import Encyclopedia, open_run
from encyclo.query.evidence import held_out_families
from encyclo.report.page import write_report
from encyclo.runs.details_file import Details, SignatureFigures, save_details
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

    What it says of entries comes from details.json, which is written first if the run has none or a damaged one; then
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
        found = _kept(opened, metrics) or _measured(opened, metrics, interpreter)
        write_report(path / "report.html", opened.record, metrics, opened.book, *found)
    return path / "report.html"


def _kept(opened: Encyclopedia, metrics: Metrics) -> tuple[Details, SignatureFigures] | None:
    """Return what details.json has for these figures; None if it has to be written again."""
    try:
        kept = opened.kept_details
        return kept.whole() if kept and kept.fit(held_out_families(metrics.splits)) else None
    except DamagedError:
        return None


def _measured(
    opened: Encyclopedia, metrics: Metrics, interpreter: Interpreter | None
) -> tuple[Details, SignatureFigures]:
    """Read the run's samples, and keep in details.json what the page says of them."""
    from encyclo.report import details  # they and what they import are not needed for what is kept
    from encyclo.report.signature_figures import signature_figures

    signatures = signature_figures(opened.book, opened.similarity, details.least_trusted(opened.book))
    reader = interpreter or opened.interpreter()
    found = details.collect(opened, reader, metrics, signatures.nearest)
    save_details(opened.path, opened.seal, held_out_families(metrics.splits), found, signatures)
    return found, signatures
