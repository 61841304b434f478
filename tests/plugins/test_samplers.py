"""The samplers raw and templates, over all bundled concepts."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path

import pytest
from lemminflect import getAllInflections, getAllLemmas

from encyclo.errors import UsageError
from encyclo.plugins.manager import Plugins
from encyclo.types import Concept, Context, Prompt
from encyclo_concepts import core
from encyclo_samplers import raw, templates
from encyclo_samplers.descriptions import sense_values
from encyclo_samplers.inflection import Verb, compare, inflect_noun, inflect_verb
from encyclo_samplers.templates import Options, Template, fill, load_templates, sample_prompts

CONCEPTS = list(core.load_concepts(core.Options()))
DOG = Concept("dog", "dog", countable=True)
WATER = Concept("water", "water", countable=False)
RUN = Concept("run", "run", part_of_speech="verb")
ODD = Concept("odd", "odd", part_of_speech="adjective")
PARTS = ("noun", "verb", "adjective")
TABLES = ("noun", "name", "verb", "adjective", "adverb")
GROUPS = ("subject", "middle", "end", "object", "preposition", "quoted", "list", "inflected")
CONSONANT_SOUND = re.compile(r"(?:uni|use|util|eu|ewe|one|once|ubi)")
SILENT_H = re.compile(r"(?:hour|honou?r|honest|heir)")


def context(wanted: int = 10, seed: int = 0, **options) -> Context:
    return Context(seed, "cpu", Options(**options), Path(), prompts_wanted=wanted)


def drawn(concepts: list[Concept], stage: int = 1, **how) -> list[Prompt]:
    return list(sample_prompts(concepts, stage, context(**how)))


def of(prompts: list[Prompt], concept: str) -> list[Prompt]:
    return [prompt for prompt in prompts if prompt.concept == concept]


def mention(prompt: Prompt) -> str:
    start, end = prompt.span
    return prompt.text[start:end]


def inflections(word: str) -> set[str]:
    """Return the word's forms by lemminflect; regular ones where its lexicon lacks the word."""
    found = {word, *(form for forms in getAllInflections(word).values() for form in forms)}
    found |= {"people"} if word == "person" else set()  # lemminflect has "persons" alone
    return found if getAllLemmas(word) else found | {word + "s"}


def right_article(word: str) -> str:
    vowel = word[0] in "aeiou" and not CONSONANT_SOUND.match(word)
    return "an" if vowel or SILENT_H.match(word) else "a"


ALL = drawn(CONCEPTS, wanted=1000)


def test_raw_is_the_name_and_nothing_else():
    (prompt,) = raw.sample_prompts([dataclasses.replace(DOG, name=" guide dog\n")])
    assert prompt == Prompt("dog", "guide dog", (0, 9), "raw")


def test_raw_leaves_the_qualifier_out():
    (prompt,) = raw.sample_prompts([BANK])
    assert prompt == Prompt("bank", "bank", (0, 4), "raw")


def test_raw_has_one_prompt_a_concept_in_order():
    prompts = list(raw.sample_prompts(CONCEPTS))
    assert [prompt.concept for prompt in prompts] == [concept.id for concept in CONCEPTS]
    assert all(mention(prompt) == prompt.text == BY_NAME[prompt.concept] for prompt in prompts)


BY_NAME = {concept.id: concept.name for concept in CONCEPTS}


def test_the_samplers_stages():
    assert (raw.STAGE, templates.STAGE) == (0, 1)


def test_the_tables():
    assert tuple(load_templates()) == TABLES


@pytest.mark.parametrize("part", TABLES)
def test_a_part_of_speech_has_enough_templates_in_its_groups(part):
    groups = load_templates()[part]
    assert tuple(groups) == (*(GROUPS if part in PARTS else GROUPS[:-1]), "sense")
    assert sum(len(group) for group in groups.values()) >= (40 if part in PARTS else 20)
    every = [template for group in groups.values() for template in group]
    assert len({template.text for template in every}) == len(every)
    assert len({template.family for template in every}) == len(every)


