"""English inflection, by the libraries that know it: `inflect` for articles and plurals, `lemminflect` for
verbs and for the plurals that go by no rule.
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
    """A verb's present participle and past tense."""

    ing: str
    past: str


@cache
def inflect_noun(name: str) -> Noun:
    """Return article and plural of a noun or a noun compound (its last word inflects)."""
    from lemminflect import getInflection, getLemma

    from lemminflect import getInflection

    engine = _engine()
    head = name.split()[-1]
    # inflect knows nouns that don't change (sheep, salmon); lemminflect is right more often on the others.
    forms = getInflection(head, "NNS")
    plural = head if engine.plural_noun(head) == head or not forms else forms[0]
    return Noun(engine.a(name).split(" ", 1)[0], name[: len(name) - len(head)] + plural)


@cache
def inflect_verb(name: str) -> Verb:
    """Return the participle and past of a verb or a phrasal verb (its first word inflects)."""
    from lemminflect import getInflection

    head, blank, rest = name.partition(" ")
    ing, past = (getInflection(head, tag) for tag in ("VBG", "VBD"))
    return Verb(
        (ing[0] if ing else head + "ing") + blank + rest, (past[0] if past else head + "ed") + blank + rest
    )


@cache
def _engine() -> Any:
    import inflect

    return inflect.engine()
