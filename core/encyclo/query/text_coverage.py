"""How much of a text's activations the entries explain: the text's tokens, read with the run's model.

The first token that the model gets is left out, like special tokens: models use it as an attention sink, and its
activation is unlike that of any other token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from encyclo.english import is_function_word
from encyclo.entry_words import NamedWord
from encyclo.errors import UsageError
from encyclo.query.text_reader import TextReader, Window
from encyclo.query.word_readings import entries_at, word_spans
from encyclo.schema import SignatureTable
from encyclo.statistics.coverage import FEWEST, measure_coverage
from encyclo.statistics.figures import Coverage
from encyclo.types import Signatures

TOKENS = 2000
"""The most tokens of a text that are read, from its beginning on."""


def read_coverage(
    reader: TextReader,
    texts: Iterable[str | Iterable[str]],
    signatures: Signatures | SignatureTable,
    layers: Sequence[int],
    seed: int,
    source: str = "a text",
    tokens: int = TOKENS,
) -> Coverage:
    """Return how much of the activations of the first `tokens` tokens of `texts` the entries explain.

    The model gets each of the texts, a string or pieces of one, by itself. Raises UsageError, with `source` as the
    texts' name, if they are blank.
    """
    values, kinds, left = [], [], tokens
    something = False
    for window in _windows(reader, texts):
        something = True
        rows = slice(int(window.first), int(window.first) + left)
        values.append(window.values[rows])
        kinds += token_kinds(reader, window)[rows]
        left = tokens - len(kinds)
        if left <= 0:
            break
    if not something:
        raise UsageError(
            f"There is nothing to measure in {source}: it is blank; give at least {FEWEST} tokens."
        )
    seen = signatures.mean[signatures.count > 0]
    return measure_coverage(np.concatenate(values), kinds, seen, layers, seed, source)


def _windows(reader: TextReader, texts: Iterable[str | Iterable[str]]) -> Iterator[Window]:
    for text in texts:
        yield from reader.windows_of(text)


def token_kinds(reader: TextReader, window: Window) -> list[str]:
    """Return the kind of each of a window's tokens, such as "number" or "part of a word"."""
    words = {end: window.text[start:end] for start, end in word_spans(window.text)}
    ends = [end for _, end in window.spans]
    named = entries_at(window.text, ends, reader.words) if reader.words else [NamedWord()] * len(ends)
    return [
        _kind(window.text[start:end], words.get(end), bool(entries))
        for (start, end), entries in zip(window.spans, named, strict=True)
    ]


def _kind(token: str, word: str | None, named: bool) -> str:
    """Return the kind of a token; `word` is the word that ends with it, `named` whether this is an entry's."""
    if not any(map(str.isalnum, token)):
        return "punctuation"
    if word is None:
        return "part of a word"
    if named:
        return "an entry's word"
    if not any(map(str.isalpha, word)):
        return "number"
    return "function word" if is_function_word(word) else "other word"
