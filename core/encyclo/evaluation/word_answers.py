"""What is read at each word of a labelled text: by `encyclo read`, by two baselines, and the scores of its entries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from encyclo.entry_words import NamedWord
from encyclo.query.text_reader import TextReader, Window
from encyclo.query.word_readings import entries_at

READ, ANY_WORD, SHARES, INTERPRETER = "read", "any_word", "shares", "interpreter"
"""`encyclo read`; the same with --any-word; the entry with the largest share of the word; the interpreter's scores."""

Answer = tuple[int, float]
"""An entry's row, -1 for none, and its confidence."""
NOTHING: Answer = (-1, 0.0)


@dataclass(frozen=True)
class WordAnswers:
    """What is read at one word: each reader's answer, and each reader's scores of the word's entries."""

    answers: Mapping[str, Answer]
    entries: Sequence[int]
    scores: Mapping[str, Sequence[float]]


NOT_READ = WordAnswers(
    dict.fromkeys((READ, ANY_WORD, SHARES), NOTHING), (), dict.fromkeys((READ, INTERPRETER, SHARES), ())
)
"""At a word that no token of the model ends with."""


def read_text(reader: TextReader, text: str, places: Mapping[int, int]) -> Iterator[tuple[int, WordAnswers]]:
    """Yield what is read at each word of a text that a token ends with: (place, readings).

    `places` are the words' places by where they end.
    """
    if not places:
        return
    for window in reader.windows_of(text):
        yield from _read_window(reader, window, places)


def _read_window(
    reader: TextReader, window: Window, places: Mapping[int, int]
) -> Iterator[tuple[int, WordAnswers]]:
    assert reader.words is not None
    named = entries_at(window.text, [end for _, end in window.spans], reader.words)
    row_of = {id: row for row, id in enumerate(reader.interpreter.concepts)}
    top = max(1, *map(len, named))
    scores = reader.interpreter.read(window.values)
    both = (reader.read_window(window, some, 0.0, any_word) for some, any_word in ((top, False), (1, True)))
    for line, (token, anywhere) in enumerate(zip(*both, strict=True)):
        place = places.get(token.end)
        if place is None:
            continue
        sure = {row_of[c.id]: c.confidence or 0.0 for c in token.concepts}
        shares = word_shares(named[line])
        answers = {
            READ: (row_of[token.concepts[0].id], token.concepts[0].confidence or 0.0),
            ANY_WORD: (row_of[anywhere.concepts[0].id], anywhere.concepts[0].confidence or 0.0),
            SHARES: max(shares.items(), key=lambda item: item[1], default=NOTHING),
        }
        entries = list(named[line])
        yield (
            place,
            WordAnswers(
                answers,
                entries,
                {
                    READ: [sure.get(row, 0.0) for row in entries],
                    INTERPRETER: scores[line, entries].tolist(),
                    SHARES: list(shares.values()),
                },
            ),
        )


def word_shares(entries: NamedWord) -> dict[int, float]:
    """Return the share of a word's uses that means each of its entries; entries of unknown share divide the rest."""
    found = dict(entries.meanings())
    return {row: found[row] for row in entries}
