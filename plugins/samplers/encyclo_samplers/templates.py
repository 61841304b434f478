"""Stage 1: the concept in written templates, in groups that differ in where it stands.

The templates lie in templates.toml. A concept's prompts are drawn evenly from the groups, each template at
most once; a prompt's family is its template, such as `noun.subject.3`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from random import Random

from pydantic import BaseModel, ConfigDict, field_validator

from encyclo import hookimpl
from encyclo.types import Concept, Context, Prompt
from encyclo_samplers.inflection import inflect_noun, inflect_verb

STAGE = 1
SLOT = re.compile(r"\{(\w+)\}")


class Options(BaseModel):
    """Options of the sampler `templates`."""

    model_config = ConfigDict(extra="forbid")

    groups: list[str] = []
    """Only these groups (subject, object, preposition, quoted); none named means all."""

    @field_validator("groups")
    @classmethod
    def _known(cls, groups: list[str]) -> list[str]:
        known = list(load_templates()["noun"])
        if unknown := sorted(set(groups) - set(known)):
            raise ValueError(f"there is no group {', '.join(unknown)}; the groups are {', '.join(known)}")
        return groups


@dataclass(frozen=True)
class Template:
    """A sentence with one slot."""

    family: str
    text: str


@hookimpl
def sample_prompts(concepts: Sequence[Concept], stage: int, context: Context) -> Iterator[Prompt]:
    """Yield as many prompts a concept as the run wants, or one a template where there are fewer templates."""
    options = context.options
    assert isinstance(options, Options)
    for concept in concepts:
        wanted = context.prompts_for(concept.id)
        chosen = draw(grouped_templates(concept, options), wanted, context.random(stage, concept.id))
        for template in chosen:
            yield fill(template, concept)


def grouped_templates(concept: Concept, options: Options) -> list[list[Template]]:
    """Return the templates for the concept's part of speech (nouns' where it has none), a list a group."""
    groups = load_templates().get(concept.part_of_speech, load_templates()["noun"])
    return [templates for name, templates in groups.items() if not options.groups or name in options.groups]


@cache
def load_templates() -> dict[str, dict[str, list[Template]]]:
    """Return {part of speech: {group: templates}} as templates.toml lists them."""
    text = files("encyclo_samplers").joinpath("templates.toml").read_text(encoding="utf-8")
    return {
        part: {
            group: [Template(f"{part}.{group}.{number}", line) for number, line in lines.items()]
            for group, lines in groups.items()
        }
        for part, groups in tomllib.loads(text).items()
    }


def draw(groups: list[list[Template]], wanted: int, random: Random) -> list[Template]:
    """Draw templates, the groups in turn (in random order), without repeats; at most all of them."""
    shuffled = [random.sample(group, len(group)) for group in groups]
    random.shuffle(shuffled)
    turns = max(len(group) for group in shuffled)
    flat = [group[turn] for turn in range(turns) for group in shuffled if turn < len(group)]
    return flat[:wanted]


def fill(template: Template, concept: Concept) -> Prompt:
    """Put the concept into the template's slot; the span holds the word, without its article."""
    slot = SLOT.search(template.text)
    if slot is None:
        raise ValueError(f"template {template.family} has no slot")
    name = slot.group(1)
    article, word = slot_forms(concept)[name.lower()]
    if name[0].isupper():
        article, word = (capital(article), word) if article else ("", capital(word))
    before = template.text[: slot.start()] + article
    text = before + word + template.text[slot.end() :]
    return Prompt(concept.id, text, (len(before), len(before) + len(word)), template.family)


def slot_forms(concept: Concept) -> dict[str, tuple[str, str]]:
    """Return {slot: (article with its blank or nothing, word)} for a concept."""
    name = concept.name
    if concept.part_of_speech == "verb":
        verb = inflect_verb(name)
        return {"name": ("", name), "ing": ("", verb.ing), "past": ("", verb.past)}
    if concept.part_of_speech == "noun" and concept.countable is not False:
        noun = inflect_noun(name)
        return {
            "name": ("", name),
            "the": ("the ", name),
            "one": (f"{noun.article} ", name),
            "generic": ("", noun.plural),
        }
    if concept.part_of_speech == "adjective":
        return {"name": ("", name), "one": (f"{inflect_noun(name).article} ", name)}
    return {"name": ("", name), "the": ("the ", name), "one": ("", name), "generic": ("", name)}


def capital(text: str) -> str:
    """Return the text with a capital first letter, the rest as it is."""
    return text[:1].upper() + text[1:]
