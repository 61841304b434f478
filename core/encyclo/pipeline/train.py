"""Train one interpreter, measure it on held-out families and natural sentences, score every concept."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encyclo.pipeline.free_memory import give_back_freed_memory
from encyclo.pipeline.natural_sentences import RungSamples
from encyclo.runs.open_run import OpenRun
from encyclo.statistics import accuracy
from encyclo.statistics.confidence import few_enough
from encyclo.statistics.figures import Accuracy
from encyclo.types import Interpreter, SampleSet, Scores, Signatures, Split


@dataclass(frozen=True)
class Trained:
    """An interpreter, its accuracy on two rungs as in metrics.json, and its scores."""

    interpreter: Interpreter
    heldout: Accuracy | None
    natural: Accuracy | None
    scores: Scores


def train_and_score(
    run: OpenRun,
    name: str,
    samples: SampleSet,
    signatures: Signatures,
    sentences: RungSamples | None,
    baseline: bool = False,
) -> Trained:
    """Train the interpreter plugin `name`, measure it on held-out families and `sentences`, score it.

    Of a `baseline` only the calibration counts, not each concept's confidence: it is scored on fewer readings.
    """
    run.session.progress.stage(
        f"Training the {name} interpreter on {len(samples.rows(Split.TRAIN)):,} samples"
    )
    interpreter, count = run.train(name, samples), len(run.session.concepts)
    ranks = accuracy.rank_samples(interpreter, samples, few_enough(samples.named_rows(Split.TEST)))
    natural = None
    if sentences:
        read = accuracy.rank_samples(interpreter, sentences.samples, sentences.rows)
        natural = accuracy.accuracy(read, count)
    scored = with_few_held_out(samples) if baseline else samples
    scores = score(run, interpreter, scored, signatures, sentences)
    give_back_freed_memory()
    return Trained(interpreter, accuracy.accuracy(ranks, count), natural, scores)


def with_few_held_out(samples: SampleSet) -> SampleSet:
    """Return the samples without those held-out ones that the scorer's calibrator is not fitted on."""
    held = samples.named_rows(Split.CALIBRATION, Split.TEST)
    kept = np.ones(len(samples), bool)
    kept[held] = False
    kept[few_enough(held)] = True
    return samples if kept.all() else chosen_rows(samples, np.flatnonzero(kept))


def score(
    run: OpenRun,
    interpreter: Interpreter,
    samples: SampleSet,
    signatures: Signatures,
    sentences: RungSamples | None,
) -> Scores:
    """Call the run's scorer: how far can the reading of each concept be trusted?"""
    name = run.session.config.scorer
    natural = chosen_rows(sentences.samples, sentences.rows) if sentences else None
    context = run.context(name, interpreter=interpreter, signatures=signatures, natural=natural)
    scores: Scores = run.session.plugins.call(
        "score_confidence", name, interpreter=interpreter, samples=samples, context=context
    )
    return scores


def chosen_rows(samples: SampleSet, rows: NDArray[np.int64]) -> SampleSet:
    """Return `rows` of a sample set as a sample set; activations are still read by row."""
    return dataclasses.replace(
        samples,
        concept=samples.concept[rows],
        named=samples.named[rows],
        family=samples.family[rows],
        split=samples.split[rows],
        fetch=lambda picked: samples.read(rows[picked]),
    )
