"""One interpreter: trained, read on held-out families and natural sentences, every concept scored."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encyclo.pipeline.natural_sentences import RungSamples
from encyclo.runs.open_run import OpenRun
from encyclo.statistics import accuracy
from encyclo.statistics.figures import Accuracy
from encyclo.types import Interpreter, SampleSet, Scores, Signatures, Split


@dataclass(frozen=True)
class Trained:
    """An interpreter, its accuracy objects of metrics.json on two rungs, and its scores."""

    interpreter: Interpreter
    heldout: Accuracy | None
    natural: Accuracy | None
    scores: Scores


def train_and_score(
    run: OpenRun, name: str, samples: SampleSet, signatures: Signatures, sentences: RungSamples | None
) -> Trained:
    """Train the interpreter plugin `name`, read held-out families and natural sentences, score every concept."""
    run.session.progress.stage(
        f"Training the {name} interpreter on {len(samples.rows(Split.TRAIN)):,} samples"
    )
    interpreter, count = run.train(name, samples), len(run.session.concepts)
    ranks = accuracy.rank_samples(interpreter, samples, samples.named_rows(Split.TEST))
    natural = None
    if sentences:
        read = accuracy.rank_samples(interpreter, sentences.samples, sentences.rows)
        natural = accuracy.accuracy(read, count)
    scores = score(run, interpreter, samples, signatures, sentences)
    return Trained(interpreter, accuracy.accuracy(ranks, count), natural, scores)


def score(
    run: OpenRun,
    interpreter: Interpreter,
    samples: SampleSet,
    signatures: Signatures,
    sentences: RungSamples | None,
) -> Scores:
    """Let the run's scorer say how far each concept's reading can be trusted."""
    name = run.session.config.scorer
    natural = chosen_rows(sentences.samples, sentences.rows) if sentences else None
    context = run.context(name, interpreter=interpreter, signatures=signatures, natural=natural)
    scores: Scores = run.session.plugins.call(
        "score_confidence", name, interpreter=interpreter, samples=samples, context=context
    )
    return scores


def chosen_rows(samples: SampleSet, rows: NDArray[np.int64]) -> SampleSet:
    """Return some rows of a sample set as one of their own; activations are still read by row."""
    return dataclasses.replace(
        samples,
        concept=samples.concept[rows],
        named=samples.named[rows],
        family=samples.family[rows],
        split=samples.split[rows],
        fetch=lambda some: samples.read(rows[some]),
    )
