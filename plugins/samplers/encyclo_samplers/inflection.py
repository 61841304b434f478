"""English inflection, by the libraries that know it: `inflect` for articles and plurals, `lemminflect` for
verbs, adjectives and the plurals that go by no rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any


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


@cache
def inflect_noun(name: str) -> Noun:
    """Return article and plural of a noun or a noun compound (its last word inflects)."""
    from lemminflect import getInflection, getLemma

    engine = _engine()
    article = engine.a(name).split(" ", 1)[0]
    head, blank, last = name.rpartition(" ")
    lemmas = getLemma(last, "NOUN", lemmatize_oov=False)
    if last.endswith("s") and lemmas and last not in lemmas:
        return Noun(article, name)  # a plural already ("scissors") stays as it is
    plural = engine.plural_noun(name)
    # inflect goes by rules and invents "thiefs" and "monarches": there a form from a lexicon is better. Its
    # irregular plurals (people, sheep, mothers-in-law) stand.
    known = getInflection(last, "NNS", inflect_oov=False)
    if plural.endswith("s") and known and plural.rpartition(" ")[2] not in known:
        plural = head + blank + known[0]
    return Noun(article, plural)


@cache
def countable(name: str) -> bool | None:
    """Return whether lemminflect's lexicon has the noun with a plural of its own (True) or without one (False).

    None where it has both ("time", "times"), or does not know the word.
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


def is_proper(name: str) -> bool:
    """Return whether a noun is a name, by its spelling: "Mount Fuji" and "DNA", not "German shepherd"."""
    last = name.rpartition(" ")[2]
    return last[:1].isupper() and not (last[1:2] == "-" and last[2:3].islower())


def takes_the(name: str) -> bool:
    """Return whether a name stands with the article: "the Pacific Ocean", "the Gulf of Mexico"."""
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
    """Return an adjective's comparative and superlative where it has forms of its own ("brighter")."""
    from lemminflect import getInflection

    found = [getInflection(name, tag, inflect_oov=False) for tag in ("JJR", "JJS")]
    return (found[0][0], found[1][0]) if all(found) else None


@cache
def forms(name: str, part_of_speech: str) -> tuple[str, ...]:
    """Return every form of the name by which a text may mention it, itself first."""
    from lemminflect import getAllInflections

    if part_of_speech == "verb":
        head, blank, rest = name.partition(" ")
        verb = inflect_verb(name)
        found = {verb.ing, verb.past, verb.done, verb.does}
        found |= {w + blank + rest for ws in getAllInflections(head, "VERB").values() for w in ws}
    elif part_of_speech == "noun" and not is_proper(name):
        found = {inflect_noun(name).plural}
        head, blank, last = name.rpartition(" ")
        found |= {head + blank + w for ws in getAllInflections(last, "NOUN").values() for w in ws}
    else:
        found = set(compare(name) or ()) if part_of_speech == "adjective" else set()
    return (name, *sorted(found - {name}))


@cache
def _engine() -> Any:
    import inflect

    return inflect.engine()
