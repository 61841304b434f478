"""Tables for all views: no lines, and no word broken. The console escapes foreign texts."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from encyclo.text import printable

UNBOUNDED = 10_000


class FittedTable(Table):
    """A table whose cells stay on one line; where it is too wide, columns are left out and named below it.

    `spare`: headings that may be left out, the first ones first; `wrapped`: headings of columns that wrap at blanks.
    """

    def __init__(self, spare: Sequence[str], wrapped: Collection[str]) -> None:
        super().__init__(box=None, pad_edge=False)
        self.spare, self.wrapped = spare, wrapped

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table with the columns that fit, and a line that names the others."""
        left_out = []
        for column in self.columns:
            heading, cells = str(column.header), [str(cell) for cell in column._cells]
            words = [*heading.split(), *(" ".join(cells).split() if heading in self.wrapped else cells)]
            column.min_width = max((cell_len(printable(word)) for word in words), default=0)
        needed = self._needed(console, options)
        for heading in self.spare:
            if needed.minimum <= options.max_width:
                break
            self.columns = [column for column in self.columns if column.header != heading]
            for place, column in enumerate(self.columns):
                column._index = place
            left_out.append(heading)
            needed = self._needed(console, options)
        if needed.minimum <= options.max_width < needed.maximum:
            for column in self.columns:  # rich would narrow the widest, whatever it holds
                if str(column.header) not in self.wrapped:
                    column.width = column.min_width
        yield from super().__rich_console__(console, options)
        if left_out:
            yield Text(f"A wider terminal also shows: {', '.join(reversed(left_out))}", "dim")

    def _needed(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options.update(max_width=UNBOUNDED), self)


def columns(
    *headings: str, right: bool = False, spare: Sequence[str] = (), wrapped: Collection[str] = ()
) -> FittedTable:
    """Return a table with these headings; with `right`, all columns but the first are aligned right."""
    table = FittedTable(spare, wrapped)
    for place, heading in enumerate(headings):
        table.add_column(heading, overflow="fold", justify="right" if right and place else "left")
    return table


def labelled(lines: Sequence[tuple[str, str]]) -> Table:
    """Return labels next to values; a long value wraps under itself, also in a narrow terminal."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in lines:
        table.add_row(label, value)
    return table
