"""Which aliases are held out of sampling, and that nothing but them changes."""

from __future__ import annotations

import dataclasses

from encyclo.held_out_aliases import clear_aliases, held_out, named, without_held_out
from encyclo.types import Concept

DOG = Concept(
    "dog", "dog", aliases=("hound", "puppy", "canine", "mutt"), word_shares=(0.9, 0.1, 0.6, 0.5, 0.4)
)


def test_half_of_the_aliases_are_held_out():
    kept = without_held_out(DOG, 0)
    assert len(kept.aliases) == len(kept.held_out_aliases) == 2
    assert {*kept.aliases, *kept.held_out_aliases} == set(DOG.aliases)
    assert dataclasses.replace(kept, aliases=(), word_shares=(), held_out_aliases=()) == named(DOG, "dog")


def test_the_half_depends_on_seed_concept_and_alias_alone():
    assert held_out(DOG, 0) == held_out(dataclasses.replace(DOG, aliases=DOG.aliases[::-1]), 0)
    assert len({held_out(DOG, seed) for seed in range(20)}) > 2
    assert len({held_out(dataclasses.replace(DOG, id=str(i)), 0) for i in range(20)}) > 2


def test_a_single_alias_is_held_out_for_about_half_of_the_concepts():
    one = [Concept(str(number), "dog", aliases=("hound",)) for number in range(400)]
    assert 160 < sum(len(held_out(concept, 0)) for concept in one) < 240
    three = [Concept(str(number), "dog", aliases=("hound", "puppy", "mutt")) for number in range(100)]
    assert {len(held_out(concept, 0)) for concept in three} == {1, 2}


def test_the_shares_stay_with_their_aliases():
    shares = dict(zip(DOG.aliases, DOG.word_shares[1:], strict=True))
    for seed in range(9):
        kept = without_held_out(DOG, seed)
        assert kept.word_shares == (0.9, *(shares[alias] for alias in kept.aliases))


def test_a_concept_without_aliases_is_unchanged():
    concept = Concept("dog", "dog")
    assert without_held_out(concept, 0) == concept


def test_an_alias_is_clear_if_it_mostly_means_the_concept():
    assert clear_aliases(DOG) == ("puppy", "canine")
    assert clear_aliases(dataclasses.replace(DOG, word_shares=())) == DOG.aliases
