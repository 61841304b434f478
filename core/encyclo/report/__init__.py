"""The pages about a run, each one self-contained HTML file.

page.html.j2      the run, its figures and its entries       write_report, report_run
reading.html.j2   a text and its readings                    write_reading
"""

from encyclo.report.page import write_report
from encyclo.report.read_text import write_reading
from encyclo.report.run import report_run

__all__ = ["report_run", "write_reading", "write_report"]
