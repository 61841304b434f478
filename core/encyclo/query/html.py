"""HTML for notebooks: a table, a text as a heat map. All text is escaped.

The colour is a translucent blue, which is legible on a dark and on a light theme.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

LONGEST = 200
"""The most characters shown of a text; names may have thousands."""


def table(rows: Iterable[Sequence[str]], heading: Sequence[str] = ()) -> str:
    """Return rows of texts as a table, with a heading if there is one."""
    head = f"<tr>{''.join(f'<th>{shown(cell)}</th>' for cell in heading)}</tr>" if heading else ""
    align = ' style="text-align:left"'
    body = "".join(f"<tr>{''.join(f'<td{align}>{shown(c)}</td>' for c in row)}</tr>" for row in rows)
    return f"<table>{head}{body}</table>"


def heat(text: str, spans: Iterable[tuple[int, int, float, str]]) -> str:
    """Return `text` with spans (start, end, strength from 0 to 1, title) marked; hovering shows the title."""
    pieces, at = [], 0
    for start, end, strength, title in spans:
        style = f"background:rgba(66,133,244,{0.75 * strength:.2f});border-radius:3px"
        marked = f'<span style="{style}" title="{html.escape(title)}">{html.escape(text[start:end])}</span>'
        pieces += [html.escape(text[at:start]), marked]
        at = end
    pieces.append(html.escape(text[at:]))
    return f'<div style="white-space:pre-wrap;line-height:1.7">{"".join(pieces)}</div>'


def shown(text: str) -> str:
    """Return a text clipped and escaped."""
    return html.escape(clip(text))


def clip(text: str, most: int = LONGEST) -> str:
    """Return a text cut to `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"
