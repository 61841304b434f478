"""English words: a concept's mention in a sentence, inflected or not, and the content words of a text."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache, lru_cache
from itertools import chain, takewhile
from typing import Any

from encyclo.types import Concept

# Function words: two texts that share only these have no content in common.
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
_TAGS = {"noun": "NOUN", "verb": "VERB", "adjective": "ADJ", "adverb": "ADV"}
_PREPOSITION = re.compile(
    r"(?<=\w)(?: (?:about|at|by|de|for|from|in|of|on|per|to|with|without) |-(?:at|in|of|to)-)"
)
_SAME_PLURAL = re.compile(
    r"(?:(?:air|hover|space|water)craft|deer|fish|offspring|salmon|trout|equipment|information|machinery)$"
)
_PLURALS = {"person": "people", "ox": "oxen", "opus": "opuses", "beef": "beefs"}
"""Plurals that lemminflect's lexicon lacks, or lists after a rarer one; so are those of _SAME_PLURAL."""
_ENDINGS = (
    (re.compile(r"(?<=\w\w)(?<!cai)man$"), "men"),
    (re.compile(r"sis$"), "ses"),
    (re.compile(r"(?<=[^\Wsiu])s$"), "s"),  # a plural already, or a name: "dregs", "Texas"
    (re.compile(r"(?<=[A-Z0-9])$"), "s"),
)
"""Endings of plurals for words that the lexicon lacks and lemminflect's rules get wrong."""
_QUALIFIER = re.compile(r"(?<=\S)\s+\([^()]*\)\s*$")


def normalised(text: str) -> str:
    """Return a text in lower case with single blanks: texts that differ only in these are equal."""
    return " ".join(text.casefold().split())


def content_stems(text: str) -> frozenset[str]:
    """Return the stems of a text's content words, or of all its words if it has no content words.

    A word counts by its own stem and by its lemmas' (Porter's English Snowball stemmer, 2001): "mice" and "mouse"
    have no stem in common. Of WordNet's 20,000 most frequent synsets, 6,744 have a definition that contains a stem of
    their name, and 5,066 one that contains a lemma: "abolition", "the act of abolishing" shares only the stem.
    """
    words = {word.casefold().removesuffix("'s").removesuffix("’s") for word in _WORD.findall(text)}
    stems = (_stems(word) for word in (words - _FUNCTION_WORDS) or words)
    return frozenset().union(*stems)


def find_mention(
    text: str,
    concept: Concept,
    *,
    by_rule: bool = True,
    any_case: bool = True,
    hyphen_joins: bool = True,
) -> tuple[int, int] | None:
    """Return the character span `[start, end)` of a text's first mention of a concept, inflected or not; or None.

    The defaults are for sentences by other authors (`pipeline.natural_sentences`, the concept list core). The contract
    of samplers also uses them, since it accepts any form that a plugin writes. The sampler `diverse` turns all three
    off for sentences that the model writes, where a wrong sentence is worse than a lost one.
    A qualifier is no part of a mention: "bank" mentions "bank (slope)".

    by_rule: also accept forms that no lexicon has (`inflections`).
    any_case: also accept a proper noun without its capitals ("turkey" mentions Turkey).
    hyphen_joins: a word inside a hyphenated word is not a mention ("time-consuming" does not mention "time"), and the
        text may have a blank where the name has a hyphen. (It may always have a hyphen where the name has a blank.)
    """
    found = _mention(
        without_qualifier(concept.name), concept.part_of_speech, by_rule, any_case, hyphen_joins
    ).search(text)
    return found.span() if found else None


@lru_cache(maxsize=4096)
def inflections(name: str, part_of_speech: str, *, by_rule: bool = True) -> tuple[str, ...]:
    """Return a name's forms, itself first: a verb's first word inflects, any other name's last.

    Without `by_rule` it returns only likely forms: of adjectives those that a lexicon has, of nouns also one plural
    (`plural`), of proper nouns and of other parts of speech none.
    """
    words = name.split()
    if not words:
        return (name,)
    if part_of_speech == "verb":
        forms = {" ".join([form, *words[1:]]) for form in _verb_forms(words[0])}
    elif by_rule:
        tag = _TAGS.get(part_of_speech, "NOUN")
        forms = {" ".join([*words[:-1], form]) for form in _lexicon_forms(words[-1], tag, by_rule=True)}
        if tag == "NOUN":  # the lexicon lacks a few plurals, such as oxen
            forms.add(plural(" ".join(words)))
            if len(forms) == 1:  # nor does it have a plural of a mass noun
                forms.add(" ".join([*words[:-1], _regular_plural(words[-1])]))
    elif part_of_speech == "noun" and not is_proper(name):
        forms = {" ".join([*words[:-1], form]) for form in _lexicon_forms(words[-1], "NOUN")}
        forms.add(plural(name))
    else:
        forms = _lexicon_forms(name, "ADJ") if part_of_speech == "adjective" else set()
    return (name, *sorted(forms - {name}))


def is_proper(name: str) -> bool:
    """Return whether a noun is a name, by its spelling: "Mount Fuji" and "DNA", not "German shepherd"."""
    last = name.rpartition(" ")[2]
    return last[:1].isupper() and not (last[1:2] == "-" and last[2:3].islower())