@pytest.mark.parametrize("part", TABLES)
def test_every_template_is_a_sentence_with_one_known_slot(part):
    known = {
        "noun": {"one", "generic", "the", "name", "plural"},
        "name": {"the", "name"},
        "verb": {"name", "ing", "past", "done", "does"},
        "adjective": {"name", "one", "more", "most"},
        "adverb": {"name"},
    }
    for name, group in load_templates()[part].items():
        for template in group:
            *settling, slot = re.findall(r"\{(.*?)\}", template.text)
            assert len(settling) == (name == "sense"), template
            assert set(settling) <= {"definition", "topic", "synonym"}, template
            assert slot.lower() in known[part], template
            assert template.text.startswith(f"{{{slot}}}") <= slot[0].isupper(), template
            assert template.text[-1] in ".?", template


@pytest.mark.parametrize("part", TABLES)
def test_the_groups_say_where_the_concept_stands(part):
    for group, every in load_templates()[part].items():
        for template in every:
            start, end = re.search(r"\{.*?\}", template.text).span()
            before, after = template.text[:start], template.text[end:]
            if group == "subject":
                assert before in ("", "To "), template
            if group == "middle":
                assert len(before.split()) >= 1 and len(after.split()) >= 2, template
            if group == "end":
                assert after in (".", "?"), template
            assert (group == "quoted") <= ('"' in before[-4:] and after.startswith('"')), template


BANK = Concept(
    "bank",
    "bank (slope)",
    "sloping land (beside water); where the bank is",
    broader_name="incline",
    aliases=("river bank", "shore"),
)


@pytest.mark.parametrize("part", ["noun", "verb", "adjective", "adverb"])
def test_a_qualifier_is_never_in_a_prompt_and_its_sense_comes_before_the_mention(part):
    bank = dataclasses.replace(BANK, part_of_speech=part, aliases=("shore",))
    prompts = drawn([bank], wanted=100) + drawn([bank], wanted=100, groups=[*GROUPS[:3], "sense"])
    assert not [prompt for prompt in prompts if "(" in prompt.text or "slope)" in prompt.text]
    words = {*inflections("bank"), *inflections("shore")}
    assert all(mention(prompt).lower() in words for prompt in prompts)
    settled = {prompt for prompt in prompts if ".sense." in prompt.family}
    assert {prompt.family for prompt in settled} == {t.family for t in load_templates()[part]["sense"]}
    for prompt in settled:
        before = prompt.text[: prompt.span[0]].lower()
        assert any(value in before for value in ("sloping land", "incline", "shore")), prompt
        assert not re.search(r"\bbank", before), prompt


def test_only_a_name_with_a_qualifier_has_templates_that_settle_its_sense():
    plain = dataclasses.replace(BANK, name="bank")
    assert not [p for p in drawn([plain], wanted=100) if ".sense." in p.family]
    assert drawn([plain], wanted=3, groups=["sense"])
    bare = Concept("x", "bank (slope)")
    texts = {p.text for p in drawn([bare], wanted=99, groups=["sense"])}
    assert 'In the sense of "slope", nobody had expected the bank.' in texts
    assert all("slope" in text for text in texts)


def test_with_enough_templates_that_settle_its_sense_a_concept_uses_no_others():
    assert {p.family.split(".")[1] for p in drawn([BANK], wanted=12)} == {"sense"}
    few = dataclasses.replace(BANK, part_of_speech="verb")
    found = Counter(p.family.split(".")[1] for p in drawn([few], wanted=27))
    assert set(found) == {*GROUPS, "sense"} and set(found.values()) == {3}


def test_what_settles_a_sense_is_data_and_never_a_slot():
    odd = Concept("x", "bank (slope)", "a {name} or {the} {definition} thing", broader_name="{topic}")
    texts = [p.text for p in drawn([odd], wanted=99, groups=["sense"])]
    assert 'In the sense of "{topic}", nobody had expected the bank.' in texts
    assert any("a {name} or {the} {definition} thing" in text for text in texts)


