"""The sampler diverse: what is described is not named, what is generated is usable, what is recorded stays."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import encyclo
from encyclo.cli import run_command
from encyclo.errors import UsageError
from encyclo.plugins.manager import Plugins
from encyclo.types import Concept, Context, Opening, Prompt
from encyclo_concepts import core
from encyclo_samplers import (
    alias_mentions,
    definitions,
    diverse,
    generated_sentences,
    sentence_filter,
    templates,
)
from encyclo_samplers.diverse import Options, sample_prompts
from encyclo_samplers.templates import load_templates

CONCEPTS = list(core.load_concepts(core.Options()))
DOG = Concept(
    "dog", "dog", "a tame animal that barks; dogs are loyal", "animals", countable=True, broader_name="mammal"
)
GENRES = ("news", "dialogue", "instruction", "fiction", "question", "list")


class Parrot:
    """A model that answers every opening with a sentence about its word, or with the given answers.

    What it says depends on the opening alone.
    """

    weights_sha256, dtype, device = "0" * 64, "float32", "cpu"

    def __init__(self, say: str | None = None, useless: Sequence[str] = ()) -> None:
        self.say, self.useless = say, useless
        self.asked: list[Opening] = []
        self.largest = 0

    def generate(self, prefix, openings, max_new_tokens, stop=None) -> list[str]:
        self.largest = max(self.largest, len(openings))
        self.asked += openings
        return [self._answer(opening) for opening in openings]

    def _answer(self, opening: Opening) -> str:
        word = opening.text.rpartition(",")[0]
        if self.say is not None:
            return self.say.format(word)
        draw = random.Random(opening.seed)
        if word in self.useless or draw.random() < 0.3:
            return " Nothing of the kind was there."
        some = ["".join(draw.sample("bdgklmnprst", 3)) + draw.choice("aeiou") for _ in range(8)]
        return f" {some[0].title()} {' '.join(some[1:4])} {word} {' '.join(some[4:])}."


def context(folder: Path, model=None, wanted: int = 10, seed: int = 0, **options) -> Context:
    return Context(seed, "cpu", Options(**options), folder, model=model or Parrot(), prompts_wanted=wanted)


def drawn(concepts, folder: Path, stage: int = 2, **how) -> list[Prompt]:
    return list(sample_prompts(concepts, stage, context(folder, **how)))


def source(prompt: Prompt) -> str:
    return prompt.family.split(".")[0]


def test_the_stage_and_the_share_of_each_source(tmp_path):
    assert diverse.STAGE == 2
    prompts = drawn(CONCEPTS[:100], tmp_path)
    shares = Counter(source(prompt) for prompt in prompts)
    assert len(prompts) == 1000
    assert shares["definition"] + shares["relation"] <= 200
    assert shares["generated"] > 450 and shares["frame"] >= 300


def test_families_are_sources_genres_registers_and_temperatures(tmp_path):
    families = {p.family for p in drawn(CONCEPTS[:200], tmp_path, wanted=20)}
    for prefix in (
        "definition.1", "relation.1", *(f"frame.noun.{g}." for g in GENRES), *(f"frame.verb.{g}." for g in GENRES),
        *(f"generated.{r}.T{t}" for r in generated_sentences.REGISTERS for t in ("0.7", "1", "1.3")),
    ):  # fmt: skip
        assert any(family.startswith(prefix) for family in families), prefix


def test_no_prompt_is_repeated_and_every_span_holds_a_mention(tmp_path):
    found = drawn(CONCEPTS[:150], tmp_path, wanted=20)
    assert len({(p.concept, p.text) for p in found}) == len(found)
    by_id = {c.id: c for c in CONCEPTS}
    for prompt in found:
        if prompt.span is None:
            assert source(prompt) in ("definition", "relation")
        else:
            said = prompt.text[slice(*prompt.span)]
            concept = by_id[prompt.concept]
            assert sentence_filter.find_mention(said, concept) == (0, len(said)) or said in templates_forms(
                concept
            )


def templates_forms(concept: Concept) -> set[str]:
    return {
        form for _, word in templates.slot_forms(concept).values() for form in (word, templates.capital(word))
    }


def test_examples_by_other_authors_are_never_used(tmp_path):
    marked = [
        dataclasses.replace(c, examples=(f"Zyx the {c.name} sat.", f"A {c.name} qwv.")) for c in CONCEPTS[:60]
    ]
    model = Parrot()
    with_examples = drawn(marked, tmp_path / "a", model=model, wanted=30)
    assert with_examples == drawn(CONCEPTS[:60], tmp_path / "b", wanted=30)
    everything = [p.text for p in with_examples] + [o.text for o in model.asked]
    everything += [p.text for p in templates.sample_prompts(marked, 1, template_context())]
    assert not [text for text in everything if "Zyx" in text or "qwv" in text]


def template_context() -> Context:
    return Context(0, "cpu", templates.Options(), Path(), prompts_wanted=100)


# Descriptions


def test_a_description_never_names_its_concept():
    found = 0
    for concept in CONCEPTS:
        own = [
            w for n in (concept.name, *concept.aliases) for w in re.findall(r"\w+", n.lower()) if len(w) > 2
        ]
        for prompt in definitions.describe(concept, 100, random.Random(0)):
            found += 1
            assert prompt.span is None
            assert not [w for w in own if re.search(rf"\b{w}(?:s|es|ed|ing)?\b", prompt.text.lower())], prompt
    assert found > 5000


@pytest.mark.parametrize(
    ("definition", "left"),
    [
        ("a tame animal that barks; dogs are loyal", "a tame animal that barks"),
        ("dog", ""),
        ("The dog.", ""),
        ("", ""),
        (" ; ", ""),
        ("an animal", ""),
        ("doggedness of the kind", "doggedness of the kind"),
        ("an animal that a hound\n resembles.", ""),
        ("a tame\nanimal  that barks.", "a tame animal that barks"),
    ],
)
def test_a_definition_without_the_name_is_what_is_left(definition, left):
    concept = dataclasses.replace(DOG, definition=definition, aliases=("hound",))
    assert definitions.nameless_definition(concept) == left


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("science", "scientific study", True), ("mouse", "two mice", True), ("guide dog", "a dog", True),
        ("run", "he ran", True), ("art", "an article of clothing", False), ("to be", "it is so", True),
        ("dog", "a dogma", False), ("democracy", "democratic rule", True),
    ],
)  # fmt: skip
def test_a_name_is_recognised_inflected_and_derived(name, text, named):
    assert definitions.names(Concept("x", name), text) is named


def test_a_category_or_broader_concept_that_names_it_is_left_out():
    concept = dataclasses.replace(DOG, category="dogs and cats", broader_name="kind of dog")
    texts = [p.text for p in definitions.describe(concept, 100, random.Random(0))]
    assert len(texts) == len(definitions.load_frames()["definition"])
    assert any("mammal" in p.text for p in definitions.describe(DOG, 100, random.Random(0)))


def test_broader_concepts_of_verbs_and_wordnets_categories_read_as_english():
    verb = Concept("jog", "jog", "go at a slow pace", "verb.motion", "verb", broader_name="run")
    texts = [p.text for p in definitions.describe(verb, 100, random.Random(0))]
    assert "One way to run, namely to go at a slow pace, is to" in texts
    assert not [text for text in texts if "kind of run" in text or "verb." in text]
    assert any("belong to motion" in text for text in texts)
    assert [definitions.subject(c) for c in ("adj.all", "noun.Tops", "language and art", "")] == [
        "", "", "language and art", "",
    ]  # fmt: skip


@pytest.mark.parametrize("definition", ["", "dog", "a dog; the dogs"])
def test_a_concept_that_cannot_be_described_gets_frames_instead(tmp_path, definition):
    prompts = drawn([dataclasses.replace(DOG, definition=definition)], tmp_path)
    assert len(prompts) == 10 and all(p.span for p in prompts)


# Frames


@pytest.mark.parametrize("part", ["noun", "name", "verb", "adjective", "adverb"])
def test_frames_of_every_genre_are_sentences_with_a_slot(part):
    groups = load_templates(diverse.FILE)[part]
    assert tuple(groups) == GENRES
    every = [t for group in groups.values() for t in group]
    assert len({t.text for t in every}) == len(every) >= 12
    for template in every:
        assert len(re.findall(r"\{\w+\}", template.text)) == 1, template
        assert template.text.rstrip('"')[-1] in ".?!", template


# Generated sentences


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("The old dogs slept in the sun.", None),
        ('"Is that your dog?" she asked.', None),
        ("The old cats slept in the sun.", "no mention"),
        ("The dogma was written down there.", "no mention"),
        ("The old dog slept in the", "unfinished"),
        ("and the old dog slept there.", "unfinished"),
        ("A dog.", "too short"),
        ("The dog | slept in the sun.", "markup"),
        ("See www.dog.com for a dog today.", "markup"),
        ("cat (noun), news: The dog slept in the sun.", "unfinished"),
        ("Cat (noun), news: The dog slept in the sun.", "markup"),
        ('"The dog slept in the sun.', "unbalanced quotes or brackets"),
        ("The dog was in the house and in the house was a cat.", "loop"),
        ("The door closed and the door closed the dog door.", "loop"),
        ("The very very old dog slept there.", "loop"),
    ],
)
def test_what_is_dropped_and_why(text, reason):
    assert sentence_filter.fault(text, DOG, ()) == reason


def test_near_duplicates_are_dropped_whatever_the_form_of_the_word():
    kept = ["The old dog slept in the warm sun."]
    assert sentence_filter.fault("The old dogs slept in the sun.", DOG, kept) == "near-duplicate"
    assert sentence_filter.fault("Nobody had fed the dogs that night.", DOG, kept) is None


@pytest.mark.parametrize(
    ("name", "part", "text", "said"),
    [
        ("mouse", "noun", "Three mice ran off.", "mice"), ("give up", "verb", "She gave up at once.", "gave up"),
        ("bright", "adjective", "The brightest star.", "brightest"), ("Turkey", "noun", "A turkey in Turkey.", "Turkey"),
        ("guide dog", "noun", "Two guide-dogs sat.", "guide-dogs"), ("dog", "noun", "The dog's tail.", "dog"),
        ("dog", "noun", "Hotdog stands.", None), ("be", "verb", "They were there.", "were"),
        ("C++", "noun", "He wrote C++ code.", "C++"),
    ],
)  # fmt: skip
def test_inflected_forms_count_as_mentions(name, part, text, said):
    span = sentence_filter.find_mention(text, Concept("x", name, part_of_speech=part))
    assert (span and text[slice(*span)]) == said


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (" It rained. Then", " It rained."), (" It rained.", None), (" It cost 3.5 pounds. So", " It cost 3.5 pounds."),
        (' "Yes," he said. "No', ' "Yes," he said.'), (' "It rained. He', None), (" Dr. Brown came! He", " Dr. Brown came!"),
        (" no end\nriver", " no end"), ("\n It rained. Then", "\n It rained."), (" Why? Because", " Why?"),
    ],
)  # fmt: skip
def test_a_sentence_ends_where_a_reader_would_say(text, sentence):
    end = sentence_filter.sentence_end(text)
    assert (None if end is None else text[:end]) == sentence


def test_too_few_usable_sentences_are_reported_and_replaced_by_frames(tmp_path):
    messages: list[str] = []

    class Progress:
        stage = staticmethod(messages.append)

    cat = dataclasses.replace(DOG, id="cat", name="cat")
    model = Parrot(useless=["dog"])
    asked = dataclasses.replace(context(tmp_path, model), progress=Progress())
    prompts = list(sample_prompts([DOG, cat], 2, asked))
    own = Counter(source(p) for p in prompts if p.concept == "dog")
    assert own["generated"] == 0 and sum(own.values()) == 10
    assert Counter(source(p) for p in prompts if p.concept == "cat")["generated"] == 5
    assert "about dog;" in messages[-1] and "cat" not in messages[-1]
    assert len({o.seed for o in model.asked}) == len(model.asked)
    (record,) = (tmp_path / "generated").iterdir()
    written = json.loads(record.read_text())["dog"]
    assert written == {"wanted": 5, "asked": 15, "dropped": {"no mention": 15}, "kept": []}


def test_of_two_that_are_alike_the_one_asked_for_first_is_kept(tmp_path):
    class Poor(Parrot):
        def _answer(self, opening: Opening) -> str:
            draw, word = random.Random(opening.seed), opening.text.rpartition(",")[0]
            return f" The {draw.choice(('old', 'new'))} {word} {draw.choice(('went', 'stayed'))} where it was then."

    model = Poor()
    drawn(CONCEPTS[:20], tmp_path, model=model, wanted=8)
    records = json.loads(next((tmp_path / "generated").iterdir()).read_text())
    for concept in CONCEPTS[:20]:
        kept: list[str] = []
        for opening in (o for o in model.asked if o.text.startswith(f"{concept.name}, ")):
            text = model._answer(opening).strip()
            if sentence_filter.fault(text, concept, kept) is None:
                kept.append(text)
        assert [text for text, *_ in records[concept.id]["kept"]] == kept
    assert any(own["dropped"].get("near-duplicate") and own["kept"] for own in records.values())


def test_a_text_that_goes_on_behind_its_sentence_is_cut(tmp_path):
    """A model may stop later than it could."""
    prompts = drawn([DOG], tmp_path, model=Parrot(" Everyone in the street had seen the {}. Then it"))
    (own,) = [p.text for p in prompts if source(p) == "generated"]
    assert own == "Everyone in the street had seen the dog."


TEXTS = st.lists(
    st.sampled_from([*"aB.!?\"')( \n,3", "Dr.", " No. ", "e.g.", " It rained. ", '"', '." ', "Mrs. ", "\t"]),
    max_size=25,
).map("".join)


@settings(max_examples=1500, deadline=None)
@given(TEXTS)
def test_no_model_stops_before_the_sentence_ends(text):
    found = re.search(sentence_filter.STOP, text)
    if found:
        end = sentence_filter.sentence_end(text[: found.end()])
        assert end is not None and end == sentence_filter.sentence_end(text)


@pytest.mark.parametrize(
    "text",
    [" It rained. ", ' "Yes," he said. ', ' He said: "It rained." ', " Why? ", " no end\n", "\n It rained. ", " Dr. Brown came! "],
)  # fmt: skip
def test_a_model_stops_as_soon_as_the_sentence_has_ended(text):
    assert re.search(sentence_filter.STOP, text) and not re.search(sentence_filter.STOP, text[:-1])
    assert sentence_filter.sentence_end(text) is not None and sentence_filter.sentence_end(text[:-1]) is None


def test_a_model_that_can_not_write_leaves_it_to_the_frames_and_that_is_said_once(tmp_path):
    messages: list[str] = []

    class Mute:
        name = "mute"

    class Progress:
        stage = staticmethod(messages.append)

    asked = dataclasses.replace(context(tmp_path, Mute()), progress=Progress())
    prompts = [p for some in (CONCEPTS[:5], CONCEPTS[5:9]) for p in sample_prompts(some, 2, asked)]
    assert len(prompts) == 90 and {source(p) for p in prompts} <= {"definition", "relation", "frame"}
    (line,) = messages
    assert "'mute' can't write" in line and "-o diverse.generated=0" in line
    silent = dataclasses.replace(asked, options=Options(generated=0), folder=tmp_path / "other")
    assert list(sample_prompts(CONCEPTS[:9], 2, silent)) == prompts and len(messages) == 1


def test_no_more_is_asked_for_than_is_lacking(tmp_path):
    model = Parrot()
    drawn(CONCEPTS[:30], tmp_path, model=model)
    (record,) = (tmp_path / "generated").iterdir()
    for own in json.loads(record.read_text()).values():
        assert own["asked"] == len(own["kept"]) + sum(own["dropped"].values())
        lacking = own["wanted"] - len(own["kept"])
        assert lacking >= 0 and own["wanted"] + 2 * lacking <= own["asked"] <= 3 * own["wanted"]


def test_a_model_that_always_says_the_same_yields_it_once(tmp_path):
    prompts = drawn([DOG], tmp_path, model=Parrot(" Everyone in the street had seen the {}."))
    assert Counter(source(p) for p in prompts)["generated"] == 1
    assert len({p.text for p in prompts}) == len(prompts) == 10


def test_the_dictionarys_own_examples_are_no_sentences(tmp_path):
    river = Concept("river", "river", countable=True)
    prompts = drawn([river], tmp_path, model=Parrot(" " + generated_sentences.EXAMPLES[0]))
    assert not [p for p in prompts if source(p) == "generated"]
    assert len(generated_sentences.EXAMPLES) == len(generated_sentences.REGISTERS)


def test_a_concepts_prompts_are_the_same_whatever_else_is_in_the_run(tmp_path):
    everything = drawn(CONCEPTS[:250], tmp_path / "all")
    for n in (0, 99, 201, 249):
        own = [p for p in everything if p.concept == CONCEPTS[n].id]
        assert drawn([CONCEPTS[n]], tmp_path / str(n)) == own


class Fickle(Parrot):
    """A model whose sentences depend on all that is asked for together."""

    def generate(self, prefix, openings, max_new_tokens, stop=None) -> list[str]:
        shifted = [dataclasses.replace(o, seed=o.seed + len(openings)) for o in openings]
        return super().generate(prefix, shifted, max_new_tokens, stop)


def test_more_prompts_keep_the_mix_though_the_model_writes_other_sentences(tmp_path):
    first = drawn([DOG], tmp_path, model=Fickle(), wanted=10)
    assert [source(p) for p in first[-5:]] == ["generated"] * 5
    more = [p for p in drawn([DOG], tmp_path, model=Fickle(), wanted=20) if p not in first][:10]
    shares = Counter(source(p) for p in more)
    assert shares["frame"] >= 3 and 5 <= shares["generated"] <= 6


def test_seed_stage_and_concept_each_change_what_is_drawn(tmp_path):
    def texts(name: str, concept=DOG, **how) -> list[str]:
        return [p.text for p in drawn([concept], tmp_path / name, **how)]

    first = texts("a")
    assert texts("b") == first
    others = [texts("c", seed=1), texts("d", stage=3), texts("e", dataclasses.replace(DOG, id="x"))]
    assert first not in others


def test_nothing_is_generated_twice(tmp_path):
    first, again = Parrot(), Parrot()
    prompts = drawn(CONCEPTS[:30], tmp_path, model=first)
    assert drawn(CONCEPTS[:30], tmp_path, model=again) == prompts
    assert first.asked and not again.asked
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".tmp")]


def test_another_seed_or_option_makes_a_record_of_its_own(tmp_path):
    drawn([DOG], tmp_path)
    for how in ({"seed": 1}, {"temperatures": [0.5]}, {"wanted": 12}):
        model = Parrot()
        drawn([DOG], tmp_path, model=model, **how)
        assert model.asked, how


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"dog": {"kept": [["x"]]}}'])
def test_a_damaged_record_is_made_anew(tmp_path, damage):
    prompts = drawn([DOG], tmp_path)
    (record,) = (tmp_path / "generated").iterdir()
    record.write_text(damage)
    assert drawn([DOG], tmp_path) == prompts
    assert json.loads(record.read_text())["dog"]["kept"]


class Endless(Sequence):
    """A million concepts, made one by one."""

    def __init__(self) -> None:
        self.made = 0

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, n):
        if n >= len(self):
            raise IndexError
        self.made += 1
        return Concept(f"thing {n}", f"thing {n}", "a tame animal that barks", countable=True)


@pytest.mark.parametrize("sampler", [diverse, templates])
def test_a_million_prompts_never_sit_in_memory(tmp_path, sampler):
    concepts, model = Endless(), Parrot()
    options = Options() if sampler is diverse else templates.Options()
    stream = sampler.sample_prompts(concepts, 2, Context(0, "cpu", options, tmp_path, model=model))
    for _ in range(2000):  # warms the libraries' caches up
        next(stream)
    tracemalloc.start()
    for _ in range(4_000):
        next(stream)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * 2**20
    assert concepts.made <= 1000 and model.largest <= 1000


@pytest.mark.parametrize("name", ["…", "☃", "$$"])
def test_a_name_without_a_letter_is_not_generated_about(tmp_path, name):
    model = Parrot()
    prompts = drawn([dataclasses.replace(DOG, name=name, definition="")], tmp_path, model=model)
    assert not model.asked and len(prompts) == 10 and all(name in p.text for p in prompts)


def test_blanks_and_line_ends_in_a_name_do_no_harm(tmp_path):
    model = Parrot()
    prompts = drawn([dataclasses.replace(DOG, name=" guide\n  dog ")], tmp_path, model=model)
    assert all(o.text.startswith("guide dog, ") for o in model.asked)
    assert any(p.span and p.text[slice(*p.span)].lower() == "guide dog" for p in prompts)


def test_generation_can_be_switched_off_and_needs_no_model_then(tmp_path):
    asked = dataclasses.replace(context(tmp_path, generated=0), model=None)
    prompts = list(sample_prompts([DOG], 2, asked))
    assert len(prompts) == 10 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("wanted", [1, 2, 3, 12, 60])
def test_every_concept_is_named_by_at_least_one_prompt(tmp_path, wanted):
    prompts = drawn([DOG], tmp_path, wanted=wanted, definitions=1.0)
    assert any(p.span for p in prompts) and len(prompts) <= wanted


def test_no_concept_gets_more_than_the_run_asks_of_it(tmp_path):
    wanted = {concept.id: number % 9 for number, concept in enumerate(CONCEPTS[:60])}
    asked = dataclasses.replace(context(tmp_path), wanted=wanted)
    given = Counter(prompt.concept for prompt in sample_prompts(CONCEPTS[:60], 2, asked))
    assert all(given[concept] <= number for concept, number in wanted.items()) and given.total() > 200


@pytest.mark.parametrize(
    "options", [{"definitions": 1.5}, {"temperatures": []}, {"attempts": 0}, {"frames": 1}]
)
def test_wrong_options_are_refused(options):
    with pytest.raises(UsageError):
        Plugins().options("diverse", options)


def test_the_written_texts_are_part_of_what_determines_a_unit(monkeypatch):
    prints = {Plugins().traits(name).fingerprint for name in ("templates", "diverse", "adversarial", "raw")}
    assert len(prints) == 4 and "" in prints
    assert templates.fingerprint("a", "b") != templates.fingerprint("a", "c")
    own = (templates.packaged("templates.toml"), alias_mentions.FINGERPRINT)
    assert templates.fingerprint(*own) == templates.FINGERPRINT
    monkeypatch.setattr(diverse, "FINGERPRINT", 7)
    with pytest.raises(Exception, match=r"FINGERPRINT must be a str .*, not 7"):
        Plugins().traits("diverse")


# In a run


@pytest.fixture(scope="module")
def run_flags(tmp_path_factory: pytest.TempPathFactory, tiny_gemma: Path) -> list[str]:
    """The flags of a run of all three stages on a tiny model that has room for the dictionary of examples."""
    folder = tmp_path_factory.mktemp("diverse") / "gemma"
    shutil.copytree(tiny_gemma, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 512}))
    samplers = [flag for name in ("raw", "templates", "diverse") for flag in ("--sampler", name)]
    return [*samplers, "--limit", "4", "--model", str(folder), "--layers", "1,-1", "--device", "cpu"]


@pytest.fixture(scope="module")
def diverse_run(tmp_path_factory: pytest.TempPathFactory, run_flags: list[str]) -> Path:
    """A finished run of all three stages on the tiny model."""
    out = tmp_path_factory.mktemp("diverse") / "run"
    assert run_command(["run", *run_flags, "--out", str(out)]) == 0
    return out


def test_three_stages_run_after_each_other(diverse_run: Path):
    stages = json.loads((diverse_run / "metrics.json").read_text())["stages"]
    assert [(row["stage"], row["sampler"]) for row in stages] == [
        (0, "raw"),
        (1, "templates"),
        (2, "diverse"),
    ]
    assert stages[2]["samples"] == 40


def test_a_model_with_too_little_room_says_the_way_out(
    tmp_path: Path, run_flags: list[str], tiny_gemma, encyclo
):
    short = [str(tiny_gemma) if flag.endswith("gemma") else flag for flag in run_flags[4:]]  # diverse alone
    result = encyclo("run", *short, "--out", tmp_path / "run")
    assert result.returncode == 2
    assert "32 new tokens exceed its limit" in result.stderr and "-o diverse.generated=0" in result.stderr


def test_a_resumed_run_generates_nothing_again(
    diverse_run: Path, run_flags: list[str], monkeypatch: pytest.MonkeyPatch
):
    def fail(*given):
        raise AssertionError("generated again")

    before = (diverse_run / "encyclopedia.h5").read_bytes()
    (diverse_run / "metrics.json").unlink()
    for commit in (diverse_run / "commits").iterdir():
        commit.unlink()
    monkeypatch.setattr("encyclo_capture.model.continue_texts", fail)
    assert run_command(["run", *run_flags, "--out", str(diverse_run)]) == 0
    assert len((diverse_run / "encyclopedia.h5").read_bytes()) == len(before)
    (record,) = (diverse_run / "plugins" / "diverse" / "generated").iterdir()
    assert all(own["asked"] >= own["wanted"] == 5 for own in json.loads(record.read_text()).values())


SMALL_UNITS = {
    "encyclo.pipeline.units.SAMPLES_PER_UNIT": 20,  # two concepts each
    # A random model's texts are kept as they are.
    "encyclo_samplers.generated_sentences.fault": lambda text, *_: None if text else "too short",
    "encyclo_samplers.generated_sentences.find_mention": lambda *_: (0, 1),
}
KILLED = """
import os, signal, sys
import pytest
from encyclo.cli import run_command
from encyclo_samplers import generated_sentences
from tests.plugins.test_diverse import SMALL_UNITS

