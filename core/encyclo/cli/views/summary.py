"""The closing summary of a run, for a person in a terminal."""

from __future__ import annotations

import math
import shlex
from typing import Any

from rich.console import Console
from rich.table import Table

from encyclo.pipeline.run import Outcome
from encyclo.query.encyclopedia import Encyclopedia, open_run
from encyclo.query.entry import Entry, confidence_text
from encyclo.storage.checksums import read_seal
from encyclo.text import printable

EXAMPLES = 5


def print_summary(outcome: Outcome, console: Console) -> None:
    """Print what the run made, how far it can be trusted, and what to do next."""
    metrics, config = outcome.metrics, outcome.record["config"]
    with open_run(outcome.out) as book:
        if outcome.was_finished:
            console.print("This run was finished before; nothing was computed. Its results:", markup=False)
        console.print()
        console.print(_labelled(_figures(metrics, config, book)))
        if len(metrics["stages"]) > 1:
            console.print()
            console.print(_stages(metrics["stages"]))
        console.print()
        console.print(_examples(book))
        console.print()
        out = outcome.out
        first = shlex.quote(book.book.concepts.name[0])
        lines = [
            ("Written to", f"{out}: {read_seal(out).path}, interpreter/, metrics.json, report.html"),
            ("Next", f"open {out / 'report.html'} in a browser, or: encyclo show {out} {first}"),
        ]
        console.print(_labelled(lines))


def _figures(metrics: dict[str, Any], config: dict[str, Any], book: Encyclopedia) -> list[tuple[str, str]]:
    capture = metrics["capture"]
    table = book.book.concepts
    return [
        ("Model", f"{config['model']} ({book.record['provenance']['model_source']})"),
        ("Concepts", f"{len(book):,}, settled {int(table.settled.sum()):,}"),
        ("Samples", f"{capture['prompts']:,} at layers {', '.join(map(str, config['layers']))}"),
        (
            "Capture",
            f"{capture['prompts_per_second']:,.0f} prompts/s in {capture['dtype']} on {capture['device']}",
        ),
        ("Held-out top-1", _accuracy(metrics["accuracy"]["heldout_prompts"], config["interpreter"])),
        ("Calibration error", _calibration(metrics["calibration"], config)),
        ("Peak memory", f"{capture['peak_rss_mb'] / 1024:.1f} GB"),
    ]


def _stages(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Stages", title_justify="left", box=None, pad_edge=False)
    table.add_column("Stage")
    for heading in ("Concepts", "Samples", "Settled", "Held-out", "Natural", "Attacks", "Seconds"):
        table.add_column(heading, justify="right")
    for row in rows:
        attacks = [row["attacks"][when] for when in ("before", "after")] if row.get("attacks") else []
        table.add_row(
            f"{row['stage']} {_escaped(row['sampler'])}",
            *(f"{row[key]:,}" for key in ("concepts", "samples", "settled")),
            *(_share(row[key]) for key in ("heldout_top1", "natural_top1")),
            " → ".join(_share(1 - found["top1"]) for found in attacks if found),
            f"{row['seconds']:,.0f}",
        )
    return table


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _labelled(lines: list[tuple[str, str]]) -> Table:
    """Return labels beside values; a long value wraps under itself, also in a narrow terminal."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in lines:
        table.add_row(label, _escaped(value))
    return table


def _accuracy(rung: dict[str, Any] | None, name: str) -> str:
    if not rung or not rung.get(name):
        return "not measured: no prompt family could be held out (use --sampler templates)"
    figures = [f"{rung[name]['top1']:.1%} ({name})"]
    figures += [f"{value['top1']:.1%} ({other})" for other, value in rung.items() if other != name]
    text = f"{', '.join(figures)}; n={rung[name]['n']:,}, {rung[name]['candidates']:,} candidates"
    others = [other for other in rung if other != name and rung[other]["top1"] >= rung[name]["top1"]]
    return f"{text}; {name} does not beat {' and '.join(others)}" if others else text


def _calibration(calibration: dict[str, Any] | None, config: dict[str, Any]) -> str:
    if not calibration:
        return "not measured: no prompt family could be held out (use --sampler templates)"
    figures = [f"{calibration['ece']:.3f} ({config['interpreter']})"]
    figures += [
        f"{calibration[name]['ece']:.3f} ({name})" for name in config["baselines"] if calibration.get(name)
    ]
    return f"{', '.join(figures)}; n={calibration['n']:,}"


def _examples(book: Encyclopedia) -> Table:
    table = Table(title="Five entries", title_justify="left", box=None, pad_edge=False)
    for heading in ("Concept", "Confidence", "Nearest concepts"):
        table.add_column(heading, overflow="fold")
    names = book.book.concepts.name
    step = max(1, len(names) // EXAMPLES)
    for name in names[::step][:EXAMPLES]:
        entry = book.entry(name, neighbours=4)
        table.add_row(
            _escaped(entry.name), confidence_text(entry), _escaped(", ".join(n.name for n in entry.nearest))
        )
    return table


def print_entry(book: Encyclopedia, name: str, console: Console, prompts: int = 8) -> None:
    """Print one entry on one screen."""
    entry, part = book.entry(name), book.samples(name)
    console.print(f"[bold]{_escaped(entry.name)}[/bold]  {_escaped(entry.category)}")
    if entry.definition:
        console.print(printable(entry.definition), markup=False)
    console.print()
    state = f"settled in stage {entry.stage}" if entry.settled else f"not settled after stage {entry.stage}"
    lines = [
        ("Confidence", confidence_text(entry)),
        ("Samples", f"{entry.n_samples}, {'converged' if entry.converged else 'not converged'}, {state}"),
        ("Signature", _lengths(book, entry)),
        ("Nearest", ", ".join(f"{n.name} {n.cosine:.2f}" for n in entry.nearest)),
        ("Most confused", ", ".join(f"{other} {margin:+.1f}" for other, margin in book.confused_with(name))),
    ]
    console.print(_labelled(lines))
    console.print()
    console.print("Prompts")
    for text, family in list(zip(part.prompt, part.family, strict=True))[:prompts]:
        console.print(f"  {printable(text)}  [{printable(family)}]", markup=False)
    if len(part) > prompts:
        console.print(f"  and {len(part) - prompts} more")


def entry_json(book: Encyclopedia, name: str) -> dict[str, Any]:
    """Return one entry as `encyclo show --json` prints it."""
    entry, part = book.entry(name), book.samples(name)

    def known(value: float) -> float | None:
        return None if math.isnan(value) else value

    return {
        "id": entry.id,
        "name": entry.name,
        "definition": entry.definition,
        "category": entry.category,
        "stage": entry.stage,
        "samples": entry.n_samples,
        "confidence": known(entry.confidence),
        "confidence_low": known(entry.low),
        "confidence_high": known(entry.high),
        "converged": entry.converged,
        "settled": entry.settled,
        "nearest": [{"name": n.name, "cosine": n.cosine} for n in entry.nearest],
        "most_confused": [{"name": n, "margin": m} for n, m in book.confused_with(name)],
        "prompts": [
            {"text": text, "family": family} for text, family in zip(part.prompt, part.family, strict=True)
        ],
    }


def _lengths(book: Encyclopedia, entry: Entry) -> str:
    import numpy as np

    lengths = np.linalg.norm(entry.signature, axis=-1)
    layers = book.book.attributes.layers
    pairs = ", ".join(f"{layer}: {length:,.0f}" for layer, length in zip(layers, lengths, strict=True))
    return f"length by layer {pairs}"


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(printable(text))
