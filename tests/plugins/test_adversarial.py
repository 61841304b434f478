"""Sampler `adversarial`: frames, what counts as an attack, the search, and a whole run with stage 3."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encyclo.english import as_word
from encyclo.types import Concept, Context, Prompt, Signatures
from encyclo_samplers import adversarial
from encyclo_samplers.adversarial import Options
from encyclo_samplers.attack_frames import OTHERS, SLOT, fill, frames
from encyclo_samplers.attack_search import AttackSearch, related, truly_about
from encyclo_samplers.templates import slot_forms
from tests.commands import one_sentence

DOG = Concept("dog", "dog", "a tame animal that barks", countable=True)
CAT = Concept("cat", "cat", "a tame animal that purrs", countable=True)
HOT_DOG = Concept("hot dog", "hot dog", "a sausage in a roll", countable=True)
WOLF = Concept("wolf", "wolf", "a wild animal that howls", countable=True)
RUN = Concept("run", "run", "to go fast on foot", part_of_speech="verb")
NAMES = ["dog", "cat", "wolf"]
SPEECH = ("noun", "verb", "adjective", "adverb")


@pytest.mark.parametrize("part_of_speech", SPEECH)
def test_frames_that_judge_never_make_samples(part_of_speech):
    making, judging = frames(part_of_speech, False), frames(part_of_speech, True)
    assert len(making) >= 15 and len(judging) >= 8
    assert not {f.text for f in making} & {f.text for f in judging}
    assert not {f.family for f in making} & {f.family for f in judging}
    assert {f.kind for f in making} == {f.kind for f in judging}


@pytest.mark.parametrize("concept", [DOG, RUN, Concept("red", "red", part_of_speech="adjective")])
@pytest.mark.parametrize("judging", [False, True])
def test_every_frame_keeps_the_mention_intact(concept, judging):
    forms = {word.casefold() for _, word in slot_forms(concept).values()}
    for frame in frames(concept.part_of_speech, judging):
        prompt = fill(frame, concept, (CAT, WOLF, HOT_DOG), ("purr", "howl"))
        assert prompt is not None and not SLOT.search(prompt.text), frame
        start, end = prompt.span
        assert prompt.text[start:end].casefold() in forms, frame
        assert prompt.text[0] == prompt.text[0].upper()
        assert frame.needs <= {*OTHERS, "meaning", "list"}


def test_a_frame_that_needs_more_than_there_is_gives_nothing():
    needy = next(f for f in frames("noun", False) if "third" in f.needs)
    assert fill(needy, DOG, (CAT,)) is None
    meaning = next(f for f in frames("noun", False) if "meaning" in f.needs)
    assert fill(meaning, DOG, (Concept("x", "x"),)) is None


@given(
    name=st.text(min_size=1).filter(str.strip),
    other=st.sampled_from(["{name}", "{other}", "{{", "a\x00b", "<b>"]),
)
def test_names_are_data_and_never_slots(name, other):
    concept = Concept("c", name, countable=False)
    name = as_word(concept).name
    for frame in frames("noun", False):
        prompt = fill(frame, concept, (Concept("o", other, other), CAT, WOLF), (other,))
        assert prompt is not None
        start, end = prompt.span
        assert prompt.text[start:end].casefold() == name.casefold() or frame.kind == "form"
        if "other" in frame.needs:
            assert other in prompt.text or other.capitalize() in prompt.text


def test_no_attack_has_a_qualifier_and_senses_of_a_word_are_related():
    slope, money = Concept("s", "bank (slope)"), Concept("m", "bank (institution)")
    wolf = Concept("w", "wolf (canine)", "a beast")
    for frame in frames("noun", False):
        prompt = fill(frame, slope, (wolf, CAT, CAT), ("word",))
        assert "(" not in prompt.text and "wolf)" not in prompt.text
    assert related(slope, money) and related(slope, Concept("x", "rim", aliases=("bank",)))
    assert not related(slope, wolf)
    assert truly_about(Prompt("s", "The wolf ran.", (4, 8), "f"), slope, Concept("x", "wolf (canine)"))


def test_reading_a_longer_name_or_a_relative_is_no_misreading():
    text = "She bought a hot dog in the street."
    mention = Prompt("dog", text, (17, 20), "f")
    assert text[17:20] == "dog"
    assert truly_about(mention, DOG, HOT_DOG)
    assert not truly_about(mention, DOG, CAT)
    assert not truly_about(Prompt("dog", "A hot dog saw a dog.", (16, 19), "f"), DOG, HOT_DOG)
    assert related(DOG, Concept("canine", "canine", broader="dog"))
    assert related(DOG, Concept("hound", "hound", aliases=("Dog",)))
    assert not related(DOG, CAT)


class Trap:
    """Reads concept 1 if a trap word is before the mention, else the truth."""

    concepts = NAMES

    def read(self, activations):
        scores = np.zeros((len(activations), 3), np.float32)
        truth = activations[:, 0, 0].astype(int)
        scores[np.arange(len(truth)), truth] = 1.0
        scores[:, 1] += np.where(truth != 1, activations[:, 0, 1], 0)
        return scores

    def add_concepts(self, ids, signatures):
        raise NotImplementedError

    def save(self, folder):
        raise NotImplementedError


def trapped(trap: str, tmp_path: Path, judging: bool = False, **options) -> Context:
    """Return a context whose capture gives [truth, 2 for each `trap` before the mention]."""

    def capture(prompts):
        place = {name: index for index, name in enumerate(Trap.concepts)}
        rows = [[place[p.concept], 2.0 * p.text[: p.span[0]].lower().count(trap)] for p in prompts]
        return np.array(rows, np.float32)[:, None, :]

    mean = np.array([[[0, 0]], [[1, 0]], [[2, 0]]], np.float32)
    return Context(
        0, "cpu", Options(**options), tmp_path,
        all_concepts=[DOG, CAT, WOLF], judging=judging, interpreter=Trap(), capture=capture,
        signatures=Signatures(mean, np.zeros_like(mean), np.ones(3, np.int32)), prompts_wanted=6,
    )  # fmt: skip


def test_what_is_misread_is_found_and_recorded_with_its_margin(tmp_path: Path):
    context = trapped("cat", tmp_path, escapes=False)
    prompts = list(adversarial.sample_prompts([DOG, WOLF], 3, context))
    assert {p.concept for p in prompts} == {"dog", "wolf"} and len(prompts) <= 12
    assert all("cat" in p.text[: p.span[0]].lower() for p in prompts)
    (record,) = (tmp_path / "attacks").glob("*.json")
    content = json.loads(record.read_text())
    for name in ("dog", "wolf"):
        succeeded = content[name]["succeeded"]
        assert content[name]["tried"] > len(succeeded) > 0
        assert all(a["margin"] == pytest.approx(1 - 2 * a["text"].lower().count("cat")) for a in succeeded)
        assert {a["read_as"] for a in succeeded} == {"cat"}


def test_the_search_finds_the_word_that_misleads(tmp_path: Path):
    """`purrs` is only in the definition of a neighbour; no written frame names it without its definition."""
    context = trapped("purrs", tmp_path)
    search = AttackSearch(context, beam=2, words=50, steps=1)
    found = [a for a in search.attack([DOG], 3)["dog"] if ".search." in a.prompt.family]
    assert found and found[0].margin < 0 and "purrs" in found[0].prompt.text
    blind = AttackSearch(trapped("nothing like it", tmp_path), beam=2, words=50, steps=1)
    assert all(a.margin > 0 for a in blind.attack([DOG], 3)["dog"])


def test_escapes_fill_up_and_the_worst_come_first(tmp_path: Path):
    none = list(adversarial.sample_prompts([DOG], 3, trapped("nothing like it", tmp_path, escapes=False)))
    some = list(adversarial.sample_prompts([DOG], 3, trapped("nothing like it", tmp_path)))
    assert none == [] and len(some) == 6


def test_no_concept_gets_more_than_the_run_asks_of_it(tmp_path: Path):
    context = trapped("cat", tmp_path)
    context.wanted = {"dog": 1, "wolf": 3}
    prompts = list(adversarial.sample_prompts([DOG, WOLF], 3, context))
    assert [p.concept for p in prompts] == ["dog", "wolf", "wolf", "wolf"]


def test_judging_gives_every_attack_from_other_frames_and_writes_nothing(tmp_path: Path):
    making = list(adversarial.sample_prompts([DOG], 3, trapped("cat", tmp_path / "a")))
    judging = list(adversarial.sample_prompts([DOG], 3, trapped("cat", tmp_path / "b", judging=True)))
    assert not {p.family for p in making} & {p.family for p in judging}
    assert any("cat" not in p.text for p in judging) and any("cat" in p.text for p in judging)
    assert not (tmp_path / "b").exists()


def test_the_same_seed_gives_the_same_attacks(tmp_path: Path):
    first, again = (list(adversarial.sample_prompts([DOG, WOLF], 3, trapped("cat", tmp_path))) for _ in "ab")
    alone = list(adversarial.sample_prompts([WOLF], 3, trapped("cat", tmp_path)))
    assert first == again and [p for p in first if p.concept == "wolf"] == alone


def test_it_can_not_be_the_first_stage(encyclo, tiny_flags, tmp_path: Path):
    result = encyclo("run", "--sampler", "adversarial", "--out", tmp_path / "no", *tiny_flags)
    assert result.returncode == 2 and "first sampler has none" in one_sentence(result.stderr)
    assert not (tmp_path / "no").exists()


def test_a_run_with_stage_three_judges_by_fresh_attacks_and_trains_on_its_own(
    encyclo, tiny_flags, tmp_path: Path
):
    out = tmp_path / "run"
    samplers = ["--sampler", "templates", "--sampler", "adversarial"]
    result = encyclo("run", *samplers, "--limit", "20", "--per-concept", "8", "--out", out, *tiny_flags)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((out / "metrics.json").read_text())
    row = metrics["stages"][1]
    assert row["stage"] == 3 and row["samples"] > 0
    assert row["attacks"]["before"]["n"] > 100 and 0 <= row["attacks"]["before"]["top1"] <= 1
    assert metrics["accuracy"]["adversarial"] == {"transformer": row["attacks"]["after"]}
    with h5py.File(out / "encyclopedia.h5") as file:
        families = set(file["samples/family"].asstr()[...][file["samples/stage"][...] == 3])
    assert families and all(".train." in family for family in families)
    judged = {f for split in ("validation", "calibration", "test") for f in metrics["splits"][split]}
    assert not families & judged and families <= set(metrics["splits"]["train"])