keep, kept = generated_sentences._keep, []
def keep_the_first(*given):
    if kept:
        os.kill(os.getpid(), signal.SIGKILL)
    kept.append(keep(*given))

patch = pytest.MonkeyPatch()
for name, value in SMALL_UNITS.items():
    patch.setattr(name, value)
generated_sentences._keep = keep_the_first
run_command(sys.argv[1:])
"""


def test_a_killed_run_resumes_with_the_sentences_of_an_uninterrupted_one(
    tmp_path: Path, run_flags: list[str], monkeypatch: pytest.MonkeyPatch
):
    """The unit decides which sentences are generated together, whatever is left to do."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, "run", *run_flags, "--out", str(killed)]
    assert subprocess.run(command, check=False, capture_output=True).returncode == -signal.SIGKILL
    assert len(list((killed / "plugins/diverse/generated").iterdir())) == 1
    for name, value in SMALL_UNITS.items():
        monkeypatch.setattr(name, value)
    for out in (killed, whole):
        assert run_command(["run", *run_flags, "--out", str(out)]) == 0

    def generated(out: Path) -> dict[str, dict]:
        return {r.name: json.loads(r.read_text()) for r in (out / "plugins/diverse/generated").iterdir()}

    assert generated(killed) == generated(whole)
    assert [[len(own["kept"]) for own in record.values()] for record in generated(whole).values()] == [
        [5, 5]
    ] * 2
    with encyclo.open(whole) as one, encyclo.open(killed) as other:
        for name in one.book.concepts.name:
            assert one.samples(name).checksum() == other.samples(name).checksum()


