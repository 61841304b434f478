"""Print a text's readings: on a terminal a heat map, then a line for each token; elsewhere only the lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.text import Text

from encyclo.english import qualifier, without_qualifier
from encyclo.query.html import clip
from encyclo.query.readings import Candidate, TokenReading, cut_at_tokens
from encyclo.terminal import say
from encyclo.text import one_line, printable

HEAT = (
    "",
    "white on #2b3a55",
    "white on #0b4f8a",
    "black on #3f97d1",
    "black on #f0e442",
    "black on #e69f00",
)
"""Styles of a token by confidence: none below 10%, then up to 30%, 50%, 70%, 90% and above. Colour-blind people can
distinguish blue from orange, and in grey the styles differ in brightness."""
STEPS = (0.1, 0.3, 0.5, 0.7, 0.9)
LEAST = 0.05
"""Another sense of the word that is read is not shown below this confidence."""


def print_readings(
    readings: Iterable[TokenReading],
    text: str | None,
    console: Console,
    own: Mapping[str, int] | None = None,
) -> None:
    """Print a line for each token; on a colour terminal, print `text` as a heat map first, if it is given.

    `own` are the concepts' own held-out readings, by id: a column shows those of the concept that is read.
    """
    heading = _columns("Token", "Read as", "", "n", "Likeliest", own)
    if not console.is_terminal:
        for number, reading in enumerate(readings):
            if number == 0:
                say(heading)
            say(_line(reading, own))
        return
    if text is not None:
        readings = list(readings)
        console.print(heat_map(text, readings))
        console.print(_key(), "\n")
    for number, reading in enumerate(readings):
        if number == 0:
            console.print(heading, style="bold")
        console.print(Text(_line(reading, own), _heat(reading.concepts[0])), soft_wrap=True)


def heat_map(text: str, readings: Sequence[TokenReading]) -> Text:
    """Return the text with each token in the colour of its likeliest concept's confidence; named ones in bold."""
    drawn = Text()
    for before, token, reading in cut_at_tokens(text, readings):
        drawn.append(printable(before))
        if reading is not None:
            bold = "bold " if reading.read else ""
            drawn.append(printable(token), bold + _heat(reading.concepts[0]))
    return drawn


def _key() -> Text:
    key = Text("Confidence: ", "dim")
    limits = (0.0, *STEPS, 1.0)
    for style, low, high in zip(HEAT, limits, limits[1:], strict=False):
        key.append(f" {low:.0%} to {high:.0%} ", style)
    return key.append("  bold: confidence above the threshold", "dim")


def _heat(candidate: Candidate) -> str:
    return HEAT[sum((candidate.confidence or 0) >= step for step in STEPS)]


def _line(reading: TokenReading, own: Mapping[str, int] | None) -> str:
    """Return one line: the token, its reading (a dash if the reader abstains), the likeliest concepts."""
    likeliest = ", ".join(
        f"{one_line(name)} {_share(confidence)}".rstrip() for name, confidence in _folded(reading.concepts)
    )
    sure = _share(reading.concepts[0].confidence) if reading.read else ""
    count = f"{own.get(reading.concepts[0].id, 0):,}" if own and reading.read else ""
    read = clip(one_line(reading.read or "-"), 20)
    return _columns(clip(one_line(reading.token), 16), read, sure, count, likeliest, own)


def _columns(
    token: str, read: str, sure: str, count: str, likeliest: str, own: Mapping[str, int] | None
) -> str:
    return f"{token:<16} {read:<20} {sure:>4} {f'{count:>4} ' if own else ''} {likeliest}"


def _folded(candidates: Sequence[Candidate]) -> list[tuple[str, float | None]]:
    """Return the candidates' names and confidences; other senses of the first's word only with their qualifier.

    Such a sense is left out below the confidence LEAST.
    """
    first, *others = candidates
    shown = [(first.name, first.confidence)]
    for other in others:
        if not first.confidence or without_qualifier(other.name) != without_qualifier(first.name):
            shown.append((other.name, other.confidence))
        elif other.confidence and other.confidence >= LEAST:
            sense = qualifier(other.name)
            shown.append((f"({sense})" if sense else other.id, other.confidence))
    return shown


def _share(value: float | None) -> str:
    """Return the confidence; nothing for 0, where no word of an entry stands."""
    if value is None:
        return "not measured"
    return f"{value:.0%}" if value else ""
