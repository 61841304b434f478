"""Mentions of concepts, inflected or not, and content words."""

from __future__ import annotations

import pytest

from encyclo.english import (
    as_word,
    content_stems,
    find_mention,
    inflections,
    normalised,
    qualifier,
    without_qualifier,
)
from encyclo.types import Concept


def mention(text: str, name: str, part: str = "noun") -> str | None:
    span = find_mention(text, Concept(id="x", name=name, part_of_speech=part))
    return text[slice(*span)] if span else None


@pytest.mark.parametrize(
    ("text", "name", "part", "found"),
    [
        ("The dog barked.", "dog", "noun", "dog"),
        ("Dogs bark.", "dog", "noun", "Dogs"),
        ("Three mice ran.", "mouse", "noun", "mice"),
        ("He ran home.", "run", "verb", "ran"),
        ("They gave up.", "give up", "verb", "gave up"),
        ("Bigger is better.", "big", "adjective", "Bigger"),
        ("He ate ice-cream.", "ice cream", "noun", "ice-cream"),
        ("Two ice  creams.", "ice cream", "noun", "ice  creams"),
        ("Three flights of stairs", "flight of stairs", "noun", "flights of stairs"),
        ("The bank of a river", "bank (slope)", "noun", "bank"),
        ("A dog's life", "dog", "noun", "dog"),
        ("The doghouse burnt.", "dog", "noun", None),
        ("A time-consuming job", "time", "noun", None),
        ("He was dogged.", "dog", "noun", None),
        ("", "dog", "noun", None),
        ("C++ is a language (c).", "C++", "noun", "C++"),
    ],
)
def test_a_mention_is_found_in_any_form_and_only_as_a_word(text, name, part, found):
    assert mention(text, name, part) == found


@pytest.mark.parametrize(
    ("rule", "text", "name", "part", "found"),
    [
        ("by_rule", "Bacons sizzled.", "bacon", "noun", "Bacons"),
        ("by_rule", "The muffledest cry.", "muffled", "adjective", "muffledest"),
        ("any_case", "A turkey crossed the road.", "Turkey", "noun", "turkey"),
    ],
)
def test_each_rule_can_be_turned_off(rule, text, name, part, found):
    concept = Concept("x", name, part_of_speech=part)
    strict = {"by_rule": False, "any_case": False, "hyphen_joins": False}
    assert find_mention(text, concept, **strict) is None
    start, end = find_mention(text, concept, **{**strict, rule: True})
    assert text[start:end] == found


@pytest.mark.parametrize(
    ("name", "word", "brackets"),
    [
        ("bank (slope)", "bank", "slope"),
        ("bank (slope) ", "bank", "slope"),
        ("bank (river) (slope)", "bank (river)", "slope"),
        ("bank (slope) side", "bank (slope) side", ""),
        ("(slope)", "(slope)", ""),
        ("f(x)", "f(x)", ""),
        ("bank", "bank", ""),
    ],
)
def test_only_brackets_at_the_end_are_a_qualifier(name, word, brackets):
    assert (without_qualifier(name), qualifier(name)) == (word, brackets)
    assert as_word(Concept("x", f" {name}")).name == word
    assert mention(f"We saw {word}.", name, "noun") == word or word == "(slope)"


def test_a_hyphen_joins_words_or_parts_them():
    time, shirt = Concept("x", "time"), Concept("y", "t-shirt")
    assert find_mention("A time-consuming job", time, hyphen_joins=False) == (2, 6)
    assert find_mention("A time-consuming job", time) is None
    assert find_mention("A t shirt", shirt) == (2, 9)
    assert find_mention("A t shirt", shirt, hyphen_joins=False) is None


def test_a_verb_has_the_forms_that_the_lexicon_lacks():
    assert {"blogs", "blogged", "blogging"} <= set(inflections("blog", "verb"))


def test_the_first_form_is_the_name_itself():
    assert inflections("ox", "noun")[0] == "ox"
    assert "oxen" in inflections("ox", "noun")
    assert inflections("", "noun") == ("",)


def test_stems_join_the_forms_of_a_word_and_leave_function_words_out():
    assert content_stems("the mice") & content_stems("of a mouse")
    assert content_stems("running") & content_stems("he ran")
    assert not content_stems("the dog of the house") & content_stems("one of the other cats")
    assert content_stems("fire's") == content_stems("fires")


def test_a_name_of_function_words_alone_keeps_them():
    assert content_stems("up") == {"up"}


def test_case_and_blanks_make_no_other_text():
    assert normalised(" A  Dog\n") == normalised("a dog")
