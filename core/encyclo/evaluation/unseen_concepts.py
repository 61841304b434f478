"""Concepts that training never saw: train without a fifth of them, then add these by signature.

The rungs are `unseen` (their samples from held-out prompt families) and `described` (their definitions), both
ranked among all concepts. None of their samples, named or not, is in this training. Before they are added, they
show how sure the interpreter is of a concept without an entry.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.entry_words import EntryWords
from encyclo.evaluation.absent import mentions, read_absent, sureness
from encyclo.evaluation.rungs import check_apart, measure
from encyclo.pipeline.natural_sentences import RungSamples
from encyclo.pipeline.train import chosen_rows
from encyclo.runs.open_run import OpenRun
from encyclo.runs.session import Session
from encyclo.seeds import derive_seed
from encyclo.statistics import confidence
from encyclo.statistics.confidence import Calibrator, TrainingDistribution
from encyclo.statistics.figures import Accuracy, Sureness
from encyclo.statistics.signatures import estimate_signatures
from encyclo.statistics.splits import leaked_prompts, unseen_concepts
from encyclo.storage.ledger import Commit
from encyclo.types import Concept, Interpreter, SampleSet, Split

WEIGHED = 1000
"""The most samples of a kind for which it is measured how sure an interpreter is."""
WATCHED = 10
"""One in this many trained concepts has its definition in validation, which stops training."""


@dataclass(frozen=True)
class TakenOut:
    """The samples to train on and to read. Candidates are the trained concepts, then the unseen ones.

    joining: float32 [k, L, H], the signatures by which the unseen concepts are added
    """

    candidates: list[Concept]
    trained: int
    training: SampleSet
    joining: NDArray[np.float32]
    known: RungSamples
    """Samples of trained concepts, from families that calibrate."""
    unseen: RungSamples
    described: RungSamples

    @property
    def tested(self) -> NDArray[np.int64]:
        """The rows of `known.samples` that mention a trained concept, from families that test."""
        rows = self.known.samples.named_rows(Split.TEST)
        concept = self.known.samples.concept[rows]
        return rows[(concept >= 0) & (concept < self.trained)]


def take_out_concepts(
    session: Session, samples: SampleSet, definitions: RungSamples | None, fifth: int = 0
) -> TakenOut | None:
    """Take a fifth (one of five) of the concepts out of training; None if too few have enough samples."""
    concepts, seed = session.concepts, session.config.seed
    named_rows = samples.named_rows(Split.TRAIN)
    sampled = np.bincount(samples.concept[named_rows], minlength=len(concepts)) > 0
    taken = unseen_concepts(concepts, seed, fifth)
    held = [c for c in taken if sampled[c]]
    kept = sorted(set(range(len(concepts))).difference(taken))
    if not held or len(kept) < 2:
        return None
    place = np.full(len(concepts), -1, np.int32)
    place[kept + held] = np.arange(len(kept) + len(held))
    everything = _renumbered(samples, place)
    own = (everything.concept >= 0) & (everything.concept < len(kept))
    pieces = [(everything, np.flatnonzero(own))]
    described = RungSamples(everything, np.empty(0, np.int64))
    if definitions is not None:
        texts, described = _split_definitions(session, definitions, place, len(kept))
        if len(texts[1]):
            pieces.append(texts)
    training = joined(pieces)
    test = everything.named_rows(Split.TEST)
    test = test[everything.concept[test] >= len(kept)]
    known = everything.named_rows(Split.CALIBRATION)
    known = known[own[known]]
    means = estimate_signatures(chosen_rows(samples, named_rows), len(concepts)).mean[held]
    candidates = [concepts[c] for c in kept + held]
    check_apart(training, RungSamples(everything, test), "unseen")
    return TakenOut(
        candidates,
        len(kept),
        training,
        means,
        RungSamples(everything, known),
        RungSamples(everything, test),
        described,
    )


def measure_unseen(
    run: OpenRun, taken: TakenOut, commits: Sequence[Commit]
) -> tuple[dict[str, dict[str, Accuracy | None]], dict[str, dict[str, Any]]]:
    """Train every interpreter without these concepts; return figures by rung and interpreter, and how sure it is.

    The latter are metrics.json's `unfamiliar` and `absent`, by interpreter.
    """
    rungs: dict[str, dict[str, Accuracy | None]] = {"described": {}, "unseen": {}}
    sure: dict[str, dict[str, Any]] = {"unfamiliar": {}, "absent": {}}
    words = EntryWords.of(taken.candidates[: taken.trained])
    absent, known = (
        mentions(run, commits, taken.unseen.samples, rows[:WEIGHED])
        for rows in (taken.unseen.rows, taken.tested)
    )
    session = run.session
    smaller = dataclasses.replace(session, concepts=taken.candidates[: taken.trained])
    seed, distribution = session.config.seed, confidence.training_distribution(taken.training)
    for name in dict.fromkeys((*session.config.baselines, session.config.interpreter)):
        session.progress.stage(f"Training the {name} interpreter without {len(taken.joining):,} concepts")
        # In a separate folder: nothing that the run's training left may affect this one.
        with tempfile.TemporaryDirectory() as folder:
            elsewhere = dataclasses.replace(run.directory, path=Path(folder))
            interpreter = OpenRun(smaller, elsewhere, run.store).train(name, taken.training)
        calibrator = calibrate(interpreter, taken, distribution)
        sure["unfamiliar"][name] = calibrator and read_unfamiliar(interpreter, taken, calibrator, seed)
        sure["absent"][name] = calibrator and read_absent(interpreter, calibrator, words, absent, known)
        interpreter.add_concepts([c.id for c in taken.candidates[taken.trained :]], taken.joining)
        for rung, chosen in (("described", taken.described), ("unseen", taken.unseen)):
            found, readings = measure(interpreter, chosen, taken.candidates, distribution, seed)
            if found is not None:
                calibration = confidence.cross_fit(
                    readings, readings.truth, distribution, seed=seed, by_kind=rung == "described"
                )
                found = found.model_copy(update={"calibration": calibration})
            rungs[rung][name] = found
    return rungs, sure


def calibrate(
    interpreter: Interpreter, taken: TakenOut, distribution: TrainingDistribution
) -> Calibrator | None:
    """Fit a calibrator on the samples of trained concepts that calibrate; None if they are too few."""
    rung = taken.known
    readings = confidence.collect_readings(interpreter, rung.samples, rung.rows, distribution)
    return confidence.fit(readings, distribution) if len(readings) >= confidence.FEWEST else None


def read_unfamiliar(
    interpreter: Interpreter, taken: TakenOut, calibrator: Calibrator, seed: int
) -> dict[str, Sureness]:
    """Return how sure the interpreter is, by kind, of activations with and without a right answer.

    absent: samples of concepts that are not in the encyclopedia; noise: random, with each dimension's mean and
    variance; scrambled: known samples with their dimensions shuffled, like another model's.
    """
    generator, distribution = np.random.default_rng(seed), calibrator.distribution
    everything = taken.known.samples
    known = everything.read(taken.tested[:WEIGHED])
    shape = (500, *distribution.mean.shape)
    noise = distribution.mean + distribution.std * generator.standard_normal(shape, dtype=np.float32)
    kinds = {
        "known": known,
        "absent": everything.read(taken.unseen.rows[:WEIGHED]),
        "noise": noise.astype(np.float32),
        "scrambled": known[:, :, generator.permutation(known.shape[2])],
    }
    return {kind: _sureness(interpreter, calibrator, values) for kind, values in kinds.items() if len(values)}


def _sureness(interpreter: Interpreter, calibrator: Calibrator, values: NDArray[np.float32]) -> Sureness:
    top, _ = confidence.best_scores(interpreter.read(values))
    sure = calibrator.confidences(top, calibrator.distribution.distance(values))[:, 0]
    return sureness(sure)


def _split_definitions(
    session: Session, definitions: RungSamples, place: NDArray[np.int32], trained: int
) -> tuple[tuple[SampleSet, NDArray[np.int64]], RungSamples]:
    """Return the trained concepts' definitions, which train, and the unseen concepts' definitions, which judge.

    A definition that a trained concept has too is left out of judging.
    """
    own = _renumbered(definitions.samples, place)
    row_concept = own.concept[definitions.rows]
    training = definitions.rows[(row_concept >= 0) & (row_concept < trained)]
    judging = definitions.rows[row_concept >= trained]
    texts = [session.concepts[c].definition for c in definitions.samples.concept]
    leaked = leaked_prompts((texts[r] for r in training), [texts[r] for r in judging])
    kept = np.array([row for place_, row in enumerate(judging) if place_ not in leaked], np.int64)
    watched = np.array(
        [
            derive_seed(session.config.seed, "watched", session.concepts[c].id) % WATCHED == 0
            for c in definitions.samples.concept
        ],
        bool,
    )
    split = np.where(watched, Split.VALIDATION, Split.TRAIN).astype(np.int8)
    return (dataclasses.replace(own, split=split), training), RungSamples(
        own, kept, definitions.left_out + len(leaked)
    )


def joined(pieces: list[tuple[SampleSet, NDArray[np.int64]]]) -> SampleSet:
    """Return the chosen rows of several sample sets as one sample set; activations are still read by row."""
    families = tuple(sorted({name for some, _ in pieces for name in some.families}))
    starts = np.cumsum([0, *(len(rows) for _, rows in pieces)])
    shape = pieces[0][0].read(pieces[0][1][:1]).shape[1:]

    def fetch(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        source = np.searchsorted(starts, rows, side="right") - 1
        values = np.empty((len(rows), *shape), np.float32)
        for number, (some, chosen) in enumerate(pieces):
            here = np.flatnonzero(source == number)
            if len(here):
                values[here] = some.read(chosen[rows[here] - starts[number]])
        return values

    def column(name: str, dtype: Any) -> NDArray[Any]:
        return np.concatenate([getattr(some, name)[rows] for some, rows in pieces]).astype(dtype)

    numbers = [np.array([families.index(name) for name in some.families], np.int32) for some, _ in pieces]
    return SampleSet(
        concept=column("concept", np.int32),
        named=column("named", bool),
        family=np.concatenate(
            [number[some.family[rows]] for number, (some, rows) in zip(numbers, pieces, strict=True)]
        ),
        families=families,
        split=column("split", np.int8),
        layers=pieces[0][0].layers,
        fetch=fetch,
    )


def _renumbered(samples: SampleSet, place: NDArray[np.int32]) -> SampleSet:
    return dataclasses.replace(samples, concept=place[samples.concept])
