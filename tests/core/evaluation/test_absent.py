"""How sure `encyclo read` is of concepts without an entry."""

from __future__ import annotations

import numpy as np
import pytest

from encyclo.entry_words import EntryWords
from encyclo.evaluation.absent import NamedSamples, read_absent
from encyclo.statistics.confidence import Calibrator, TrainingDistribution
from encyclo.types import Concept

KNOWN = TrainingDistribution(np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32))
CALIBRATOR = Calibrator(1.0, 0.0, 1.0, 50.0, 60.0, 5.0, 0.9, 100, "heldout_prompts", KNOWN)
WORDS = EntryWords.of(
    [Concept("dog", "dog", aliases=("hound",)), Concept("cat", "cat"), Concept("owl", "owl")]
)


class Reads:
    """An interpreter whose scores are the activations."""

    def read(self, activations: np.ndarray) -> np.ndarray:
        return activations[:, 0]


def given(*samples: tuple[str, int, list[float]]) -> NamedSamples:
    scores = np.array([[row] for *_, row in samples], np.float32)
    return NamedSamples(
        scores, np.array([c for _, c, _ in samples], np.int32), [text for text, *_ in samples]
    )


SURE = [20.0, 0.0, 0.0]


def test_a_concept_is_read_only_where_an_entrys_word_stands():
    """A wolf looks like a dog, but is not called one; a hound is an entry's word."""
    absent = given(("We saw a wolf", 7, SURE), ("We saw a hound", 7, SURE), ("hot", 7, SURE), ("It", 7, SURE))
    found = read_absent(Reads(), CALIBRATOR, WORDS, absent, given(("The dogs", 0, SURE)))
    assert (found.interpreter_alone.above_half, found.read.above_half) == (1, 0.25)
    assert found.read.median == 0 and found.read.n == 4
    assert (found.known_lost, found.known) == (0, 1)


def test_what_the_words_cost_known_samples_is_counted():
    known = given(("A dog", 0, SURE), ("A mutt", 0, SURE), ("A mutt", 1, SURE), ("A cat", 0, SURE))
    found = read_absent(Reads(), CALIBRATOR, WORDS, given(("x", 7, SURE)), known)
    assert found.known_lost == pytest.approx(2 / 4), "a mutt that is a dog, and a dog that is called a cat"


def test_without_samples_nothing_is_measured():
    none = NamedSamples(np.empty((0, 1, 3), np.float32), np.empty(0, np.int32), [])
    assert read_absent(Reads(), CALIBRATOR, WORDS, none, given(("A dog", 0, SURE))) is None
