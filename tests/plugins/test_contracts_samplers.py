"""The built-in samplers keep the contract; careless ones break it, check by check."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from encyclo.testing.fixtures.planted import NAMES, PlantedConcepts
from encyclo.testing.samplers import SamplerContract, is_form
from encyclo.types import Context, Prompt


class TestRaw(SamplerContract):
    plugin = "raw"


class TestTemplates(SamplerContract):
    plugin = "templates"


class TestQuotedTemplates(SamplerContract):
    plugin = "templates"
    options = {"groups": ["quoted"]}  # noqa: RUF012
    prompts = 5_000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["raw", "templates"])
def test_a_million_prompts_stay_out_of_memory(name: str, tmp_path: Path):
    contract = type("Million", (SamplerContract,), {"plugin": name, "prompts": 1_000_000})()
    contract.check_memory_is_flat(tmp_path)


def say(concept, before="Say ", after="", family="say", grow=0) -> Prompt:
    return Prompt(
        concept.id,
        before + concept.name + after,
        (len(before), len(before) + len(concept.name) + grow),
        family,
    )


def good(concepts, context):
    for concept in concepts:
        for number in range(min(context.prompts_for(concept.id), 4)):
            yield say(concept, after="!" * number, family=f"say.{number}")


def keeping(concepts, context, kept=[]):  # noqa: B006
    for prompt in good(concepts, context):
        kept.append(prompt)
        yield prompt


def alternating(concepts, context):
    for number in range(2):
        yield from (say(c, after="." * number) for c in concepts)


def unnamed(concept):
    return Prompt(concept.id, f"Say {concept.name} now", None, "say")


CARELESS = {
    "every_concept_has_prompts": [
        lambda cs, ctx: good(cs[1:], ctx),
        lambda cs, ctx: (say(c, after="!" * i) for c in cs for i in range(ctx.prompts_wanted + 1)),
        alternating,
        lambda cs, ctx: ["Say dog"],
    ],
    "gives_no_more_than_a_concept_was_asked_for": [
        lambda cs, ctx: (say(c, after="!" * i) for c in cs for i in range(ctx.prompts_wanted)),
    ],
    "no_prompt_is_repeated": [lambda cs, ctx: (say(c) for c in cs for _ in range(2))],
    "spans_match_the_mention": [
        lambda cs, ctx: (say(c, after=" now", grow=1) for c in cs),
        lambda cs, ctx: (say(c, after=" now", grow=-1) for c in cs),
        lambda cs, ctx: (say(c, grow=1) for c in cs),
        lambda cs, ctx: (unnamed(c) for c in cs),
    ],
    "texts_are_clean": [
        lambda cs, ctx: (say(c, before=" ") for c in cs),
        lambda cs, ctx: (say(c, after="\0") for c in cs),
        lambda cs, ctx: (say(c, after=" {name}") for c in cs),
    ],
    "families_are_shared": [
        lambda cs, ctx: (say(c, family=f"say.{c.id}") for c in cs),
        lambda cs, ctx: (say(c, family="") for c in cs),
    ],
    "is_the_same_for_a_seed": [lambda cs, ctx: (say(c, after=str(random.random())) for c in cs)],
    "does_not_depend_on_other_concepts": [lambda cs, ctx: (say(c, after=f", {i}") for i, c in enumerate(cs))],
    "draws_from_the_context_alone": [lambda cs, ctx: (say(c, after=str(random.random())) for c in cs)],
    "examples_are_never_used": [lambda cs, ctx: (Prompt(c.id, c.examples[0], None, "x") for c in cs)],
    "is_lazy": [lambda cs, ctx: iter(list(good(cs, ctx)))],
    "memory_is_flat": [keeping, lambda cs, ctx: good(cs[:10], ctx)],
}  # fmt: skip
CASES = [(check, index) for check, samplers in CARELESS.items() for index in range(len(samplers))]


def contract_of(sampler) -> SamplerContract:
    class Given(SamplerContract):
        plugin = "raw"
        prompts = 10_000

        def sample(self, concepts, folder, **more):
            context = Context(0, "cpu", None, folder, **{"prompts_wanted": self.wanted, **more})
            return iter(sampler(concepts, context))

        def context(self, folder, **more):
            raise AssertionError("not needed")

    return Given()


@pytest.mark.parametrize(("check", "index"), CASES, ids=[f"{c}-{i}" for c, i in CASES])
def test_a_careless_sampler_is_found_out(check: str, index: int, tmp_path: Path):
    problem = contract_of(CARELESS[check][index]).find(check, tmp_path).problem
    assert problem is not None and problem.startswith("ContractError"), problem


@pytest.mark.parametrize("check", CARELESS)
def test_a_careful_sampler_is_not(check: str, tmp_path: Path):
    assert contract_of(good).find(check, tmp_path).problem is None


@pytest.mark.parametrize(
    ("text", "name"),
    [("dogs", "dog"), ("Children", "child"), ("running", "run"), ("lay", "lie"), ("tried", "try"), ("stopping", "stop"),
     ("gave up", "give up"), ("mothers-in-law", "mother-in-law"), ("ice creams", "ice cream"), ("cafés", "café"),
     ("grows", "grow (increase)"), ("grow (increase)", "grow (increase)")],
)  # fmt: skip
def test_inflected_forms_are_mentions(text: str, name: str):
    assert is_form(text, name)


@pytest.mark.parametrize(
    ("text", "name"), [("dog ", "dog"), ("do", "dog"), ("the dog", "dog"), ("cat", "dog"), ("", "x")]
)
def test_other_words_are_none(text: str, name: str):
    assert not is_form(text, name)


def test_planted_concepts_are_made_when_asked_for():
    concepts = PlantedConcepts(10**9)
    assert concepts[5].name == concepts[5 + len(NAMES)].name and concepts[5].id != concepts[5 + len(NAMES)].id
    assert concepts.furthest == 5 + len(NAMES) and concepts[-1].id == f"planted {10**9 - 1}"
