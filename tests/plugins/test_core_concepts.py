"""The bundled concepts: complete, distinct, and defined in other words than their own."""

from __future__ import annotations

import re
from collections import Counter

import pytest
import snowballstemmer
from lemminflect import getAllInflections, getAllLemmas

from encyclo.errors import UsageError
from encyclo.plugins.manager import Plugins
from encyclo.types import Concept
from encyclo_concepts.core import CATEGORIES, Options, load_concepts, read_category

CONCEPTS = list(load_concepts(Options()))
BY_ID = {concept.id: concept for concept in CONCEPTS}
STEM = snowballstemmer.stemmer("english").stemWord
PLACEHOLDER = re.compile(
    r"\b(todo|tbd|fixme|xxx|lorem|placeholder|definition|foo|bar \d|concept \d)\b|\.\.\.|[<>{}\[\]?]", re.I
)


def words(text: str) -> list[str]:
    return [word.removesuffix("'s") for word in re.findall(r"[a-z]+(?:'[a-z]+)?", text.lower())]


def forms(word: str) -> set[str]:
    """Return the word's inflections, its lemmas, and their inflections."""
    found = {word}
    for lemma in {word, *(lemma for lemmas in getAllLemmas(word).values() for lemma in lemmas)}:
        found |= {lemma, *(form for forms in getAllInflections(lemma).values() for form in forms)}
    return {form.lower() for form in found}


def shared_words(concept: Concept) -> list[str]:
    """Return the definition's words that are a word of the name, inflected or derived by a suffix."""
    own = set().union(*(forms(word) for word in words(concept.name)))
    stems = {STEM(form) for form in own}
    return [word for word in words(concept.definition) if word in own or STEM(word) in stems]


def test_there_are_a_thousand_in_twenty_categories_of_fifty():
    assert len(CONCEPTS) == 1000
    assert len(CATEGORIES) == len(set(CATEGORIES)) == 20
    assert Counter(concept.category for concept in CONCEPTS) == {c.replace("_", " "): 50 for c in CATEGORIES}


def test_no_two_share_an_id_a_name_or_a_definition():
    for column in ("id", "name", "definition"):
        values = Counter(getattr(concept, column).casefold() for concept in CONCEPTS)
        assert [value for value, count in values.items() if count > 1] == []


def test_no_two_are_forms_of_one_word():
    """A singular with its plural, or a word in two spellings, would be one concept twice."""
    by_lemma = Counter((concept.part_of_speech, min(forms(concept.name))) for concept in CONCEPTS)
    assert [key for key, count in by_lemma.items() if count > 1] == []


def test_names_are_words_in_lower_case():
    odd = [c.name for c in CONCEPTS if not re.fullmatch(r"[a-z]+([ -][a-z]+)*", c.name)]
    assert odd == []


def test_definitions_are_written_out():
    for concept in CONCEPTS:
        assert len(words(concept.definition)) >= 4, concept
        assert concept.definition == concept.definition.strip(), concept
        assert concept.definition.isascii(), concept
        assert not PLACEHOLDER.search(concept.definition), concept
        assert not concept.definition.endswith("."), concept


def test_the_search_for_shared_words_finds_them():
    for name, definition in [
        ("mouse", "what mice are"),
        ("run", "running fast"),
        ("self-awareness", "being aware of oneself, or awareness"),
        ("prime number", "one of the numbers that"),
        ("happiness", "being happy"),
    ]:
        assert shared_words(Concept(name, name, definition)), name
    assert shared_words(Concept("dog", "dog", "a tame animal that barks")) == []


def test_no_definition_uses_a_word_of_its_name():
    assert {c.name: found for c in CONCEPTS if (found := shared_words(c))} == {}


def test_every_broader_concept_is_in_the_list_and_none_goes_in_a_circle():
    for concept in CONCEPTS:
        above = [concept.id]
        while (broader := BY_ID[above[-1]].broader) is not None:
            assert broader in BY_ID, concept
            assert broader not in above, f"{concept.id} goes in a circle: {above}"
            above.append(broader)


def test_broader_concepts_are_used_throughout():
    with_broader = sum(concept.broader is not None for concept in CONCEPTS)
    assert with_broader > 500
    assert all(BY_ID[c.broader].part_of_speech == c.part_of_speech for c in CONCEPTS if c.broader)


def test_parts_of_speech_are_those_that_the_templates_know():
    found = Counter(concept.part_of_speech for concept in CONCEPTS)
    assert found.keys() == {"noun", "verb", "adjective"}
    assert min(found.values()) >= 30


def test_nouns_and_only_nouns_say_whether_they_are_countable():
    for concept in CONCEPTS:
        assert (concept.countable is None) == (concept.part_of_speech != "noun"), concept


def test_verbs_and_adjectives_are_in_their_base_form():
    for concept in CONCEPTS:
        lemmas = getAllLemmas(concept.name)
        if concept.name == "turquoise":
            assert not lemmas  # the lexicon lacks it
        elif concept.part_of_speech == "verb":
            assert concept.name in lemmas.get("VERB", ()), concept
        elif concept.part_of_speech == "adjective":
            participle = "VERB" in lemmas and concept.name.endswith(("ed", "ing"))  # "deafening"
            assert participle or concept.name in lemmas.get("ADJ", ()), concept


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_categorys_file_has_its_fifty(category):
    concepts = read_category(category)
    assert len(concepts) == 50
    assert {concept.category for concept in concepts} == {category.replace("_", " ")}


def test_a_small_limit_spans_all_categories():
    assert len({concept.category for concept in CONCEPTS[:20]}) == 20
    assert len({concept.category for concept in CONCEPTS[20:40]}) == 20


def test_the_order_is_fixed():
    assert list(load_concepts(Options())) == CONCEPTS


def test_categories_can_be_chosen():
    chosen = list(load_concepts(Options(categories=["emotions", "animals"])))
    assert {concept.category for concept in chosen} == {"emotions", "animals"}
    assert len(chosen) == 100


def test_an_unknown_category_is_refused_listing_the_known_ones():
    with pytest.raises(UsageError) as caught:
        Plugins().options("core", {"categories": ["animals", "planets"]})
    assert "planets" in str(caught.value)
    assert all(category in str(caught.value) for category in CATEGORIES)
