"""A rung is read once, for its figures and for its null."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from encyclo.evaluation.rungs import measure, read_twice
from encyclo.pipeline.natural_sentences import RungSamples
from encyclo.statistics import accuracy
from encyclo.statistics.confidence import TrainingDistribution
from encyclo.types import Concept, SampleSet

KNOWN = TrainingDistribution(np.zeros((1, 7), np.float32), np.ones((1, 7), np.float32))


class Reads:
    """An interpreter whose scores are the activations; it counts what it reads."""

    def __init__(self, candidates: int = 7) -> None:
        self.concepts = [f"c{i}" for i in range(candidates)]
        self.count = 0

    def read(self, activations: np.ndarray) -> np.ndarray:
        self.count += len(activations)
        return activations[:, 0, : len(self.concepts)]


def rung_of(count: int) -> RungSamples:
    """Return samples whose concept mostly has the best score, in an order that is not the rows'."""
    generator = np.random.default_rng(0)
    concept = generator.integers(0, 7, count).astype(np.int32)
    values = generator.normal(size=(count, 1, 7)).astype(np.float32)
    values[np.arange(count), 0, concept] += 2
    zeros = np.zeros(count, np.int32)
    samples = SampleSet(
        concept, zeros == 0, zeros, ("f",), zeros.astype(np.int8), (-1,), lambda rows: values[rows]
    )
    return RungSamples(samples, generator.permutation(count)[: count // 2])


def test_the_null_is_the_accuracy_of_a_shuffled_truth(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(accuracy, "BATCH", 64)
    rung, reader, seed = rung_of(400), Reads(), 5
    found, readings = measure(reader, rung, [Concept(c, c) for c in reader.concepts], KNOWN, seed)
    assert reader.count == len(rung.rows) == len(readings)
    wrong = dataclasses.replace(rung.samples, concept=accuracy.shuffled(rung.samples.concept, 7, seed))
    expected = accuracy.accuracy(accuracy.rank_samples(reader, wrong, rung.rows), 7)
    assert found.null == expected and expected.top1 < 0.2 < 0.5 < found.top1


def test_chosen_readings_keep_their_null():
    rung, reader = rung_of(100), Reads()
    read, chosen = read_twice(reader, rung, KNOWN, 0), np.arange(50) % 3 == 0
    some = read_twice(reader, dataclasses.replace(rung, rows=rung.rows[chosen]), KNOWN, 0)
    np.testing.assert_array_equal(read.take(chosen).null, some.null)
    np.testing.assert_array_equal(read.take(chosen).readings.rank, some.readings.rank)


def test_a_single_candidate_and_no_sample_have_no_null():
    rung, reader = rung_of(20), Reads(1)
    rung = dataclasses.replace(
        rung, samples=dataclasses.replace(rung.samples, concept=np.zeros(20, np.int32))
    )
    found, _ = measure(reader, rung, [Concept("c0", "c0")], KNOWN, 0)
    assert found.top1 == 1 and found.null is None
    nothing = dataclasses.replace(rung, rows=np.empty(0, np.int64))
    assert measure(reader, nothing, [Concept("c0", "c0")], KNOWN, 0)[0] is None
