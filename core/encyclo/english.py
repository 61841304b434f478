"""English words: a concept's mention in a sentence, inflected or not, and the content words of a text."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Any

from encyclo.types import Concept

# Words that hold a sentence together: two texts that share only these share nothing.
_LISTED = """a an the this that these those some any each every no none all both either neither such same other another
    i me my you your he him his she her it its we us our they them their who whom whose which what one ones oneself
    someone something anyone anything itself himself herself themselves and or but nor so yet if then than as
    because while when where how why whether though although since until unless of in on at by for with from to
    into onto upon over under above below between among through during before after about against without within
    along across toward towards near off out up down around via per be is are was were been being am do does did
    done doing have has had having will would shall should may might must can could not very more most less least
    much many few only also too just even there here etc eg ie"""
_FUNCTION_WORDS = frozenset(_LISTED.split())
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_PARTS = {"noun": "NOUN", "verb": "VERB", "adjective": "ADJ", "adverb": "ADV"}
_QUALIFIER = re.compile(r"\s*\([^()]*\)\s*$")


def normalised(text: str) -> str:
    """Return a text without what doesn't make it another text: case and blanks."""
    return " ".join(text.casefold().split())


def content_stems(text: str) -> frozenset[str]:
    """Return the stems of a text's content words; of all its words where it has no other.

    A word counts by its own stem and by its lemmas' (Porter's English Snowball stemmer, 2001): "mice" and "mouse"
    have no stem in common.
    """
    words = {word.casefold().removesuffix("'s").removesuffix("’s") for word in _WORD.findall(text)}
    stems = (_stems(word) for word in (words - _FUNCTION_WORDS) or words)
    return frozenset().union(*stems)


def find_mention(text: str, concept: Concept) -> tuple[int, int] | None:
    """Return the character span `[start, end)` where a text mentions a concept by its name, inflected or not.

    None where it doesn't. A word inside a hyphenated one is no mention of its own.
    """
    found = _mention(_QUALIFIER.sub("", concept.name), concept.part_of_speech).search(text)
    return found.span() if found else None


def inflections(name: str, part_of_speech: str) -> list[str]:
    """Return a name's forms, itself first: a verb's first word inflects, any other name's last."""
    from lemminflect import getAllInflections, getAllInflectionsOOV

    words = name.split()
    if not words:
        return [name]
    place = 0 if part_of_speech == "verb" else -1
    tag = _PARTS.get(part_of_speech, "NOUN")
    known = getAllInflections(words[place], tag) or getAllInflectionsOOV(words[place], tag)
    forms = {name: None}
    for _, variants in sorted(known.items()):
        for variant in variants:
            forms[" ".join([variant, *words[1:]] if place == 0 else [*words[:-1], variant])] = None
    if tag == "NOUN":  # the lexicon lacks a few plurals, such as oxen
        forms[_plural(" ".join(words))] = None
    return list(forms)


@lru_cache(maxsize=4096)
def _mention(name: str, part_of_speech: str) -> re.Pattern[str]:
    forms = sorted(inflections(name, part_of_speech), key=len, reverse=True)
    patterns = (r"[\s-]+".join(map(re.escape, re.split(r"[\s-]+", form))) for form in forms)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(patterns)})(?![\w-])", re.IGNORECASE)


@lru_cache(maxsize=65536)
def _stems(word: str) -> frozenset[str]:
    from lemminflect import getAllLemmas

    lemmas = {lemma for found in getAllLemmas(word).values() for lemma in found}
    return frozenset(_stemmer().stemWords(sorted({word, *lemmas})))


def _plural(name: str) -> str:
    """Return a noun's plural by rule; the name itself where there is none. The name holds a word."""
    return str(_engine().plural_noun(name) or name)


@cache
def _engine() -> Any:
    import inflect

    return inflect.engine()


@cache
def _stemmer() -> Any:
    import snowballstemmer

    return snowballstemmer.stemmer("english")
