"""A reader of words: planted meanings are told apart, other meanings are none, and what was not seen keeps its shares."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from encyclo.entry_words import NONE, NamedWord
from encyclo.runs.calibration_file import ReadingModel, load_calibration, save_calibration
from encyclo.statistics import confidence, word_training
from encyclo.statistics.word_reader import forward
from encyclo.statistics.word_training import Mentions, discriminants, fit

BANK = NamedWord("bank", {0: 0.6, 1: 0.3})
DOG = NamedWord("dog", {2: 0.9})
SHAPE = (2, 20)


def planted(seed: int, number: int = 900, words: tuple[NamedWord, ...] = (BANK, DOG)) -> Mentions:
    """Each meaning has a direction of its own; half of the mentions mean the first entry, the rest are even."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((4, *SHAPE)).astype(np.float32) * 2
    chosen = [words[place % len(words)] for place in range(number)]
    meant = [int(generator.choice([*list(word)[:1] * len(word), *list(word)[1:], NONE])) for word in chosen]
    values = centres[meant] + generator.standard_normal((number, *SHAPE)).astype(np.float32)
    return Mentions(values * 100 + 50, np.array(meant, np.int32), chosen, generator.integers(0, 12, number))


@pytest.fixture(scope="module")
def reader():
    return fit(planted(1), seed=0)


def best(found: list[dict[int, float]]) -> np.ndarray:
    """Return the likeliest meaning, none included."""
    return np.array(
        [max({**some, NONE: 1 - sum(some.values())}.items(), key=lambda kv: kv[1])[0] for some in found]
    )


def test_meanings_are_told_apart_and_none_is_one_of_them(reader):
    test = planted(2)
    found = reader.confidences(test.activations, test.words)
    assert (best(found) == test.meant).mean() > 0.95
    assert all(0 <= sum(some.values()) <= 1 + 1e-9 for some in found)
    assert [set(some) for some in found] == [set(word) for word in test.words]
    sure = np.array([max(some.values()) for some in found])
    assert (
        abs(
            sure.mean() - (best(found) == test.meant)[test.meant != NONE].mean() * (test.meant != NONE).mean()
        )
        < 0.1
    )


def test_a_word_without_entries_has_no_confidences(reader):
    values = planted(3, 2).activations
    assert reader.confidences(values, [NamedWord(), NamedWord()]) == [{}, {}]
    only = reader.confidences(values, [NamedWord(), DOG])
    assert only[0] == {} and only[1] == pytest.approx(reader.confidences(values[1:], [DOG])[0])


def test_a_word_that_was_not_seen_follows_its_shares(reader):
    values = planted(4, 200).activations
    new = NamedWord("cat", {5: 0.7, 6: 0.2})
    found = reader.confidences(values, [new] * 200)
    assert np.mean([some[5] > some[6] for some in found]) > 0.9


def test_the_same_mentions_and_seed_give_the_same_reader(reader):
    again, other = fit(planted(1), seed=0), fit(planted(1), seed=1)
    assert again.temperature == reader.temperature and np.array_equal(again.projection, reader.projection)
    assert not np.array_equal(other.ranker[0][0], reader.ranker[0][0])


def test_a_mention_is_compared_with_other_sources_only():
    """Every source has one mention, whose noise would otherwise give its meaning away."""
    generator = np.random.default_rng(5)
    noise = Mentions(
        generator.standard_normal((400, *SHAPE)).astype(np.float32),
        generator.choice([0, 1, NONE], 400).astype(np.int32),
        [BANK] * 400,
        np.arange(400),
    )
    found = fit(noise, seed=0).confidences(
        generator.standard_normal((400, *SHAPE)).astype(np.float32), [BANK] * 400
    )
    assert np.mean([max(some.values()) for some in found]) < 0.6


def test_a_reader_is_kept_in_calibration_json(reader, tmp_path):
    known = confidence.TrainingDistribution(np.zeros(SHAPE, np.float32), np.ones(SHAPE, np.float32))
    calibrator = confidence.Calibrator(1.0, 0.0, 1.0, 0.0, 1.0, np.inf, 0.9, 20, "natural", known)
    save_calibration(tmp_path, ReadingModel(calibrator, word_reader=reader))
    loaded = load_calibration(tmp_path).word_reader
    test = planted(6)
    one, other = (r.confidences(test.activations, test.words) for r in (reader, loaded))
    assert max(abs(a[row] - b[row]) for a, b in zip(one, other, strict=True) for row in a) < 0.01
    assert (loaded.n, loaded.means.place) == (reader.n, reader.means.place)


def test_many_dimensions_are_projected_first(monkeypatch):
    monkeypatch.setattr(word_training, "MOST_DIMENSIONS", 16)
    mentions, test = planted(1), planted(2)
    projection, offset = discriminants(mentions.activations, mentions.meant - NONE)
    assert projection.shape == (40, 16) and offset.shape == (16,)
    found = fit(mentions, seed=0).confidences(test.activations, test.words)
    assert (best(found) == test.meant).mean() > 0.8


def test_the_network_equals_torch(reader):
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
    (first, bias), (second, last) = reader.ranker
    hidden = torch.nn.functional.gelu(torch.from_numpy(values @ first + bias), approximate="tanh").numpy()
    assert forward(reader.ranker, values) == pytest.approx(hidden @ second + last, abs=1e-5)


def test_unknown_shares_split_what_is_left():
    assert NamedWord("bank", {1: None, 0: 0.5}).meanings() == [(0, 0.5), (1, 0.5), (NONE, 0.0)]
    assert BANK.meanings()[-1] == (NONE, pytest.approx(0.1))
    assert dataclasses.astuple(planted(1, 4))[1].shape == (4,)
