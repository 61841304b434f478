"""Readings where an entry's word stands: what the word means, weighed by what the interpreter reads.

    confidence = share x evidence / sum over the word's meanings

`share` is the part of the word's uses that means an entry; the rest of the uses are meanings without an entry.
`evidence` is the exponential of an entry's score, less the best score of all entries, over EVIDENCE times the
calibrated temperature. So an activation that looks like another entry makes the word's own entries less certain.
Where no word of an entry ends, every confidence is 0. If the run has learned from labelled mentions, its word reader
(`encyclo.statistics.word_reader`) gives the confidences instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from encyclo.entry_words import EntryWords, NamedWord

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
"""A word of a text, with the hyphens and apostrophes inside it."""
EVIDENCE = 10.0
"""A score counts for a tenth of what it does among prompts: it was calibrated on other sentences than running text.
Chosen, not fitted."""


def entries_at(text: str, ends: Sequence[int], words: EntryWords) -> list[NamedWord]:
    """Return the entries whose word ends at each of the places `ends`; none within a word."""
    found = list(word_spans(text))
    place_of = {end: place for place, (_, end) in enumerate(found)}
    named: list[NamedWord] = []
    for end in ends:
        place = place_of.get(end)
        if place is None:
            named.append(NamedWord())
            continue
        last = [text[a:b] for a, b in found[max(0, place + 1 - words.longest) : place + 1]]
        named.append(words.at_end_of(last))
    return named


def word_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield each word's characters `[start, end)`, without the ending of a possessive: "dog's" ends after "dog"."""
    for match in WORD.finditer(text):
        word = match.group().removesuffix("'s").removesuffix("’s")
        yield match.start(), match.start() + len(word)


def read_words(
    scores: NDArray[np.float32],
    columns: NDArray[np.int64],
    named: Sequence[NamedWord],
    temperature: float,
    learned: Sequence[Mapping[int, float]] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the candidates, a word's own entries first, and their confidences: int64 and float64 [n, K].

    `scores` are float32 [n, C], `columns` [n, K] the columns of the best scores, descending. `learned` are a word
    reader's confidences, which replace those of shares and scores.
    """
    ordered, confidence = columns.copy(), np.zeros(columns.shape)
    for line, entries in enumerate(named):
        if not entries:
            continue
        rows = np.array(list(entries), np.int64)
        if learned is None:
            own = _confidences(scores[line], rows, list(entries.values()), temperature)
        else:
            own = np.array([learned[line][row] for row in rows.tolist()])
        order = np.argsort(-own, kind="stable")
        others = columns[line][~np.isin(columns[line], rows)]
        ordered[line] = np.concatenate([rows[order], others])[: columns.shape[1]]
        best = own[order][: columns.shape[1]]  # a word may have more entries than there are candidates
        confidence[line, : len(best)] = best
    return ordered, confidence


def _confidences(
    scores: NDArray[np.float32], rows: NDArray[np.int64], shares: Sequence[float | None], temperature: float
) -> NDArray[np.float64]:
    """Return the probability of each of a word's entries; they sum to less than 1 if it has other meanings."""
    known = [share for share in shares if share is not None]
    unknown = len(shares) - len(known)
    # Entries of which the list says nothing share what is left; then nothing remains for other meanings.
    left = max(0.0, 1.0 - sum(known)) if known else 1.0
    weights = np.array([left / unknown if share is None else share for share in shares], np.float64)
    evidence = np.exp((scores[rows].astype(np.float64) - float(scores.max())) / (EVIDENCE * temperature))
    posterior = weights * evidence
    rest = 0.0 if unknown else left
    total = posterior.sum() + rest
    result: NDArray[np.float64] = posterior / total if total > 0 else np.zeros(len(rows))
    return result