@cache
def plural(name: str) -> str:
    """Return the plural of a noun or a noun compound: "black holes", "pieces of work"; of a plural ("scissors")
    the name itself.
    """
    preposition = _PREPOSITION.search(name)
    end = preposition.start() if preposition else len(name)
    head, blank, last = name[:end].rpartition(" ")
    return head + blank + _plural_word(last) + name[end:]


@lru_cache(maxsize=65536)
def lemmas(word: str) -> frozenset[str]:
    """Return a word and its lemmas, as any part of speech."""
    from lemminflect import getAllLemmas

    return frozenset({word, *chain.from_iterable(getAllLemmas(word).values())})


@lru_cache(maxsize=65536)
def lemmas_by_part(word: str) -> tuple[tuple[str, str], ...]:
    """Return the word itself, as ("", word), and its lemmas, each with its part of speech: ("noun", "dog")."""
    from lemminflect import getLemma

    lower = word.lower()
    found = [("", lower)]
    for part, tag in _TAGS.items():
        found += [(part, lemma) for lemma in getLemma(lower, tag, lemmatize_oov=False) if lemma != lower]
    return tuple(found)


def is_function_word(word: str) -> bool:
    """Return whether the word is an article, a pronoun, a preposition, an auxiliary verb or the like."""
    return word.lower() in _FUNCTION_WORDS


def without_qualifier(name: str) -> str:
    """Return a name without its qualifier, brackets after a blank at the end: "bank (slope)" is mentioned as "bank".

    "f(x)" and "(slope)" have no qualifier.
    """
    return _QUALIFIER.sub("", name) if ")" in name else name


def qualifier(name: str) -> str:
    """Return the text in a name's brackets: "slope" of "bank (slope)"; "" if it has no qualifier."""
    return name[len(without_qualifier(name)) :].strip()[1:-1]


def as_word(concept: Concept) -> Concept:
    """Return the concept under the name that texts use: without its qualifier, with single blanks between words."""
    return replace(concept, name=without_qualifier(" ".join(concept.name.split())))


@lru_cache(maxsize=4096)
def _mention(
    name: str, part_of_speech: str, by_rule: bool, any_case: bool, hyphen_joins: bool
) -> re.Pattern[str]:
    forms = sorted(inflections(name, part_of_speech, by_rule=by_rule), key=len, reverse=True)
    gap, edge = (r"[\s-]+", r"[\w-]") if hyphen_joins else (r"\s+", r"\w")
    pattern = "|".join(r"[\s-]+".join(map(re.escape, re.split(gap, form))) for form in forms)
    same_case = not any_case and part_of_speech == "noun" and is_proper(name)
    return re.compile(rf"(?<!{edge})(?:{pattern})(?!{edge})", 0 if same_case else re.IGNORECASE)


def _plural_word(word: str) -> str:
    """Return a word's plural: the lexicon's first that differs from it, or by rule."""
    from lemminflect import getAllInflections, getInflection, getLemma

    if word in _PLURALS or _SAME_PLURAL.search(word):
        return _PLURALS.get(word, word)
    lemmas = getLemma(word, "NOUN", lemmatize_oov=False)
    if word.endswith("s") and lemmas and word not in lemmas:
        return word
    known = getInflection(word, "NNS", inflect_oov=False)
    names = () if known else getAllInflections(word, "PROPN").get("NNS", ())
    form = next((form for form in (*known, *names) if form != word), "")
    return form or (word if known else _regular_plural(word))


def _regular_plural(word: str) -> str:
    """Return a word's plural by rule."""
    from lemminflect import getAllInflectionsOOV

    for singular, ending in _ENDINGS:
        if singular.search(word):
            return singular.sub(ending, word)
    regular: str = getAllInflectionsOOV(word, "NOUN")["NNS"][0]
    # lemminflect's rules write everything in lower case: keep the case of the common beginning.
    pairs = zip(word.lower(), regular.lower(), strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return word[:same] + regular[same:]


def _lexicon_forms(word: str, tag: str, by_rule: bool = False) -> set[str]:
    """Return a word's forms from the lexicon; with `by_rule`, those by rule if the lexicon lacks the word."""
    from lemminflect import getAllInflections, getAllInflectionsOOV

    known = getAllInflections(word, tag) or (getAllInflectionsOOV(word, tag) if by_rule else {})
    return {form for forms in known.values() for form in forms}


def _verb_forms(word: str) -> set[str]:
    """Return a verb's forms, by rule where the lexicon lacks one ("blogged")."""
    from lemminflect import getInflection

    regular = {form for tag in ("VBG", "VBD", "VBN", "VBZ") for form in getInflection(word, tag)}
    return _lexicon_forms(word, "VERB") | regular


@lru_cache(maxsize=65536)
def _stems(word: str) -> frozenset[str]:
    return frozenset(_stemmer().stemWords(sorted(lemmas(word))))


@cache
def _stemmer() -> Any:
    import snowballstemmer

    return snowballstemmer.stemmer("english")
