"""The convergence of a run's signatures, for a person in a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from encyclo.statistics.convergence import FEWEST

NOT_MEASURED = f"Not measured: it takes two concepts with {FEWEST} samples that mention them."


def print_convergence(found: Mapping[str, Any], console: Console) -> None:
    """Print the table by layer, the curve, and the older protocol beside this run's pooling."""
    if found["layers"] is None:
        console.print(NOT_MEASURED)
        return
    about = f"{found['samples']:,} samples of {found['concepts']:,} concepts, pooling {found['pooling']}"
    console.print(f"{about}: halves compared, mean of {found['splits']} random splits")
    console.print(_figures({f"{layer}": row for layer, row in found["layers"].items()}, "Layer"))
    console.print()
    console.print("Samples that each of two means would need until they agree so well")
    console.print(_needed(found["layers"]))
    if found["curve"]:
        console.print()
        console.print("Adjusted difference over the samples a concept")
        console.print(_curve(found["curve"]))
    if (older := found["older"]) and older["figures"]:
        console.print()
        about = (
            f"{older['samples']:,} prompts of {older['concepts']:,} concepts, at most {older['most']} each"
        )
        console.print(f"The older protocol beside this one, on the same prompts ({about})")
        rows = {f"{older['pooling']} {older['layer']}": older["figures"]}
        rows |= {f"{found['pooling']} {layer}": row for layer, row in (older["here"] or {}).items()}
        console.print(_figures(rows, "Pooling, layer"))


def _figures(rows: Mapping[str, Mapping[str, float]], first: str) -> Table:
    table = _table(first, "Raw", "In 5%", "Centred", "Adjusted", "Cosine", "Null", "To 5%")
    for name, row in rows.items():
        table.add_row(
            name, f"{row['raw_rel_diff']:.1%}", f"{row['within_5pct_raw']:.0%}", f"{row['centred_rel_diff']:.1%}",
            f"{row['adjusted_rel_diff']:.1%}", f"{row['cosine']:.3f}", f"{row['null_cosine']:.3f}",
            f"{row['samples_to_5pct_median']:,.0f}",
        )  # fmt: skip
    return table


def _needed(layers: Mapping[str, Mapping[str, float]]) -> Table:
    table = _table("Layer", "95% in 5%, raw", "Centred 10%", "Adjusted 10%", "Adjusted 5%")
    keys = ("95pct_raw", "10pct_centred", "10pct_adjusted", "5pct_median")
    for layer, row in layers.items():
        table.add_row(layer, *(f"{row[f'samples_to_{key}']:,.0f}" for key in keys))
    return table


def _curve(curve: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return a row a number of samples and a column a layer; the last row is the exponent."""
    layers = list(curve)
    table = _table("Samples", "Concepts", *layers)
    any_layer = curve[layers[0]]
    for place, take in enumerate(any_layer["samples"]):
        figures = (f"{curve[layer]['adjusted'][place]:.1%}" for layer in layers)
        table.add_row(f"{take:,}", f"{any_layer['concepts'][place]:,}", *figures)
    slopes = (curve[layer]["exponent"] for layer in layers)
    table.add_row("Exponent", "", *("" if slope is None else f"{slope:.2f}" for slope in slopes))
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, overflow="fold", justify="right" if place else "left")
    return table
