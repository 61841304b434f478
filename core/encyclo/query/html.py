"""What a notebook shows for an encyclopedia, an entry and a reading: small pieces of HTML, escaped throughout.

Names, definitions and prompts are data: nothing of theirs reaches the page unescaped. Colours are a translucent
blue over whatever the notebook's theme has, so that they read on dark and light alike.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from encyclo.query.entry import Entry, confidence_text

if TYPE_CHECKING:
    from encyclo.query.encyclopedia import Encyclopedia
    from encyclo.query.text_reader import Reading, TokenReading

LONGEST = 200
"""Characters of a text that are shown; names may have thousands."""
PROMPTS = 5
ROWS = 20


def entry_html(entry: Entry) -> str:
    """Return an entry as a table: what it is, how far it can be trusted, what is near, the first prompts."""
    near = ", ".join(f"{n.name} {n.cosine:.2f}" for n in entry.nearest)
    state = ("settled" if entry.settled else "not settled") + (", converged" if entry.converged else "")
    lengths = np.linalg.norm(entry.signature, axis=-1)
    rows = [
        ("Confidence", confidence_text(entry)),
        ("Samples", f"{entry.n_samples:,}, {state} after stage {entry.stage}"),
        ("Length by layer", ", ".join(f"{a}: {b:,.0f}" for a, b in zip(entry.layers, lengths, strict=True))),
        ("Nearest", near),
        *(("Prompt", prompt) for prompt in entry.samples.prompt[:PROMPTS]),
    ]
    title = f"<b>{_shown(entry.name)}</b> {_shown(entry.category)}<br>{_shown(entry.definition)}"
    return f"<div>{title}{_table((), rows)}</div>"


def book_html(book: Encyclopedia) -> str:
    """Return an encyclopedia as its description and its first entries; of an unfinished run the names."""
    config = book.record["config"]
    about = f"{len(book):,} concepts of {config['model']} at layers {', '.join(map(str, book.layers))}"
    if not book.finished:
        names = ", ".join(_clip(name) for name in book.concepts[:ROWS])
        return f"<div><b>Encyclopedia, not finished</b>: {_shown(about)}<br>{html.escape(names)}</div>"
    table = book.book.concepts
    rows = [
        (table.name[i], "not measured" if np.isnan(table.confidence[i]) else f"{table.confidence[i]:.0%}",
         f"{table.n_samples[i]:,}", "yes" if table.settled[i] else "no")
        for i in range(min(ROWS, len(table)))
    ]  # fmt: skip
    rest = f"and {len(table) - ROWS:,} more" if len(table) > ROWS else ""
    heading = ("Concept", "Confidence", "Samples", "Settled")
    return f"<div><b>Encyclopedia</b>: {_shown(about)}{_table(heading, rows)}{rest}</div>"


def reading_html(reading: Reading) -> str:
    """Return the text with each token's background as strong as its confidence; hovering says what was read."""
    pieces, at = [], 0
    for token in reading:
        pieces += [html.escape(reading.text[at : token.start]), _token(token)]
        at = token.end
    pieces.append(html.escape(reading.text[at:]))
    return f'<div style="white-space:pre-wrap;line-height:1.7">{"".join(pieces)}</div>'


def _token(token: TokenReading) -> str:
    sure = token.concepts[0].confidence
    strength = sure if token.read and sure is not None else 0.0
    title = ", ".join(
        _clip(c.name) + ("" if c.confidence is None else f" {c.confidence:.0%}") for c in token.concepts
    )
    style = f"background:rgba(66,133,244,{0.75 * strength:.2f});border-radius:3px"
    return f'<span style="{style}" title="{html.escape(title)}">{html.escape(token.token)}</span>'


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = f"<tr>{''.join(f'<th>{_shown(cell)}</th>' for cell in heading)}</tr>" if heading else ""
    align = ' style="text-align:left"'
    body = "".join(f"<tr>{''.join(f'<td{align}>{_shown(c)}</td>' for c in row)}</tr>" for row in rows)
    return f"<table>{head}{body}</table>"


def _shown(text: str) -> str:
    return html.escape(_clip(text))


def _clip(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
