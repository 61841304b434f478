"""Print the evaluation ladder."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from encyclo.cli.views.running_text import running_text_line
from encyclo.cli.views.tables import columns
from encyclo.runs.metrics import LadderFigures, Metrics
from encyclo.runs.unmeasured import why_not
from encyclo.statistics.coverage import FEWEST, SHOWN
from encyclo.statistics.figures import Absent, Coverage, Sureness
from encyclo.text import one_line

NOT_MEASURED = "not measured"


def print_ladder(metrics: Metrics, console: Console) -> None:
    """Print tables of accuracies, calibration and unfamiliar activations, and lines about what was not measured."""
    console.print(_accuracies(metrics.accuracy))
    for rung, readers in metrics.accuracy.rungs().items():
        if not any((readers or {}).values()):
            console.print(f"{rung} is {NOT_MEASURED}: {why_not(rung, metrics)}")
    for table in (
        _calibrations(metrics.accuracy),
        _unfamiliar(metrics.unfamiliar or {}),
        _absent(metrics.absent or {}),
    ):
        if table.row_count:
            console.print()
            console.print(table)
    console.print()
    console.print(f"Coverage: {one_line(_coverage(metrics.coverage))}", highlight=False, markup=False)
    line = running_text_line(metrics.running_text)
    console.print(f"Running text: {line}", highlight=False, markup=False)


def _accuracies(ladder: LadderFigures) -> Table:
    headings = ("Rung", "Reader", "Top-1 (95% interval)", "Top-10", "Top-100", "Median rank", "Null", "n")
    table = columns(*headings, "Among", spare=("Top-100", "Among", "Median rank", "Top-10", "Null"))
    for rung, readers in ladder.rungs().items():
        measured = {name: row for name, row in (readers or {}).items() if row}
        if not measured:
            table.add_row(rung, "", NOT_MEASURED)
        for name, row in measured.items():
            span = f" ({row.top1_low:.1%} to {row.top1_high:.1%})" if row.top1_low is not None else ""
            table.add_row(
                rung, name, f"{row.top1:.1%}{span}", f"{row.top10:.1%}", f"{row.top100:.1%}",
                f"{row.median_rank:,.0f}", f"{row.null.top1:.1%}" if row.null else "", f"{row.n:,}",
                f"{row.candidates:,}",
            )  # fmt: skip
    return table


def _calibrations(ladder: LadderFigures) -> Table:
    headings = ("Rung", "Reader", "ECE", "By chance", "Brier", "n", "Set level", "Coverage", "Set size")
    table = columns(
        *headings, "Accuracy, most confident half", spare=("Brier", "By chance", "Set size", "Set level")
    )
    for rung, readers in ladder.rungs().items():
        for name, row in (readers or {}).items():
            found = row.calibration if row else None
            if not found or not found.conformal or not found.coverage:
                continue
            sets, half = found.conformal, found.coverage[4]
            chance = "" if found.ece_by_chance is None else f"{found.ece_by_chance:.3f}"
            table.add_row(
                rung, name, f"{found.ece:.3f}", chance, f"{found.brier:.3f}", f"{found.n:,}", f"{sets.level:.0%}",
                f"{sets.coverage:.1%}", f"{sets.size:.2f}", f"{half[1]:.1%}",
            )  # fmt: skip
    return table


def _unfamiliar(readers: Mapping[str, Mapping[str, Sureness] | None]) -> Table:
    table = columns("Reading of", "Reader", "Median confidence", "Above 50%", "n")
    for name, kinds in readers.items():
        for kind, row in (kinds or {}).items():
            table.add_row(kind, name, f"{row.median:.1%}", f"{row.above_half:.1%}", f"{row.n:,}")
    return table


def _absent(readers: Mapping[str, Absent | None]) -> Table:
    headings = ("Absent concepts", "Read above 50%", "By the interpreter alone", "n", "Known samples lost")
    table = columns(*headings, "Of known")
    for name, row in readers.items():
        if row:
            table.add_row(
                name, f"{row.read.above_half:.1%}", f"{row.interpreter_alone.above_half:.1%}",
                f"{row.read.n:,}", f"{row.known_lost:.1%}", f"{row.known:,}",
            )  # fmt: skip
    return table


def _coverage(found: Coverage | None) -> str:
    if found is None:
        return f"{NOT_MEASURED}; give evaluate a text with --text"
    if not found.layers:
        return (
            f"{NOT_MEASURED}; it takes at least {FEWEST} tokens and 2 entries, and {found.source} has "
            f"{found.tokens} tokens and the run {found.candidates:,} entries"
        )
    shares = {name: found.mean(name, SHOWN) for name in ("entries", "shuffled", "random", "principal")}
    entries, shuffled, random, principal = (
        NOT_MEASURED if share is None else f"{share:.0%}" for share in shares.values()
    )
    return (
        f"{SHOWN} entries rebuild {entries} of a token's activation in {found.source}, mean over layers (shuffled "
        f"{shuffled}, random {random}, principal components {principal})"
    )
