"""Ranks and what follows from them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from encyclo.statistics import accuracy as evaluation
from encyclo.types import SampleSet

NAN = np.nan


def ranks_of(scores, truth) -> list[int]:
    return evaluation.true_ranks(np.array(scores, np.float32), np.array(truth, np.int32)).tolist()


def test_the_highest_score_has_rank_one():
    assert ranks_of([[0.1, 0.9, 0.5]] * 3, [0, 1, 2]) == [3, 1, 2]


def test_ties_count_against_the_reader():
    assert ranks_of([[1, 1, 0], [1, 1, 1], [0, 0, 1]], [0, 2, 0]) == [2, 3, 3]


@pytest.mark.parametrize("truth", [0, 1, 2])
def test_a_reader_of_nothing_but_nan_is_last(truth):
    assert ranks_of([[NAN, NAN, NAN]], [truth]) == [3]


def test_a_nan_for_the_truth_is_last_and_one_for_another_is_never_beaten():
    assert ranks_of([[NAN, 0.1, 0.2]], [0]) == [3]
    assert ranks_of([[0.5, NAN, 0.2]], [0]) == [2]


def test_infinite_scores_are_ordered():
    assert ranks_of([[np.inf, 1, -np.inf]] * 3, [0, 1, 2]) == [1, 2, 3]


@given(
    arrays(np.float32, (7, 5), elements=st.floats(-2, 2, width=16)),
    arrays(np.int32, 7, elements=st.integers(0, 4)),
)
def test_a_rank_is_one_more_than_the_others_that_are_not_worse(scores, truth):
    expected = [
        1 + sum(score >= row[own] for place, score in enumerate(row) if place != own)
        for row, own in zip(scores.tolist(), truth.tolist(), strict=True)
    ]
    assert evaluation.true_ranks(scores, truth).tolist() == expected


def test_accuracy_of_a_worked_example():
    found = evaluation.accuracy(np.array([1, 1, 5, 11, 100, 101]), candidates=200).as_json()
    assert found == {
        "top1": pytest.approx(2 / 6),
        "top10": pytest.approx(3 / 6),
        "top100": pytest.approx(5 / 6),
        "median_rank": 8.0,
        "candidates": 200,
        "n": 6,
    }
    assert all(type(value) in (int, float) for value in found.values()), "JSON takes no numpy numbers"


def test_accuracy_of_nothing_is_unknown():
    assert evaluation.accuracy(np.empty(0, np.int64), candidates=10) is None


class Echo:
    """Reads a sample's single value as the column that scores highest; notes its batches."""

    def __init__(self, count: int) -> None:
        self.concepts = [str(i) for i in range(count)]
        self.batches: list[int] = []

    def read(self, activations: np.ndarray) -> np.ndarray:
        self.batches.append(len(activations))
        return -np.abs(activations[:, 0] - np.arange(len(self.concepts), dtype=np.float32))


def echo_samples(seen: np.ndarray, truth: np.ndarray) -> SampleSet:
    zeros = np.zeros(len(truth), np.int32)
    return SampleSet(
        truth.astype(np.int32), np.ones(len(truth), bool), zeros, ("f",), zeros.astype(np.int8), (1,),
        fetch=lambda rows: seen[rows].astype(np.float32)[:, None, None],
    )  # fmt: skip


def test_samples_are_ranked_in_the_order_of_their_rows_over_batches():
    count = 2 * evaluation.BATCH + 3
    generator = np.random.default_rng(0)
    seen = generator.integers(0, 4, count)
    truth = np.where(generator.uniform(size=count) < 0.5, seen, 3 - seen)
    rows = generator.permutation(count)
    reader = Echo(4)
    ranks = evaluation.rank_samples(reader, echo_samples(seen, truth), rows)
    np.testing.assert_array_equal(ranks == 1, (seen == truth)[rows])
    assert sum(reader.batches) == count
    assert max(reader.batches) <= evaluation.BATCH


def test_no_rows_give_no_ranks():
    samples = echo_samples(np.arange(3), np.arange(3))
    assert evaluation.rank_samples(Echo(3), samples, np.empty(0, np.int64)).tolist() == []


def test_an_interval_draws_whole_concepts():
    """Forty readings of four concepts that are read alike: as uncertain as four, not as forty."""
    concept = np.repeat(np.arange(4), 10)
    ranks = np.where(concept < 2, 1, 50)
    found = evaluation.intervals(ranks, concept)
    assert found["top1_low"] <= 0.25 and found["top1_high"] >= 0.75
    assert (found["top10_low"], found["top10_high"]) == (found["top1_low"], found["top1_high"])
    spread = evaluation.intervals(np.where(np.arange(400) % 2, 1, 50), np.arange(400))
    assert 0.4 < spread["top1_low"] < 0.5 < spread["top1_high"] < 0.6


def test_an_interval_leaves_doubt_where_all_are_right_or_none():
    found = evaluation.intervals(np.ones(60, int), np.repeat(np.arange(20), 3))
    assert 0.8 < found["top1_low"] < 0.9 and found["top1_high"] == 1
    none = evaluation.intervals(np.full(60, 500), np.repeat(np.arange(20), 3))
    assert none["top100_low"] == 0 and 0.1 < none["top100_high"] < 0.2


def test_an_interval_is_the_same_for_a_seed():
    ranks, concept = np.random.default_rng(0).integers(1, 200, 100), np.arange(100) // 2
    assert evaluation.intervals(ranks, concept, 3) == evaluation.intervals(ranks, concept, 3)


@pytest.mark.parametrize("candidates", [2, 3, 50])
def test_a_shuffle_leaves_no_concept_in_its_place(candidates):
    concept = np.arange(candidates, dtype=np.int32)
    other = evaluation.shuffled(concept, candidates)
    assert (other != concept).all() and sorted(other) == list(range(candidates))


def test_accuracy_by_category():
    found = evaluation.by_category(np.array([1, 20, 1]), np.array([0, 1, 2], np.int32), ["a", "a", ""])
    assert {name: row.as_json() for name, row in found.items()} == {
        "none": {"top1": 1.0, "top10": 1.0, "n": 1},
        "a": {"top1": 0.5, "top10": 0.5, "n": 2},
    }


def test_the_commonest_confusions_come_first():
    truth, best = np.array([0, 0, 1, 2, 2]), np.array([1, 1, 1, 0, 1])
    found = evaluation.confused_pairs(truth, best, ["cat", "dog", "owl"])
    assert found == [("cat", "dog", 2), ("owl", "cat", 1), ("owl", "dog", 1)]
    assert evaluation.confused_pairs(truth, best, ["cat", "dog", "owl"], most=1) == [("cat", "dog", 2)]
