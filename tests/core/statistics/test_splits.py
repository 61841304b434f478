"""Which families judge and which train."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encyclo.statistics.splits import (
    HELD_OUT_SHARE,
    leaked_prompts,
    names_itself,
    split_families,
    unseen_concepts,
)
from encyclo.types import Concept, Split

HELD_OUT = (Split.TEST, Split.CALIBRATION, Split.VALIDATION)


def counts(families: int, seed: int = 0) -> Counter[Split]:
    return Counter(split_families({1: [f"f{i}" for i in range(families)]}, seed).values())


family_lists = st.dictionaries(
    st.integers(0, 3), st.lists(st.text(max_size=5), min_size=1, max_size=40), min_size=1
)


@given(family_lists, st.integers(0, 2**63 - 1))
def test_every_family_has_one_split_and_every_stage_with_new_families_trains(families, seed):
    assigned = split_families(families, seed)
    assert assigned.keys() == {name for names in families.values() for name in names}
    before: set[str] = set()
    for _, names in sorted(families.items()):
        new = set(names) - before
        assert not new or Split.TRAIN in {assigned[name] for name in new}
        before |= new


@given(family_lists, st.integers(0, 2**63 - 1), st.randoms(use_true_random=False))
def test_order_and_repeats_change_nothing(families, seed, random):
    shuffled = {stage: names * 2 for stage, names in reversed(families.items())}
    for names in shuffled.values():
        random.shuffle(names)
    assert split_families(shuffled, seed) == split_families(families, seed)


@given(family_lists, st.integers(0, 2**63 - 1))
def test_a_stage_is_split_the_same_whatever_other_stages_the_run_has(families, seed):
    families = {stage: [f"{stage}.{name}" for name in names] for stage, names in families.items()}
    together = split_families(families, seed)
    alone = {}
    for stage, names in families.items():
        alone.update(split_families({stage: names}, seed))
    assert alone == together


def test_one_family_trains():
    assert counts(1) == {Split.TRAIN: 1}


def test_of_two_families_one_tests():
    assert counts(2) == {Split.TRAIN: 1, Split.TEST: 1}


def test_of_three_families_one_also_calibrates():
    assert counts(3) == {Split.TRAIN: 1, Split.TEST: 1, Split.CALIBRATION: 1}


@pytest.mark.parametrize("families", range(4, 101))
def test_from_four_on_every_split_has_its_share(families):
    found = counts(families)
    share = max(1, round(HELD_OUT_SHARE * families))
    assert [found[split] for split in HELD_OUT] == [share] * 3
    assert found[Split.TRAIN] == families - 3 * share >= 1


def test_the_seed_decides_which_families_are_held_out():
    families = {1: [f"f{i}" for i in range(28)]}
    chosen = [
        frozenset(key for key, split in split_families(families, seed).items() if split is Split.TEST)
        for seed in range(20)
    ]
    assert len(set(chosen)) > 15
    tested = Counter(itertools.chain.from_iterable(chosen))
    assert len(tested) > 20, "over many seeds nearly every family is a test family at times"


def test_stages_are_shuffled_independently():
    assigned = split_families({s: [f"{s}.f{i}" for i in range(28)] for s in (1, 2)}, 0)
    by_stage = [[assigned[f"{s}.f{i}"] for i in range(28)] for s in (1, 2)]
    assert by_stage[0] != by_stage[1]


@given(family_lists, st.integers(0, 2**63 - 1))
def test_a_name_has_one_split_in_all_stages_that_of_the_first(families, seed):
    first = min(families)
    assert split_families({first: families[first]}, seed).items() <= split_families(families, seed).items()


def test_a_name_that_an_attack_has_as_well_only_trains():
    families = {1: [f"f{i}" for i in range(28)], 3: ["f3", "f7", "a"]}
    assigned = split_families(families, 0, chosen={3})
    assert all(assigned[name] is Split.TRAIN for name in families[3])
    assert {split for name, split in assigned.items() if name.startswith("f")} == set(Split)


CONCEPTS = [Concept(id=f"c{i}", name=f"name{i}") for i in range(50)]


def test_a_fifth_of_the_concepts_is_unseen_whatever_their_order():
    places = unseen_concepts(CONCEPTS, 0)
    assert len(places) == 10 == len(set(places))
    turned = CONCEPTS[::-1]
    assert {CONCEPTS[i].id for i in places} == {turned[i].id for i in unseen_concepts(turned, 0)}
    assert unseen_concepts(CONCEPTS, 1) != places
    fifths = [unseen_concepts(CONCEPTS, 0, fifth) for fifth in range(5)]
    assert fifths[0] == places
    assert sorted(place for fifth in fifths for place in fifth) == list(range(len(CONCEPTS)))


def test_a_prompt_on_both_sides_is_found_in_any_case_and_spacing():
    training = iter(["The dog barked.", "A cat."])
    assert leaked_prompts(training, ["the  DOG barked.", "A dog.", "a cat.", "a cat. "]) == {0, 2, 3}
    assert leaked_prompts([], ["A dog."]) == set()


@pytest.mark.parametrize(
    ("name", "aliases", "definition", "itself"),
    [
        ("dog", (), "a tame animal that barks", False),
        ("dog", (), "what dogs are", True),
        ("mouse", (), "one of the mice", True),
        ("happiness", (), "being happy", True),
        ("hound", ("dog",), "a hunting dog", True),
        ("house of cards", (), "a thing of no strength", False),
        ("ice cream", (), "frozen cream", True),
        ("bank (slope)", (), "a slope beside water", False),
    ],
)
def test_a_definition_that_names_its_concept_is_found(name, aliases, definition, itself):
    assert names_itself(Concept(id="x", name=name, aliases=aliases), definition) is itself
