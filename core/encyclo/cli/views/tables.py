"""Tables for all views: no lines, long values wrapped. The console escapes foreign texts."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table


def columns(*headings: str, right: bool = False) -> Table:
    """Return a table with these headings; with `right`, all columns but the first are aligned right."""
    table = Table(box=None, pad_edge=False)
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
