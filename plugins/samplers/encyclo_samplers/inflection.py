"""English inflection by lemminflect's lexicon, and what it doesn't know: a noun's article."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from encyclo.english import inflections, plural


@dataclass(frozen=True)
class Noun:
    """A countable noun's indefinite article and plural."""

    article: str
    plural: str


@dataclass(frozen=True)
class Verb:
    """A verb's present participle, past tense, past participle and third person."""

    ing: str
    past: str
    done: str
    does: str


# Names of waters, lands and unions that take the article; no library knows them.
_THE = (
    "Ages Alps Antilles Army Bank Battle Bay Bible Canal Caribbean Channel Church Confederacy Crusades "
    "Desert Emirates Empire Gulf House Internet Island Islands Isle Isles Kingdom Koran Mediterranean Mountains "
    "Nations Navy Netherlands Ocean Pacific Party Peninsula Philippines Republic Renaissance Revolution River Sea "
    "Senate States Statue Strait Straits Testament Tower Union University War Wars West"
)
THE = frozenset(_THE.split())
_VOWEL_SOUND = re.compile(
    r"8|1[18](?!\d)"
    r"|[AEFHILMNORSX](?:[^a-z]|$)|[aefhilmnorsx](?:-|$)"  # a letter by its name: "an FBI agent", "an X-ray"
    r"|(?!U[-A-Z])(?i:hour|heir|honou?r|honest|y(?:cl|tt)|[ai]|o(?!n(?:c?e\b|etime))|e(?!u|we)"
    r"|u(?!-|kr|nanim|ni(?!n|d|m(?!o))|[bcfhjkqrst][aeiou]))"  # "a unit", "a user"; "an uncle", "an unimportant"
)
"""The beginning of a word that takes "an"."""


@cache
def inflect_noun(name: str) -> Noun:
    """Return article and plural of a noun or a noun compound (its last word inflects)."""
    return Noun("an" if _VOWEL_SOUND.match(name) else "a", plural(name))


@cache
def countable(name: str) -> bool | None:
    """Return whether lemminflect's lexicon has the noun with a plural of its own (True) or without one (False).

    None if it has both ("time", "times"), or does not know the word.
    """
    from lemminflect import getInflection

    last = name.rpartition(" ")[2]
    plurals = getInflection(last, "NNS", inflect_oov=False)
    if not plurals or (last in plurals and len(plurals) > 1):
        return None
    return last not in plurals


@cache
def has_plural(name: str) -> bool:
    """Return whether lemminflect's lexicon has a plural of the noun that differs from it."""
    from lemminflect import getInflection

    last = name.rpartition(" ")[2]
    return any(plural != last for plural in getInflection(last, "NNS", inflect_oov=False))


def takes_the(name: str) -> bool:
    """Return whether a name takes the article: "the Pacific Ocean", "the Gulf of Mexico"."""
    head = name.partition(" of ")[0].rpartition(" ")[2] if " of " in name else name.rpartition(" ")[2]
    return head in THE


@cache
def inflect_verb(name: str) -> Verb:
    """Return the forms of a verb or a phrasal verb (its first word inflects); of two pasts the plural one."""
    from lemminflect import getInflection

    head, blank, rest = name.partition(" ")

    def form(tag: str, ending: str) -> str:
        found = getInflection(head, tag)
        chosen = "were" if "were" in found else found[0] if found else head + ending
        return str(chosen) + blank + rest

    return Verb(form("VBG", "ing"), form("VBD", "ed"), form("VBN", "ed"), form("VBZ", "s"))


@cache
def compare(name: str) -> tuple[str, str] | None:
    """Return an adjective's comparative and superlative, if it has forms of its own ("brighter")."""
    from lemminflect import getInflection

    found = [getInflection(name, tag, inflect_oov=False) for tag in ("JJR", "JJS")]
    return (found[0][0], found[1][0]) if all(found) else None


def forms(name: str, part_of_speech: str) -> tuple[str, ...]:
    """Return the forms of a name that count as a mention in a generated sentence, itself first."""
    return inflections(name, part_of_speech, by_rule=False)
