"""Stage 1: the concept in written templates, grouped by its position in the sentence.

The templates are in templates.toml. A concept's prompts are drawn evenly from the groups, each template at most once.
The group `sense` is only for a concept whose name has a qualifier, as in "bank (slope)": its templates say what settles
the sense before the mention. A prompt's family is its template, such as `noun.subject.3`. Some prompts mention the
concept by an alias.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from random import Random

from pydantic import BaseModel, ConfigDict, field_validator

from encyclo import hookimpl
from encyclo.english import as_word, is_proper, qualifier
from encyclo.types import Concept, Context, Prompt
from encyclo_samplers import alias_mentions
from encyclo_samplers.alias_mentions import alias_or_name
from encyclo_samplers.descriptions import sense_values
from encyclo_samplers.inflection import (
    compare,
    countable,
    has_plural,
    inflect_noun,
    inflect_verb,
    takes_the,
)

STAGE = 1
ENOUGH = 10
"""With this many templates that settle its sense, a concept that shares its word uses only these."""
FILE = "templates.toml"
SLOT = re.compile(r"\{(\w+)\}")
OPTIONAL = ("inflected", "sense")
"""Groups that fit only some concepts."""


class Options(BaseModel):
    """Options of the sampler `templates`."""

    model_config = ConfigDict(extra="forbid")

    groups: list[str] = []
    """Only these groups (subject, middle, end, object, preposition, quoted, list, inflected, sense); none means all."""

    @field_validator("groups")
    @classmethod
    def _known(cls, groups: list[str]) -> list[str]:
        known = list(load_templates()["noun"])
        if unknown := sorted(set(groups) - set(known)):
            raise ValueError(f"there is no group {', '.join(unknown)}; use some of {', '.join(known)}")
        return groups


@dataclass(frozen=True)
class Template:
    """A sentence with a slot for the concept, the last of its slots."""

    family: str
    text: str

    @property
    def slot(self) -> re.Match[str]:
        """The concept's slot in the text. Raises ValueError if there is none."""
        *_, found = SLOT.finditer(self.text) or [None]
        if found is None:
            raise ValueError(f"template {self.family} has no slot")
        return found


@hookimpl
def sample_prompts(concepts: Sequence[Concept], stage: int, context: Context) -> Iterator[Prompt]:
    """Yield the requested number of prompts per concept, or one per template if there are fewer templates."""
    options = context.options
    assert isinstance(options, Options)
    for given in concepts:
        random = context.random(stage, given.id)
        chosen = draw(grouped_templates(given, options), context.prompts_for(given.id), random)
        yield from fill_all(chosen, as_word(given), random)


def grouped_templates(concept: Concept, options: Options) -> list[list[Template]]:
    """Return the templates that fit the concept, one list per group.

    Proper names have their own templates. A part of speech that templates.toml lacks uses the nouns' templates.
    """
    word = as_word(concept)
    groups = dict(load_templates()[kind_of(word)])
    groups["sense"] = settling(groups["sense"], concept) if qualifier(" ".join(concept.name.split())) else []
    fitting = {name: fitting_templates(group, word) for name, group in groups.items()}
    wanted = options.groups or (["sense"] if len(fitting["sense"]) >= ENOUGH else fitting)
    chosen = [group for name, group in fitting.items() if group and name in wanted]
    # A concept may have no inflected forms and no qualifier; it then uses the other groups.
    return chosen or [group for name, group in fitting.items() if group and name not in OPTIONAL]


def settling(group: Sequence[Template], concept: Concept) -> list[Template]:
    """Return the templates of the group `sense` with the values that settle the concept's sense, if it has them."""
    values = sense_values(concept)
    settled = []
    for template in group:
        start = template.slot.start()
        before = template.text[:start]
        if {match[1] for match in SLOT.finditer(before)} <= values.keys():
            settled.append(Template(template.family, put(before, values) + template.text[start:]))
    return settled


def put(text: str, values: Mapping[str, str]) -> str:
    """Return the text with its slots filled. Values are data: they are never searched for slots."""
    return SLOT.sub(lambda match: values[match[1]], text)


def kind_of(concept: Concept) -> str:
    """Return the table of templates.toml (and diverse.toml) that fits the concept."""
    if concept.part_of_speech == "noun" and is_proper(concept.name):
        return "name"
    known = load_templates()
    return concept.part_of_speech if concept.part_of_speech in known else "noun"


def fitting_templates(group: Sequence[Template], concept: Concept) -> list[Template]:
    """Return the templates for whose slot the concept has a form."""
    slots = slot_forms(concept)
    return [template for template in group if template.slot[1].lower() in slots]


