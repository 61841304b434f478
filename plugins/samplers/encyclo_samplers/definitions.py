"""Prompts that describe a concept without naming it, by its definition, category and broader concept."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from random import Random

from encyclo.types import Concept, Prompt
from encyclo_samplers.descriptions import nameless_definition, names
from encyclo_samplers.templates import SLOT, Template, capital, draw, packaged

FILE = "definitions.toml"
# WordNet's lexicographer files without a common subject.
NO_SUBJECTS = ("all", "pert", "ppl", "tops")


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


def _fits(frame: Template, values: dict[str, str]) -> bool:
    return all(slot.lower() in values for slot in SLOT.findall(frame.text))


def _fill(frame: Template, values: dict[str, str]) -> str:
    def value(slot: re.Match[str]) -> str:
        name = slot.group(1)
        return capital(values[name.lower()]) if name[0].isupper() else values[name]

    return SLOT.sub(value, frame.text)
