"""Which entries a word of a text mentions, and how much of its uses mean each of them."""

from __future__ import annotations

import pytest

from encyclo.entry_words import EntryWords
from encyclo.types import Concept

DOG = Concept("dog", "dog", aliases=("hound",), word_shares=(0.9, 0.25))
LIST = [
    DOG,
    Concept("slope", "bank (slope)", word_shares=(0.2,)),
    Concept("lender", "bank", word_shares=(0.7,)),
    Concept("cream", "cream"),
    Concept("ice", "ice cream", aliases=("sundae",)),
    Concept("run", "run", part_of_speech="verb"),
    Concept("leaf", "leaf"),
    Concept("ampere", "A"),
    Concept("in", "in", part_of_speech="preposition"),
]


@pytest.fixture(scope="module")
def words() -> EntryWords:
    return EntryWords.of(LIST)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The dog", {0: 0.9}),
        ("two Dogs", {0: 0.9}),
        ("a hound", {0: 0.25}),
        ("the bank", {1: 0.2, 2: 0.7}),
        ("some ice cream", {4: None}),
        ("ice creams", {4: None}),
        ("thick cream", {3: None}),
        ("she ran", {5: None}),
        ("the leaves", {6: None}),
        ("such a", {}),  # an article, no ampere
        ("walked in", {8: None}),
        ("a cat", {}),
        ("", {}),
    ],
)
def test_the_last_word_mentions(words: EntryWords, text: str, expected: dict[int, float | None]):
    assert words.at_end_of(text.split()) == expected


def test_a_form_of_another_part_of_speech_is_no_mention():
    """ "Running" is a form of the verb, not of a noun "run"."""
    noun = EntryWords.of([Concept("run", "run")])
    assert noun.at_end_of(["running"]) == {} and noun.at_end_of(["runs"]) == {0: None}


def test_words_come_back_from_json(words: EntryWords):
    assert EntryWords.from_json(words.as_json(), len(LIST)) == words


@pytest.mark.parametrize(
    "content",
    [{"dog": [[99, "noun", None]]}, {"dog": [[-1, "noun", None]]}, {"dog": [["x", "noun", 1.0]]}, {"dog": 5}],
)
def test_words_of_another_list_are_refused(content):
    with pytest.raises((ValueError, TypeError)):
        EntryWords.from_json(content, len(LIST))