@cache
def load_templates(file: str = FILE) -> dict[str, dict[str, list[Template]]]:
    """Return {part of speech: {group: templates}} in the order of a packaged file."""
    return {
        part: {
            group: [Template(f"{part}.{group}.{number}", line) for number, line in lines.items()]
            for group, lines in groups.items()
        }
        for part, groups in tomllib.loads(packaged(file)).items()
    }


def packaged(file: str) -> str:
    """Return the text of one of this package's files."""
    return files("encyclo_samplers").joinpath(file).read_text(encoding="utf-8")


def draw(groups: list[list[Template]], wanted: int, random: Random) -> list[Template]:
    """Draw at most `wanted` templates without repeats, from the groups in turn, in random order."""
    shuffled = [random.sample(group, len(group)) for group in groups]
    random.shuffle(shuffled)
    turns = max(len(group) for group in shuffled)
    flat = [group[turn] for turn in range(turns) for group in shuffled if turn < len(group)]
    return flat[:wanted]


def fill_all(templates: Sequence[Template], concept: Concept, random: Random) -> Iterator[Prompt]:
    """Put the concept into each template, some times under an alias, if the alias has the form for the slot.

    A template that settles the sense may have the alias already.
    """
    for template in templates:
        word = alias_or_name(concept, random)
        fits = kind_of(word) == kind_of(concept) and fitting_templates([template], word)
        said = word.name.casefold() in template.text.casefold()
        yield fill(template, word if fits and not said else concept)


def fill(template: Template, concept: Concept) -> Prompt:
    """Put the concept into the template's slot; the prompt's span is the word without its article."""
    slot = template.slot
    article, word = written_form(concept, slot[1])
    before = template.text[: slot.start()] + article
    text = before + word + template.text[slot.end() :]
    return Prompt(concept.id, text, (len(before), len(before) + len(word)), template.family)


def written_form(concept: Concept, slot: str) -> tuple[str, str]:
    """Return (article with a trailing blank or "", word) in the slot's case: {the}, {The} or {THE}.

    A missing form, such as a proper name's plural, is the plain name.
    """
    article, word = slot_forms(concept).get(slot.lower(), ("", concept.name))
    if slot.isupper():
        return article.upper(), word.upper()
    if slot[0].isupper():
        return (capital(article), word) if article else ("", capital(word))
    return article, word


def slot_forms(concept: Concept) -> dict[str, tuple[str, str]]:
    """Return {slot: (article with a trailing blank or "", word)} for the concept's forms."""
    name = concept.name
    bare = ("", name)
    if concept.part_of_speech == "verb":
        verb = inflect_verb(name)
        return {"name": bare, **{slot: ("", getattr(verb, slot)) for slot in ("ing", "past", "done", "does")}}
    if concept.part_of_speech == "adjective":
        degrees = zip(("more", "most"), compare(name) or (), strict=False)
        article = f"{inflect_noun(name).article} "
        return {"name": bare, "one": (article, name), **{slot: ("", form) for slot, form in degrees}}
    if concept.part_of_speech != "noun":
        return {"name": bare, "one": bare, "generic": bare, "the": ("the ", name)}
    if is_proper(name):
        return {"name": bare, "the": ("the " if takes_the(name) else "", name)}
    return _noun_forms(concept)


def _noun_forms(concept: Concept) -> dict[str, tuple[str, str]]:
    name, known = concept.name, concept.countable
    noun = inflect_noun(name)
    always = {"name": ("", name), "the": ("the ", name)}
    counts = countable(name) if known is None else known
    if counts is None:
        # Sometimes countable ("time") or unknown to the lexicon: a definite article is always right.
        if not has_plural(name):
            return {**always, "one": ("the ", name), "generic": ("the ", name)}
        return {**always, "one": ("the ", name), "generic": ("", noun.plural), "plural": ("", noun.plural)}
    if not counts:
        return {**always, "one": ("", name), "generic": ("", name)}
    generic = ("", noun.plural)
    # "scissors" is already a plural: no article.
    one = ("", name) if noun.plural == name and name.endswith("s") else (f"{noun.article} ", name)
    return {**always, "one": one, "generic": generic, "plural": generic}


def fingerprint(*texts: str) -> str:
    """Return a hash of a sampler's text files, which determine its prompts like its code."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def capital(text: str) -> str:
    """Return the text with a capital first letter; the rest is unchanged."""
    return text[:1].upper() + text[1:]


FINGERPRINT = fingerprint(packaged(FILE), alias_mentions.FINGERPRINT)