def test_a_category_or_a_number_settles_no_sense():
    assert sense_values(Concept("x", "bank (verb.motion 2)", category="verb.motion")) == {}
    assert sense_values(Concept("x", "bank (slope 2)")) == {"topic": "slope"}
    assert sense_values(Concept("x", "bank (blood bank)", "a bank", aliases=("bank house",))) == {}


def test_inflected_templates_have_a_form_that_is_not_the_name():
    for concept in (
        DOG,
        Concept("c", "climb", part_of_speech="verb"),
        Concept("b", "bright", part_of_speech="adjective"),
    ):
        own = [mention(p).lower() for p in drawn([concept], wanted=100, groups=["inflected"])]
        assert own and concept.name not in own


def test_every_span_holds_the_name_or_an_inflection_of_it():
    wrong = []
    for concept in CONCEPTS:
        head, _, last = concept.name.rpartition(" ")
        first, _, rest = concept.name.partition(" ")
        if concept.part_of_speech == "verb":
            allowed = {f"{form} {rest}".strip() for form in inflections(first)}
        else:
            allowed = {f"{head} {form}".strip() for form in inflections(last)}
        if concept.countable is False:
            allowed = {concept.name}
        allowed |= {form[0].upper() + form[1:] for form in allowed}
        wrong += [p for p in of_concept[concept.id] if mention(p) not in allowed]
    assert wrong == []


of_concept: dict[str, list[Prompt]] = {}
for prompt in ALL:
    of_concept.setdefault(prompt.concept, []).append(prompt)


def test_the_span_holds_no_article_and_no_quote():
    for prompt in ALL:
        assert re.fullmatch(r"[A-Za-z]+([ -][a-z]+)*", mention(prompt)), prompt
        assert not re.match(r"(?:an?|the)\b", mention(prompt), re.I), prompt


def test_sentences_begin_with_a_capital_and_have_single_blanks():
    for prompt in ALL:
        assert prompt.text.lstrip('"')[0].isupper(), prompt
        assert "  " not in prompt.text
        assert not re.search(r"[{}]", prompt.text), prompt


def test_articles_are_right():
    found = Counter()
    for prompt in ALL:
        start, _ = prompt.span
        if before := re.search(r"\b(an?) $", prompt.text[:start], re.I):
            article = before.group(1).lower()
            found[article] += 1
            assert article == right_article(mention(prompt)), prompt
    assert min(found["a"], found["an"]) > 100


@pytest.mark.parametrize(
    ("name", "article", "plural"),
    [
        ("hour", "an", "hours"), ("university", "a", "universities"), ("umbrella", "an", "umbrellas"),
        ("European", "a", "Europeans"), ("heir", "an", "heirs"), ("house", "a", "houses"),
        ("mouse", "a", "mice"), ("knife", "a", "knives"), ("sheep", "a", "sheep"), ("church", "a", "churches"),
        ("person", "a", "people"), ("thief", "a", "thieves"), ("monarch", "a", "monarchs"),
        ("gas", "a", "gases"), ("cactus", "a", "cactuses"), ("octopus", "an", "octopuses"),
        ("black hole", "a", "black holes"), ("mother-in-law", "a", "mothers-in-law"), ("scissors", "a", "scissors"),
        ("chatbot", "a", "chatbots"), ("bus", "a", "buses"), ("species", "a", "species"),
        ("matrix", "a", "matrices"), ("ox", "an", "oxen"), ("catfish", "a", "catfish"), ("beef", "a", "beefs"),
        ("flight of stairs", "a", "flights of stairs"), ("Secretary of State", "a", "Secretaries of State"),
        ("congressman", "a", "congressmen"), ("German", "a", "Germans"), ("caiman", "a", "caimans"),
        ("anti-Semite", "an", "anti-Semites"), ("thanks", "a", "thanks"), ("handicraft", "a", "handicrafts"),
        ("X-ray", "an", "X-rays"), ("FBI agent", "an", "FBI agents"), ("u-turn", "a", "u-turns"),
        ("US dollar", "a", "US dollars"), ("ewe", "a", "ewes"), ("usher", "an", "ushers"), ("18", "an", "18s"),
        ("unit", "a", "units"), ("uncle", "an", "uncles"), ("one-liner", "a", "one-liners"), ("onion", "an", "onions"),
    ],
)  # fmt: skip
def test_nouns_inflect(name, article, plural):
    noun = inflect_noun(name)
    assert (noun.article, noun.plural) == (article, plural)


