"""Prompts of templates and diverse that mention a concept by an alias."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from encyclo.plugins.manager import Plugins
from encyclo.types import Concept, Context, Prompt

DOGS = [Concept(f"dog {n}", "dog", aliases=("hound", "puppy"), countable=True) for n in range(60)]


def drawn(sampler: str, concepts: list[Concept], **more: object) -> list[Prompt]:
    plugins = Plugins()
    options = plugins.options(sampler, {})
    context = Context(0, "cpu", options, Path(), prompts_wanted=10, **more)
    found = plugins.call("sample_prompts", sampler, concepts=concepts, stage=1, context=context)
    return list(found)


def mention(prompt: Prompt) -> str:
    return prompt.text[slice(*prompt.span)].lower()


@pytest.mark.parametrize("sampler", ["templates", "diverse"])
def test_a_third_of_the_prompts_use_an_alias(sampler: str):
    prompts = [prompt for prompt in drawn(sampler, DOGS) if prompt.span]
    words = [mention(prompt) for prompt in prompts]
    by_alias = [word for word in words if word.startswith(("hound", "pupp"))]
    assert 0.25 < len(by_alias) / len(words) < 0.42
    assert {"hound", "hounds", "puppy", "puppies", "dog", "dogs"} >= set(words)
    assert not any(" a hounds" in p.text or "an puppy" in p.text for p in prompts)


@pytest.mark.parametrize("sampler", ["templates", "diverse"])
def test_families_and_the_prompts_by_name_stay(sampler: str):
    """An alias takes a name's place in its template; a concept without aliases has the prompts that it had."""
    plain = drawn(sampler, [dataclasses.replace(dog, aliases=()) for dog in DOGS])
    prompts = drawn(sampler, DOGS)
    assert [p.family for p in prompts] == [p.family for p in plain]
    same = [p for p, q in zip(prompts, plain, strict=True) if p == q]
    assert all("dog" in mention(p) for p in same if p.span) and len(same) > len(plain) / 2
    assert all("dog" in mention(p) for p in plain if p.span)


def test_an_alias_that_mostly_means_something_else_is_not_used():
    unclear = [dataclasses.replace(dog, word_shares=(0.9, 0.1, 0.8)) for dog in DOGS]
    assert not any("hound" in prompt.text for prompt in drawn("templates", unclear))
    held_out = [dataclasses.replace(dog, aliases=(), held_out_aliases=dog.aliases) for dog in DOGS]
    assert not any("hound" in prompt.text for prompt in drawn("templates", held_out))


def test_a_held_out_alias_is_in_no_description():
    concept = Concept("dog", "dog", "young hound; animal that barks at night", held_out_aliases=("hound",))
    texts = [prompt.text for prompt in drawn("diverse", [concept]) if prompt.span is None]
    assert texts and not any("hound" in text for text in texts)
