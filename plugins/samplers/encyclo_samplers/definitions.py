"""Prompts that describe a concept without naming it, by its definition, category and broader concept."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from functools import cache
from random import Random

from encyclo.english import lemmas
from encyclo.types import Concept, Prompt
from encyclo_samplers.templates import SLOT, Template, capital, draw, packaged

FILE = "definitions.toml"
WORD = re.compile(r"[^\W_]+")
FEWEST_WORDS = 2
"""A definition with fewer content words says too little."""
_STOP_WORDS = (
    "a an and as at be by for from in into is it its of off on one or out over someone something that the this "
    "to up with"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())
# WordNet's lexicographer files without a common subject.
NO_SUBJECTS = ("all", "pert", "ppl", "tops")
COMMON_LETTERS = 5
"""Two words are related if they share all but two of the shorter one's letters from the start, and at least this
many ("science", "scientific")."""


def describe(concept: Concept, wanted: int, random: Random) -> list[Prompt]:
    """Return at most `wanted` prompts that don't name the concept; none without a usable definition."""
    definition = nameless_definition(concept)
    if not definition or wanted <= 0:
        return []
    values = {"definition": definition}
    broader = {"noun": "broader", "verb": "act"}.get(concept.part_of_speech, "")
    for slot, value in (("category", subject(concept.category)), (broader, concept.broader_name)):
        if slot and value and not names(concept, value):
            values[slot] = value
    groups = [
        [frame for frame in frames if _fits(frame, values) and not names(concept, SLOT.sub("", frame.text))]
        for frames in load_frames().values()
    ]
    chosen = draw([group for group in groups if group], wanted, random)
    return [Prompt(concept.id, _fill(frame, values), None, frame.family) for frame in chosen]


def subject(category: str) -> str:
    """Return a category's subject: "artifact" for WordNet's "noun.artifact", "" for "adj.all"."""
    part, dot, rest = category.partition(".")
    return "" if dot and rest.lower() in NO_SUBJECTS else rest if dot else part


@cache
def load_frames() -> dict[str, list[Template]]:
    """Return {group: frames} as definitions.toml lists them."""
    return {
        group: [Template(f"{group}.{number}", text) for number, text in lines.items()]
        for group, lines in tomllib.loads(packaged(FILE)).items()
    }


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


def _fits(frame: Template, values: dict[str, str]) -> bool:
    return all(slot.lower() in values for slot in SLOT.findall(frame.text))


def _content_words(text: str) -> Sequence[str]:
    words = [word.lower() for word in WORD.findall(text)]
    return [word for word in words if word not in STOP_WORDS] or words


def _related(one: str, other: str) -> bool:
    if lemmas(one) & lemmas(other):
        return True
    needed = max(COMMON_LETTERS, min(len(one), len(other)) - 2)
    return one[:needed] == other[:needed] and min(len(one), len(other)) >= needed


def _fill(frame: Template, values: dict[str, str]) -> str:
    def value(slot: re.Match[str]) -> str:
        name = slot.group(1)
        return capital(values[name.lower()]) if name[0].isupper() else values[name]

    return SLOT.sub(value, frame.text)
