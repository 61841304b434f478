"""English inflection, by the libraries that know it: `inflect` for nouns, `lemminflect` for verbs."""

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
    """A verb's present participle and past tense."""

    ing: str
    past: str


@cache
def inflect_noun(name: str) -> Noun:
    """Return article and plural of a noun or a noun compound (its last word inflects)."""
    engine = _engine()
    article = engine.a(name).split(" ", 1)[0]
    # A name that is a plural already ("scissors") stays as it is.
    plural = name if engine.singular_noun(name) and name.endswith("s") else engine.plural_noun(name)
    return Noun(article, plural)


@cache
def inflect_verb(name: str) -> Verb:
    """Return the participle and past of a verb or a phrasal verb (its first word inflects)."""
    from lemminflect import getInflection

    head, blank, rest = name.partition(" ")
    ing, past = (getInflection(head, tag) for tag in ("VBG", "VBD"))
    return Verb((ing[0] if ing else head + "ing") + blank + rest, (past[0] if past else head + "ed") + blank + rest)


@cache
def _engine() -> Any:
    import inflect

    return inflect.engine()
