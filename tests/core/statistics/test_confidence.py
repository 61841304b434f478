"""Calibrators on planted readings: known ones, wrong ones, and what has no right answer."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from encyclo.errors import DamagedError
from encyclo.runs.calibration_file import ReadingModel, load_calibration, save_calibration
from encyclo.statistics import accuracy, calibration, confidence
from encyclo.statistics.accuracy import true_ranks
from encyclo.statistics.confidence import Calibrator, Readings, TrainingDistribution
from encyclo.testing.fixtures.planted import PlantedSamples
from encyclo.types import Context, SampleSet, Split
from encyclo_interpreters import centroid
from encyclo_scorers import calibrated

CONCEPTS = 30
KNOWN = TrainingDistribution(np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32))


def fit(readings: Readings) -> Calibrator:
    return confidence.fit(readings, KNOWN)


def planted(count: int, seed: int = 0, strength: float = 6.0) -> tuple[Readings, np.ndarray]:
    """Readings whose true concept's score is higher by `strength`, and all their scores."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, CONCEPTS, count).astype(np.int32)
    scores = generator.normal(size=(count, CONCEPTS)).astype(np.float32)
    scores[np.arange(count), truth] += generator.normal(strength, 1.5, count).astype(np.float32)
    return of_scores(scores, truth, generator.normal(0.3, 0.1, count).astype(np.float32)), scores


def of_scores(scores: np.ndarray, truth: np.ndarray, distance: np.ndarray) -> Readings:
    line = np.arange(len(truth))
    others = scores.copy()
    others[line, truth] = -np.inf
    return Readings(
        truth, scores.argmax(axis=1).astype(np.int32), true_ranks(scores, truth), confidence.best_scores(scores)[0],
        scores[line, truth], others.max(axis=1), distance,
    )  # fmt: skip


def test_the_temperature_among_the_best_scores_is_that_of_all_scores():
    readings, scores = planted(2000, strength=3)
    whole = calibration.fit_temperature(scores, readings.truth)
    assert fit(readings).temperature == pytest.approx(whole, rel=1e-4)


def test_a_truth_behind_the_kept_scores_still_counts(monkeypatch: pytest.MonkeyPatch):
    _, scores = planted(500, strength=2)
    monkeypatch.setattr(confidence, "KEPT", 5)
    truth = scores.argmin(axis=1).astype(np.int32)
    readings = of_scores(scores, truth, np.zeros(500, np.float32))
    assert readings.top.shape == (500, 5)
    assert fit(readings).temperature > 10, "a truth that is always last leaves no certainty"


def test_best_scores_are_the_largest_in_order(monkeypatch: pytest.MonkeyPatch):
    scores = np.random.default_rng(0).normal(size=(7, 40)).astype(np.float32)
    for kept in (1024, 6):
        monkeypatch.setattr(confidence, "KEPT", kept)
        top, columns = confidence.best_scores(scores)
        expected = -np.sort(-scores, axis=1)[:, :kept]
        np.testing.assert_array_equal(top, expected)
        np.testing.assert_array_equal(confidence.highest_scores(scores), expected)
        np.testing.assert_array_equal(np.take_along_axis(scores, columns, axis=1), expected)


