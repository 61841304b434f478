"""Readings of a text: a token's candidates, a token's reading, the whole text's readings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from encyclo.query.html import clip, heat
from encyclo.text import one_line


@dataclass(frozen=True)
class Candidate:
    """A candidate: a concept that a token may mean. The confidence is None if the run could not calibrate."""

    id: str
    name: str
    confidence: float | None


@dataclass(frozen=True)
class TokenReading:
    """The reading of one token, text[start:end] of the whole text."""

    token: str
    start: int
    end: int
    concepts: list[Candidate]
    """The likeliest first."""
    familiarity: float | None
    """1 if the activation resembles the interpreter's training samples, 0 if it resembles none."""
    read: str | None
    """The first concept's name if its confidence reaches the threshold; None if the reader abstains."""


@dataclass(frozen=True, repr=False)
class Reading(Sequence[TokenReading]):
    """The readings of a text, one per token; a notebook shows them as a heat map."""

    text: str
    tokens: tuple[TokenReading, ...]

    def __len__(self) -> int:
        return len(self.tokens)

    @overload
    def __getitem__(self, place: int) -> TokenReading: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[TokenReading, ...]: ...

    def __getitem__(self, place: int | slice) -> TokenReading | tuple[TokenReading, ...]:
        return self.tokens[place]

    @property
    def concepts(self) -> list[str]:
        """The concepts read with enough confidence, without repeats, in the text's order."""
        return list(dict.fromkeys(token.read for token in self.tokens if token.read))

    def __repr__(self) -> str:
        read = ", ".join(self.concepts[:6]) + (" and more" if len(self.concepts) > 6 else "")
        return one_line(f"<Reading of {len(self):,} tokens: {read or 'nothing read with enough confidence'}>")

    def _repr_html_(self) -> str:
        spans = []
        for token in self.tokens:
            title = ", ".join(f"{clip(c.name)}{confidence_suffix(c.confidence)}" for c in token.concepts)
            sure = token.concepts[0].confidence
            spans.append((token.start, token.end, sure if token.read and sure is not None else 0.0, title))
        return heat(self.text, spans)


def cut_at_tokens(
    text: str, readings: Iterable[TokenReading]
) -> Iterator[tuple[str, str, TokenReading | None]]:
    """Yield (the text before it, the token, its reading) for each token, and last (the rest, "", None).

    If tokens share a character (one of several bytes), the first of them has it.
    """
    end = 0
    for reading in readings:
        start, stop = max(reading.start, end), max(reading.end, end)
        yield text[end:start], text[start:stop], reading
        end = stop
    yield text[end:], "", None


def confidence_suffix(confidence: float | None) -> str:
    """Return ` 98%`; nothing below 0.5%, as where no word of an entry stands, and if the run could not calibrate."""
    return f" {confidence:.0%}" if confidence is not None and confidence >= 0.005 else ""
