"""The report page: one self-contained HTML file about a run, for people."""

from encyclo.report.page import write_report

__all__ = ["write_report"]