@pytest.mark.parametrize(
    ("name", "ing", "past"),
    [
        ("run", "running", "ran"), ("make", "making", "made"), ("lie", "lying", "lay"),
        ("be", "being", "were"), ("take place", "taking place", "took place"), ("give up", "giving up", "gave up"), ("escape", "escaping", "escaped"), ("carry", "carrying", "carried"),
    ],
)  # fmt: skip
def test_verbs_inflect(name, ing, past):
    verb = inflect_verb(name)
    assert (verb.ing, verb.past) == (ing, past)


@pytest.mark.parametrize(
    ("concept", "text", "expected", "mentioned"),
    [
        (DOG, "{One} barks.", "A dog barks.", "dog"),
        (DOG, "I saw {one}.", "I saw a dog.", "dog"),
        (DOG, "{The} barks.", "The dog barks.", "dog"),
        (DOG, "{Generic} bark.", "Dogs bark.", "Dogs"),
        (WATER, "{One} flows.", "Water flows.", "Water"),
        (WATER, "Without {one}.", "Without water.", "water"),
        (WATER, "{The} flows.", "The water flows.", "water"),
        (RUN, "{Ing} is fun.", "Running is fun.", "Running"),
        (RUN, "They {past}.", "They ran.", "ran"),
        (ODD, "It was {one} day.", "It was an odd day.", "odd"),
    ],
)
def test_a_slot_takes_article_and_form(concept, text, expected, mentioned):
    prompt = fill(Template("family", text), concept)
    assert (prompt.text, mention(prompt)) == (expected, mentioned)


def test_a_concepts_prompts_are_the_same_whatever_else_is_in_the_run():
    everything = drawn(CONCEPTS)
    for concept in CONCEPTS[::97]:
        assert drawn([concept]) == of(everything, concept.id)
    assert sorted(drawn(CONCEPTS[::-1]), key=str) == sorted(everything, key=str)


def test_seed_stage_and_concept_each_change_what_is_drawn():
    def families(concept=DOG, **how) -> list[str]:
        return [prompt.family for prompt in drawn([concept], **how)]

    assert families() == families()
    assert families() != families(seed=1)
    assert families() != families(stage=2)
    assert families() != families(dataclasses.replace(DOG, id="other dog"))


@pytest.mark.parametrize("wanted", [1, 4, 10, 40, 100])
def test_no_template_is_used_twice_for_a_concept(wanted):
    for concept in (DOG, WATER, RUN, ODD):
        prompts = drawn([concept], wanted=wanted)
        fitting = templates.grouped_templates(concept, Options())
        assert len(fitting) == (7 if concept == WATER else 8)  # "water" has no other form
        available = sum(len(group) for group in fitting)
        assert len(prompts) == min(wanted, available)
        assert len({p.family for p in prompts}) == len({p.text for p in prompts}) == len(prompts)


def test_groups_are_drawn_evenly():
    for concept in CONCEPTS[::50]:
        found = Counter(p.family.split(".")[1] for p in drawn([concept], wanted=10))
        assert set(found.values()) <= {1, 2} and len(found) in (7, 8)


def test_families_are_templates_shared_by_the_concepts_of_a_part_of_speech():
    for prompt in ALL:
        part, group, number = prompt.family.split(".")
        assert prompt.family in {template.family for template in load_templates()[part][group]}
        assert number.isdigit()