def test_a_score_of_nan_is_the_last_of_the_highest(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(confidence, "KEPT", 3)
    scores = np.array([[1, np.nan, 3, np.nan, 2]], np.float32)
    np.testing.assert_array_equal(confidence.highest_scores(scores), [[3, 2, 1]])
    scores[0, 0] = np.nan
    np.testing.assert_array_equal(confidence.highest_scores(scores), [[3, 2, np.nan]])


def test_a_calibrator_works_in_blocks_bit_for_bit(monkeypatch: pytest.MonkeyPatch):
    readings, _ = planted(300, strength=3)
    top, distance, own = readings.top, readings.distance, readings.own[:, None]

    def figures(calibrator: Calibrator) -> list[np.ndarray]:
        sets = calibrator.set_sizes(top)
        return [calibrator.best_confidences(top, distance), calibrator.nonconformity(top, own), sets]

    whole = fit(readings)
    expected = figures(whole)
    np.testing.assert_array_equal(expected[0], whole.confidences(top, distance)[:, 0])
    np.testing.assert_array_equal(expected[2], (whole.nonconformity(top, top) <= whole.conformal).sum(axis=1))
    monkeypatch.setattr(confidence, "_AT_ONCE", 7)
    parts = fit(readings)
    assert parts.conformal == whole.conformal and (expected[2] > 1).any()
    for part, same in zip(figures(parts), expected, strict=True):
        np.testing.assert_array_equal(part, same)


def test_a_fit_needs_no_copy_of_the_scores():
    top = np.sort(np.random.default_rng(0).normal(size=(16_000, 256)).astype(np.float32))[:, ::-1].copy()
    line, one = np.zeros(len(top), np.int32), np.ones(len(top), np.float32)
    readings = Readings(line, line, line + 1, top, top[:, 0], top[:, 1], one)
    fit(readings.take(slice(0, 50)))  # imports what it needs
    tracemalloc.start()
    try:
        calibrator = fit(readings)
        calibrator.best_confidences(top, one)
        assert tracemalloc.get_traced_memory()[1] < top.nbytes
    finally:
        tracemalloc.stop()


def test_known_readings_keep_their_confidence_and_strange_ones_lose_it():
    calibrator = fit(planted(2000, strength=9)[0])
    fresh, scores = planted(2000, seed=1, strength=9)
    familiar = calibrator.in_distribution(fresh.top, fresh.distance)
    assert np.mean(familiar < 1) < 3 * confidence.UNFAMILIAR_SHARE
    # The same readings with their own concept taken from the candidates: nothing they could rightly be.
    absent = scores.copy()
    absent[np.arange(len(absent)), fresh.truth] = -5
    top, _ = confidence.best_scores(absent)
    alone = calibration.softmax(top, calibrator.temperature).max(axis=1)
    sure = calibrator.confidences(top, fresh.distance)[:, 0]
    assert (sure > 0.5).mean() < 0.03 < (alone > 0.5).mean()
    far = np.full(len(fresh), 4.0, np.float32)
    assert calibrator.confidences(fresh.top, far).max() == 0


def test_confidences_fall_and_sum_to_at_most_one():
    readings, _ = planted(300)
    sure = fit(readings).confidences(readings.top, readings.distance)
    assert (np.diff(sure, axis=1) <= 0).all()
    assert (sure.sum(axis=1) <= 1 + 1e-9).all() and (sure >= 0).all()


def test_an_activation_of_nan_has_no_confidence():
    calibrator = fit(planted(300)[0])
    nothing = np.full((1, CONCEPTS), np.nan, np.float32)
    assert calibrator.in_distribution(nothing, np.zeros(1, np.float32)) == 0


def test_a_reader_that_scores_absent_ones_as_high_still_gives_familiarity():
    flat = np.random.default_rng(0).normal(size=(200, CONCEPTS)).astype(np.float32)
    calibrator = fit(of_scores(flat, flat.argmin(axis=1).astype(np.int32), np.zeros(200, np.float32)))
    assert calibrator.score_strange < calibrator.score_known


def test_cross_fitted_calibration_holds_on_planted_readings():
    readings, _ = planted(4000, strength=5)
    found = confidence.cross_fit(readings, readings.truth, KNOWN).as_json()
    assert found["n"] == found["conformal"]["n"] == 4000
    assert found["ece"] < 0.03
    assert 0.88 < found["conformal"]["coverage"] < 0.92
    coverage, accuracy, threshold = zip(*found["coverage"], strict=True)
    assert coverage[-1] == 1.0 and accuracy[-1] == pytest.approx(readings.right.mean())
    assert accuracy[0] > accuracy[-1] + 0.01 and list(threshold) == sorted(threshold, reverse=True)
    json.dumps(found, allow_nan=False)


def test_whole_groups_change_sides(monkeypatch: pytest.MonkeyPatch):
    readings, _ = planted(600)
    seen = []
    fit = confidence.fit
    monkeypatch.setattr(
        confidence, "fit", lambda some, known: seen.append(set(some.truth.tolist())) or fit(some, known)
    )
    assert confidence.cross_fit(readings, readings.truth, KNOWN, folds=4)
    everyone = set(readings.truth.tolist())
    left = [everyone - some for some in seen]
    assert len(left) == 4 and set().union(*left) == everyone
    assert sum(map(len, left)) == len(everyone), "a concept is judged in one fold and fitted on in the others"


def test_too_little_is_not_judged():
    readings, _ = planted(600)
    assert confidence.cross_fit(readings, np.zeros(600, int), KNOWN) is None
    few = readings.take(np.arange(confidence.FEWEST - 1))
    assert confidence.cross_fit(few, few.truth, KNOWN) is None


def test_every_batch_is_fetched_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(accuracy, "BATCH", 100)
    generator = np.random.default_rng(0)
    values = generator.normal(size=(250, 1, CONCEPTS)).astype(np.float32)
    fetched: list[int] = []

    def fetch(rows: np.ndarray) -> np.ndarray:
        fetched.extend(rows.tolist())
        return values[rows]

    truth = generator.integers(0, CONCEPTS, 250).astype(np.int32)
    samples = SampleSet(
        truth, np.ones(250, bool), np.zeros(250, np.int32), ("a",), np.full(250, Split.TEST, np.int8), (-1,), fetch
    )  # fmt: skip
    rows = np.arange(0, 250, dtype=np.int64)[::-1]
    readings = confidence.collect_readings(Reads(), samples, rows, KNOWN)
    assert fetched == rows.tolist(), "each row once, in order"
    expected = of_scores(values[rows, 0], truth[rows], KNOWN.distance(values[rows]))
    for name in ("truth", "best", "rank", "top", "own", "rival", "distance"):
        np.testing.assert_array_equal(getattr(readings, name), getattr(expected, name), err_msg=name)


class Reads:
    """An interpreter whose scores are the activations themselves."""

    concepts: ClassVar = [f"c{i}" for i in range(CONCEPTS)]

    def read(self, activations: np.ndarray) -> np.ndarray:
        return activations[:, 0]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    known = TrainingDistribution(np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((2, 3), np.float32))
    save_calibration(tmp_path, ReadingModel(confidence.fit(planted(300)[0], known, "natural")))
    return tmp_path / "calibration.json"


def test_what_is_saved_comes_back(written: Path):
    calibrator = load_calibration(written.parent).calibrator
    assert dataclasses.replace(calibrator, distribution=KNOWN) == confidence.fit(
        planted(300)[0], KNOWN, "natural"
    )
    np.testing.assert_array_equal(calibrator.distribution.mean, np.arange(6).reshape(2, 3))


def test_sets_that_can_promise_nothing_survive_saving(tmp_path: Path):
    calibrator = fit(planted(5)[0])
    assert calibrator.conformal == np.inf
    save_calibration(tmp_path, ReadingModel(calibrator))
    loaded = load_calibration(tmp_path).calibrator
    assert loaded is not None and dataclasses.replace(loaded, distribution=KNOWN) == calibrator


@pytest.mark.parametrize("damage", ["changed", "cut", "list", "other"])
def test_a_damaged_calibration_is_refused(written: Path, damage: str):
    text = written.read_text()
    content = json.loads(text)
    content["calibrator"]["temperature"] *= 2
    written.write_text(
        {"changed": json.dumps(content), "cut": text[: len(text) // 2], "list": "[]", "other": "{}"}[damage]
    )
    with pytest.raises(DamagedError, match="encyclo evaluate"):
        load_calibration(written.parent)


def overconfident(count: int, seed: int = 0) -> Readings:
    """Readings as of definitions: half are of concepts whose own score is no better than the others'."""
    known, scores = planted(count, seed)
    scores = scores.copy()
    generator = np.random.default_rng(seed + 1)
    vague = generator.random(count) < 0.5
    scores[vague, known.truth[vague]] = -2
    other = (known.truth[vague] + 1) % CONCEPTS
    scores[vague, other] += generator.normal(5, 1.5, int(vague.sum()))
    return of_scores(scores, known.truth, known.distance)


def test_readings_of_another_kind_get_honest_confidences():
    readings = overconfident(3000)
    plain = confidence.cross_fit(readings, readings.truth, KNOWN)
    own = confidence.cross_fit(readings, readings.truth, KNOWN, by_kind=True)
    assert plain.ece > 0.1 and own.ece < 0.03 and own.brier < plain.brier
    assert own.conformal == plain.conformal


def test_readings_that_are_all_right_or_all_wrong_have_that_confidence():
    readings, _ = planted(200, strength=30)
    found = confidence.confidences_by_kind(readings, readings.take(np.arange(3)), 1.0)
    assert readings.right.all() and found.tolist() == [1.0, 1.0, 1.0]


def test_the_temperature_needs_no_copy_of_the_scores():
    generator = np.random.default_rng(0)
    top = -np.sort(-generator.normal(size=(4000, 1024)).astype(np.float32), axis=1)
    tracemalloc.start()
    calibration.fit_temperature_of_best(top, top[:, 0], np.ones(4000, bool))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < top.nbytes / 4


def test_a_batch_has_fewer_samples_if_there_are_many_concepts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(accuracy, "SCORES", 7 * CONCEPTS)
    samples = SampleSet(
        np.zeros(20, np.int32), np.ones(20, bool), np.zeros(20, np.int32), ("a",), np.zeros(20, np.int8), (-1,),
        lambda rows: np.zeros((len(rows), 1, CONCEPTS), np.float32),
    )  # fmt: skip
    sizes = [len(rows) for rows, _ in accuracy.read_in_batches(Reads(), samples, np.arange(20))]
    assert sizes == [7, 7, 6]


def test_a_calibrator_is_fitted_on_a_part_of_many_readings_but_all_of_them_count(
    monkeypatch: pytest.MonkeyPatch,
):
    data = PlantedSamples(concepts=12, per_family=4)
    samples = data.make()
    reader = centroid.train_interpreter(samples, data.ids(), Context(0, "cpu", centroid.Options(), Path()))
    whole = calibrated.score_confidence(reader, samples, Context(0, "cpu", None, Path()))
    monkeypatch.setattr(confidence, "MOST_READINGS", 60)
    part = calibrated.score_confidence(reader, samples, Context(0, "cpu", None, Path()))
    assert whole.calibrator is not None and part.calibrator is not None
    assert (whole.calibrator.n, part.calibrator.n) == (12 * 4 * 3, 60)
    for name in ("confidence", "low", "high"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name))
