"""What a list says of a concept without naming it: its definition, what it belongs to, its synonyms."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from encyclo.english import as_word, lemmas, qualifier
from encyclo.types import Concept

WORD = re.compile(r"[^\W_]+")
FEWEST_WORDS = 2
"""A definition with fewer content words says too little."""
_STOP_WORDS = (
    "a an and as at be by for from in into is it its of off on one or out over someone something that the this "
    "to up with"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())
COMMON_LETTERS = 5
"""Two words are related if they share all but two of the shorter one's letters from the start, and at least this
many ("science", "scientific")."""
BRACKETS = re.compile(r"\s*\([^()]*\)")
NUMBER = re.compile(r" \d+$")


def sense_values(concept: Concept) -> dict[str, str]:
    """Return what settles a concept's sense: `definition` (a short one), `topic`, `synonym`, as far as they are known.

    The topic is the broader concept or else the qualifier of the name, if this is no category and no number. No value
    has a word of the name.
    """
    word = replace(as_word(concept), aliases=())
    definition = BRACKETS.sub("", nameless_definition(word).split(";")[0]).strip(" ,:")
    about = NUMBER.sub("", qualifier(" ".join(concept.name.split())))
    topics = (concept.broader_name, "" if about == concept.category else about)
    values = {
        "definition": definition if len(definition.split()) >= FEWEST_WORDS else "",
        "topic": next((topic for topic in topics if topic and not names(word, topic)), ""),
        "synonym": next((alias for alias in concept.aliases if not names(word, alias)), ""),
    }
    return {slot: value for slot, value in values.items() if value}


def nameless_definition(concept: Concept) -> str:
    """Return the semicolon-separated parts of the definition that don't name the concept; "" if too little is left."""
    parts = [" ".join(part.split()).rstrip(".") for part in concept.definition.split(";")]
    definition = "; ".join(part for part in parts if part and not names(concept, part))
    content_words = [word for word in WORD.findall(definition.lower()) if word not in STOP_WORDS]
    return definition if len(content_words) >= FEWEST_WORDS else ""


def names(concept: Concept, text: str) -> bool:
    """Return whether a text contains a content word of the concept's name or aliases, also inflected or derived."""
    every_name = (concept.name, *concept.aliases, *concept.held_out_aliases)
    name_words = {w for name in every_name for w in _content_words(name)}
    # If a name consists of stop words ("to be"), search all words.
    words = WORD.findall(text.lower()) if name_words & STOP_WORDS else _content_words(text)
    return any(_related(word, name_word) for word in words for name_word in name_words)


def _content_words(text: str) -> Sequence[str]:
    words = [word.lower() for word in WORD.findall(text)]
    return [word for word in words if word not in STOP_WORDS] or words


def _related(one: str, other: str) -> bool:
    if lemmas(one) & lemmas(other):
        return True
    needed = max(COMMON_LETTERS, min(len(one), len(other)) - 2)
    return one[:needed] == other[:needed] and min(len(one), len(other)) >= needed