def test_groups_can_be_chosen():
    prompts = drawn([DOG, RUN], wanted=100, groups=["quoted"])
    assert {prompt.family.split(".")[1] for prompt in prompts} == {"quoted"}
    assert {prompt.concept for prompt in prompts} == {"dog", "run"}


def test_an_unknown_group_is_refused_listing_the_known_ones():
    with pytest.raises(UsageError) as caught:
        Plugins().options("templates", {"groups": ["quoted", "rhymed"]})
    assert "no group rhymed" in str(caught.value)
    assert all(group in str(caught.value) for group in (*GROUPS, "sense"))


def test_unknown_options_are_refused():
    with pytest.raises(UsageError, match="no option 'families'"):
        Plugins().options("templates", {"families": ["quoted"]})


def test_an_unknown_part_of_speech_is_treated_as_a_noun_that_does_not_inflect():
    prompts = drawn([Concept("oops", "oops", part_of_speech="interjection")], wanted=100)
    assert {mention(prompt).lower() for prompt in prompts} == {"oops"}
    assert {prompt.family.split(".")[0] for prompt in prompts} == {"noun"}


@pytest.mark.parametrize(
    ("name", "the", "one", "generic", "plural"),
    [
        ("dog", "the dog", "the dog", "dogs", "dogs"), ("chair", "the chair", "a chair", "chairs", "chairs"),
        ("physics", "the physics", "physics", "physics", None), ("scissors", "the scissors", "scissors", "scissors", None),
        ("furniture", "the furniture", "furniture", "furniture", None), ("time", "the time", "the time", "times", "times"),
        ("German shepherd", "the German shepherd", "a German shepherd", "German shepherds", "German shepherds"),
        ("Paris", "Paris", None, None, None), ("Pacific Ocean", "the Pacific Ocean", None, None, None),
        ("United States", "the United States", None, None, None), ("DNA", "DNA", None, None, None),
        ("Gulf of Mexico", "the Gulf of Mexico", None, None, None), ("Joan of Arc", "Joan of Arc", None, None, None),
        ("X-ray", "the X-ray", "the X-ray", "the X-ray", None),
    ],
)  # fmt: skip
def test_nouns_whose_source_does_not_say_whether_they_count(name, the, one, generic, plural):
    forms = {slot: "".join(form) for slot, form in templates.slot_forms(Concept("x", name)).items()}
    expected = {"name": name, "the": the, "one": one, "generic": generic, "plural": plural}
    assert forms == {slot: form for slot, form in expected.items() if form}


def test_a_plural_that_is_said_to_count_takes_no_article():
    assert templates.slot_forms(Concept("s", "scissors", countable=True))["one"] == ("", "scissors")


@pytest.mark.parametrize(
    ("name", "degrees"),
    [
        ("bright", ("brighter", "brightest")),
        ("good", ("better", "best")),
        ("abdominal", None),
        ("well known", None),
    ],
)
def test_adjectives_compare(name, degrees):
    assert compare(name) == degrees


def test_verbs_have_all_their_forms():
    assert inflect_verb("take place") == Verb("taking place", "took place", "taken place", "takes place")
    assert inflect_verb("be") == Verb("being", "were", "been", "is")


def test_names_and_adverbs_have_templates_of_their_own():
    paris, slowly = Concept("p", "Paris"), Concept("s", "slowly", part_of_speech="adverb")
    for concept, table in ((paris, "name"), (slowly, "adverb")):
        prompts = drawn([concept], wanted=100)
        assert {p.family.split(".")[0] for p in prompts} == {table}
        assert {mention(p).lower() for p in prompts} == {concept.name.lower()}


def test_only_the_group_inflected_falls_back_to_others():
    (prompt, *_) = drawn([WATER], wanted=5, groups=["inflected"])
    assert prompt.family.split(".")[1] in GROUPS[:-1]


def test_blanks_around_and_in_a_name_are_put_right():
    for prompt in drawn([dataclasses.replace(DOG, name=" guide \n dog")], wanted=50):
        assert mention(prompt).lower() in ("guide dog", "guide dogs")
