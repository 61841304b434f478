"""The ladder, for a person in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

NOT_MEASURED = "not measured"


def print_ladder(found: Mapping[str, Any], console: Console) -> None:
    """Print a table of accuracies, one of calibration and one of the unfamiliar."""
    console.print(_accuracies(found["accuracy"]))
    console.print()
    console.print(_calibrations(found["accuracy"]))
    if found["unfamiliar"]:
        console.print()
        console.print(_unfamiliar(found["unfamiliar"]))


def _accuracies(accuracy: Mapping[str, Any]) -> Table:
    table = _table(
        "Rung",
        "Reader",
        "Top-1 (95% interval)",
        "Top-10",
        "Top-100",
        "Median rank",
        "Null",
        "n",
        "Among",
    )
    for rung, rows in accuracy.items():
        if not any((rows or {}).values()):
            table.add_row(rung, "", NOT_MEASURED)
        for name, row in (rows or {}).items():
            if not row:
                continue
            span = f" ({row['top1_low']:.1%} to {row['top1_high']:.1%})" if "top1_low" in row else ""
            null = row.get("null")
            table.add_row(
                rung, name, f"{row['top1']:.1%}{span}", f"{row['top10']:.1%}",
                f"{row['top100']:.1%}", f"{row['median_rank']:,.0f}", f"{null['top1']:.1%}" if null else "",
                f"{row['n']:,}", f"{row['candidates']:,}",
            )  # fmt: skip
    return table


def _calibrations(accuracy: Mapping[str, Any]) -> Table:
    table = _table(
        "Rung", "Reader", "ECE", "Brier", "n", "Sets at", "Hold", "Size", "Right in the surer half"
    )
    for rung, rows in accuracy.items():
        for name, row in (rows or {}).items():
            found = (row or {}).get("calibration")
            if not found:
                continue
            sets, half = found["conformal"], found["coverage"][4]
            table.add_row(
                rung, name, f"{found['ece']:.3f}", f"{found['brier']:.3f}", f"{found['n']:,}", f"{sets['level']:.0%}",
                f"{sets['coverage']:.1%}", f"{sets['size']:.2f}", f"{half[1]:.1%}",
            )  # fmt: skip
    return table


def _unfamiliar(found: Mapping[str, Any]) -> Table:
    table = _table("Reading of", "Reader", "Median confidence", "Above 50%", "n")
    for name, kinds in found.items():
        for kind, row in (kinds or {}).items():
            table.add_row(kind, name, f"{row['median']:.1%}", f"{row['above_half']:.1%}", f"{row['n']:,}")
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
