"""Print the convergence of a run's signatures, for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from rich.console import Console
from rich.table import Table

from encyclo.cli.views.tables import columns
from encyclo.evaluation.converge import Convergence
from encyclo.statistics.convergence import FEWEST
from encyclo.statistics.figures import LayerConvergence, LayerCurve

APART, PRECISE = 0.3, 0.05
"""Least lead of the cosine over its null of signatures that tell concepts apart; largest difference of precise ones."""
NOT_MEASURED = f"Not measured: this needs two concepts with at least {FEWEST} samples that mention them."


def print_convergence(found: Convergence, console: Console) -> None:
    """Print the table by layer, the curve, and the older protocol compared with this run's pooling."""
    if found.layers is None:
        console.print(NOT_MEASURED)
        return
    console.print(conclusion(found))
    console.print()
    about = f"{found.samples:,} samples of {found.concepts:,} concepts, pooling {found.pooling}"
    console.print(f"{about}: halves compared, mean of {found.splits} random splits")
    console.print(_figures(found.layers, "Layer"))
    console.print()
    console.print("Samples that each of two means needs to agree this well")
    console.print(_needed(found.layers))
    if found.curve:
        console.print()
        console.print("Adjusted difference by samples per concept")
        console.print(_curve(found.curve))
    if (older := found.older) and older.figures:
        console.print()
        about = f"{older.samples:,} prompts of {older.concepts:,} concepts, at most {older.most} each"
        console.print(f"The older protocol and this one, on the same prompts ({about})")
        rows = {f"{older.pooling} {older.layer}": older.figures}
        rows |= {f"{found.pooling} {layer}": row for layer, row in (older.here or {}).items()}
        console.print(_figures(rows, "Pooling, layer"))


def conclusion(found: Convergence) -> str:
    """Return in two sentences whether signatures tell concepts apart, and how precise they are."""
    layers = found.layers or {}
    best = min(layers, key=lambda name: inf if (d := layers[name].adjusted_rel_diff) is None else d)
    row = layers[best]
    cosine, null, difference = row.cosine or 0.0, row.null_cosine or 0.0, row.adjusted_rel_diff or 0.0
    verb = "tell concepts apart" if cosine - null >= APART else "hardly tell concepts apart"
    each = found.samples / max(1, found.concepts)
    precise = (
        f"They are precise: without what the contexts add, halves differ by {difference:.1%}"
        if difference <= PRECISE
        else f"They are not yet precise: without what the contexts add, halves still differ by {difference:.0%}, "
        f"and for 5% the median concept needs about {row.samples_to_5pct_median or 0:,.0f} samples in each half, "
        f"while it has {each:,.0f} in all"
    )
    return (
        f"Signatures {verb}: at layer {best}, the best one, two halves of a concept's samples have a cosine of "
        f"{cosine:.2f}, those of two concepts {null:.2f}. {precise}."
    )


def _figures(rows: Mapping[str, LayerConvergence], first: str) -> Table:
    table = columns(first, "Raw", "In 5%", "Centred", "Adjusted", "Cosine", "Null", "To 5%", right=True)
    for name, row in rows.items():
        table.add_row(
            name, f"{row.raw_rel_diff:.1%}", f"{row.within_5pct_raw:.0%}", f"{row.centred_rel_diff:.1%}",
            f"{row.adjusted_rel_diff:.1%}", f"{row.cosine:.3f}", f"{row.null_cosine:.3f}",
            f"{row.samples_to_5pct_median:,.0f}",
        )  # fmt: skip
    return table


def _needed(layers: Mapping[str, LayerConvergence]) -> Table:
    table = columns("Layer", "95% in 5%, raw", "Centred 10%", "Adjusted 10%", "Adjusted 5%", right=True)
    for layer, row in layers.items():
        figures = (
            row.samples_to_95pct_raw, row.samples_to_10pct_centred, row.samples_to_10pct_adjusted,
            row.samples_to_5pct_median,
        )  # fmt: skip
        table.add_row(layer, *(f"{figure:,.0f}" for figure in figures))
    return table


def _curve(curve: Mapping[str, LayerCurve]) -> Table:
    """Return a row for each number of samples and a column for each layer; the last row is the exponent."""
    table = columns("Samples", "Concepts", *curve, right=True)
    points = next(iter(curve.values()))
    for place, (take, concepts) in enumerate(zip(points.samples, points.concepts, strict=True)):
        table.add_row(f"{take:,}", f"{concepts:,}", *(f"{row.adjusted[place]:.1%}" for row in curve.values()))
    slopes = (row.exponent for row in curve.values())
    table.add_row("Exponent", "", *("" if slope is None else f"{slope:.2f}" for slope in slopes))
    return table
