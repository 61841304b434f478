"""The words by which a text may mention entries, and how often each word means each of them.

A dictionary's knowledge, kept apart from the model's: a concept list says by which words an entry is mentioned (its
name and aliases) and, if it knows, which share of a word's uses means the entry (`Concept.word_shares`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from encyclo.english import is_function_word, lemmas_by_part, without_qualifier
from encyclo.types import Concept

Meaning = tuple[int, str, float | None]
"""An entry's row in the list, its part of speech, and the word's share that means it (None: unknown)."""
NONE = -1
"""The row of "none of the word's entries"."""


class NamedWord(dict[int, float | None]):
    """The entries that a word may mean: {row: share of the word's uses, None if unknown}; empty if there are none."""

    def __init__(self, word: str = "", entries: Mapping[int, float | None] | None = None) -> None:
        super().__init__(entries or {})
        self.word = word
        """The word or phrase, in lower case, not inflected."""

    def meanings(self) -> list[tuple[int, float]]:
        """Return (row, share) of each meaning: the entries by row, then NONE. Unknown shares split what is left."""
        left = max(0.0, 1.0 - sum(share for share in self.values() if share is not None))
        unknown = sum(share is None for share in self.values())
        pairs = [(row, left / unknown if share is None else share) for row, share in sorted(self.items())]
        return [*pairs, (NONE, 0.0 if unknown else left)]


@dataclass(frozen=True)
class EntryWords:
    """Entries by their words; made by `of`, kept in calibration.json."""

    meanings: Mapping[str, tuple[Meaning, ...]]
    """By word or phrase, in lower case, not inflected."""

    @cached_property
    def longest(self) -> int:
        """The most words of a phrase."""
        return max((word.count(" ") + 1 for word in self.meanings), default=1)

    @classmethod
    def of(cls, concepts: Iterable[Concept]) -> EntryWords:
        """Return the words of a list's entries."""
        meanings: dict[str, dict[int, Meaning]] = defaultdict(dict)
        for row, concept in enumerate(concepts):
            shares = concept.word_shares or (None,) * (1 + len(concept.aliases))
            for name, share in zip((concept.name, *concept.aliases), shares, strict=True):
                key = " ".join(without_qualifier(name).lower().split())
                meanings[key].setdefault(row, (row, concept.part_of_speech, share))
        return cls({key: tuple(found.values()) for key, found in meanings.items()})

    def at_end_of(self, words: Sequence[str]) -> NamedWord:
        """Return the entries that the last of a text's `words` mentions, by row, with their shares of the word.

        A longer phrase hides the words in it: "ice cream" does not mention cream. The last word may be inflected.
        """
        for length in range(min(self.longest, len(words)), 0, -1):
            *before, last = words[-length:]
            found = NamedWord()
            for part, lemma in lemmas_by_part(last):
                phrase = " ".join([*before, lemma]).lower()
                for row, own_part, share in self.meanings.get(phrase, ()):
                    fits = part in ("", own_part) or own_part not in ("noun", "verb", "adjective", "adverb")
                    # "a" is an article, not the unit A.
                    if fits and not (length == 1 and own_part == "noun" and is_function_word(last)):
                        found.setdefault(row, share)
                        found.word = phrase
            if found:
                return found
        return NamedWord()

    def as_json(self) -> dict[str, Any]:
        """Return the words as calibration.json holds them."""
        return {word: [list(meaning) for meaning in found] for word, found in self.meanings.items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], entries: int | None = None) -> EntryWords:
        """Return what `as_json` gave, of a list of so many entries if it is known. Raises ValueError or TypeError."""
        meanings = {}
        for word, found in content.items():
            rows = [
                (int(row), str(part), None if share is None else float(share)) for row, part, share in found
            ]
            if any(row < 0 or (entries is not None and row >= entries) for row, _, _ in rows):
                raise ValueError(f"the word {word!r} belongs to an entry that is not in the run")
            meanings[word] = tuple(rows)
        return cls(meanings)
