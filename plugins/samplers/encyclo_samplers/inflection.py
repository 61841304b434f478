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
