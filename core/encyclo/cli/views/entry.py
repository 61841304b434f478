"""Print one entry, as text or as JSON."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.text import Text

from encyclo.cli.views.tables import labelled
from encyclo.query.confusions import confusion_text
from encyclo.query.encyclopedia import Encyclopedia
from encyclo.query.entry import confidence_text, lengths_text, nearest_text
from encyclo.query.evidence import readings_text
from encyclo.text import one_line

PROMPTS = 8


def print_entry(book: Encyclopedia, name: str, console: Console) -> None:
    """Print one entry on one screen."""
    entry, part = book.entry(name), book.samples(name)
    console.print(Text.assemble((one_line(entry.name), "bold"), f"  {one_line(entry.category)}"))
    if entry.definition:
        console.print(entry.definition)
    console.print()
    state = f"settled in stage {entry.stage}" if entry.settled else f"not settled after stage {entry.stage}"
    lines = [
        ("Confidence", _confidence(book, name)),
        ("Samples", f"{entry.n_samples}, {'converged' if entry.converged else 'not converged'}, {state}"),
        ("Signature", f"length by layer {lengths_text(entry)}"),
        ("Nearest", nearest_text(entry)),
        ("Most confused", confusion_text(book.confusion(name), book.book.concepts.name)),
    ]
    console.print(labelled(lines))
    console.print()
    console.print("Prompts")
    for text, family in list(zip(part.prompt, part.family, strict=True))[:PROMPTS]:
        console.print(f"  {text}  [{family}]")
    if len(part) > PROMPTS:
        console.print(f"  and {len(part) - PROMPTS} more")


def _confidence(book: Encyclopedia, name: str) -> str:
    """Return the confidence, among how many concepts it is, and how many of the entry's readings it rests on."""
    entry = book.entry(name)
    if math.isnan(entry.confidence):
        return confidence_text(entry)
    basis = "" if entry.own_readings is None else f", from {readings_text(entry.own_readings)}"
    return f"{confidence_text(entry)} among {len(book):,} concepts{basis}"


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
        "own_readings": entry.own_readings,
        "converged": entry.converged,
        "settled": entry.settled,
        "nearest": [{"name": n.name, "cosine": n.cosine} for n in entry.nearest],
        "most_confused": [{"name": n, "margin": m} for n, m in book.confused_with(name)],
        "prompts": [
            {"text": text, "family": family} for text, family in zip(part.prompt, part.family, strict=True)
        ],
    }