def test_changed_texts_make_other_units(tiny_flags: list[str], monkeypatch: pytest.MonkeyPatch):
    from encyclo.config import load_config
    from encyclo.pipeline.units import recipe
    from encyclo.runs.session import prepare
    from encyclo.terminal import ConsoleProgress

    model = tiny_flags[tiny_flags.index("--model") + 1]
    flags = {"sampler": ("diverse",), "limit": 2, "model": model, "layers": (1,), "device": "cpu"}
    session = prepare(load_config(flags, None, ()), ConsoleProgress(quiet=True))
    before = recipe(session, session.stages[0], ())
    assert before == recipe(session, session.stages[0], ())
    monkeypatch.setattr(diverse, "FINGERPRINT", "other texts")
    assert before != recipe(session, session.stages[0], ())


def test_the_model_is_asked_for_a_sense_and_writes_the_bare_word(tmp_path: Path):
    slope = Concept("b", "bank (slope 2)", "sloping land; beside a body of water", aliases=("shore",))
    parrot = Parrot(say=" They walked along the bank until it was dark.")
    prompts = drawn([slope], tmp_path, model=parrot, wanted=20)
    assert {opening.text.rpartition(",")[0] for opening in parrot.asked} == {"bank (slope)", "shore"}
    by_name = [opening for opening in parrot.asked if "bank" in opening.text]
    assert all({"bank", "banks"} <= set(opening.required_words) for opening in by_name)
    written = [p for p in prompts if p.family.startswith("generated.")]
    assert written and {p.text[slice(*p.span)] for p in written} == {"bank"}
    assert {p.family.partition(".")[0] for p in prompts} == {"generated", "frame", "definition"}
    assert not [p for p in prompts if "(" in p.text or ("bank" in p.text.lower() and p.span is None)]


def test_a_definition_with_the_words_of_the_qualifier_is_used(tmp_path: Path):
    slope = Concept("b", "bank (slope)", "a long slope beside a river")
    prompts = drawn([slope], tmp_path, model=Parrot(), wanted=20, generated=0)
    assert any("a long slope beside a river" in p.text for p in prompts if p.span is None)
