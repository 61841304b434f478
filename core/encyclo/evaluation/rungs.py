"""The rungs of the evaluation ladder: their samples and their figures.

A rung reads a `SampleSet` that training never sees: sentences that mention a concept (`natural`), definitions
that don't name it (`described`), or samples of held-out families and concepts. `measure` computes its figures, the
same for the interpreter and each baseline.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encyclo.errors import EncycloError
from encyclo.pipeline.natural_sentences import RungSamples, capture_rung, draw_concepts
from encyclo.runs.open_run import OpenRun
from encyclo.statistics import accuracy, confidence
from encyclo.statistics.confidence import Readings, TrainingDistribution
from encyclo.statistics.figures import Accuracy
from encyclo.statistics.splits import names_itself
from encyclo.types import Concept, Interpreter, Prompt, SampleSet, Split

FRAME = """Definition: a domesticated animal that barks
Word: dog

Definition: a large natural stream of water
Word: river

Definition: the act of forgiving someone
Word: forgiveness

Definition: {}
Word:"""
"""The prompt of a definition: after three examples, a causal model's last token is about to say the word."""
LIMIT = 10_000
"""The most prompts that `encyclo evaluate` captures for a rung, drawn evenly over concepts."""


def described_prompts(concepts: Sequence[Concept], seed: int, limit: int) -> tuple[list[Prompt], int]:
    """Return definitions in FRAME, in the run's order, and how many were left out because they name their concept."""
    chosen: list[tuple[int, str]] = []
    left_out = 0
    for place in draw_concepts(concepts, seed):
        definition = concepts[place].definition.strip()
        if not definition or len(chosen) == limit:
            continue
        text = FRAME.format(definition)
        # The whole prompt: the frame's examples name concepts too.
        if names_itself(concepts[place], text):
            left_out += 1
        else:
            chosen.append((place, text))
    return [Prompt(concepts[place].id, text, None, "described") for place, text in sorted(chosen)], left_out


def capture_definitions(run: OpenRun, limit: int) -> RungSamples | None:
    """Capture the definitions that don't name their concept; None if there are none."""
    prompts, left_out = described_prompts(run.session.concepts, run.session.config.seed, limit)
    if not prompts:
        return None
    samples = capture_rung(run, prompts, "definitions")
    return RungSamples(samples, np.arange(len(samples)), left_out)


def check_apart(training: SampleSet, judging: RungSamples, rung: str) -> None:
    """Raise EncycloError if a rung reads a family that training read too."""
    rows = training.rows(Split.TRAIN, Split.VALIDATION)
    used = {training.families[f] for f in np.unique(training.family[rows])}
    read = {judging.samples.families[f] for f in np.unique(judging.samples.family[judging.rows])}
    if both := used & read:
        raise EncycloError(
            f"The rung {rung!r} can't be measured: the training samples include the prompt family {min(both)!r}, "
            "which this rung tests; rename that family in the sampler."
        )


def measure(
    interpreter: Interpreter,
    rung: RungSamples,
    concepts: Sequence[Concept],
    distribution: TrainingDistribution,
    seed: int,
) -> tuple[Accuracy | None, Readings]:
    """Return the figures of one interpreter on one rung (without calibration), and the readings.

    `concepts` are the candidates, in the interpreter's order; the rung's samples index them.
    """
    samples, rows = rung.samples, rung.rows
    readings = confidence.collect_readings(interpreter, samples, rows, distribution)
    found = accuracy.accuracy(readings.rank, len(concepts))
    if found is None:
        return None, readings
    categories, names = [c.category for c in concepts], [c.name for c in concepts]
    more = {
        **accuracy.intervals(readings.rank, readings.truth, seed),
        "null": _null(interpreter, samples, rows, len(concepts), seed),
        "by_category": accuracy.by_category(readings.rank, readings.truth, categories),
        "confused": accuracy.confused_pairs(readings.truth, readings.best, names),
        "left_out": rung.left_out,
    }
    return found.model_copy(update=more), readings


def _null(
    interpreter: Interpreter, samples: SampleSet, rows: NDArray[np.int64], candidates: int, seed: int
) -> Accuracy | None:
    """Return the accuracy with the concepts shuffled: the effect of chance and of frequent candidates."""
    if candidates < 2:
        return None
    wrong = dataclasses.replace(samples, concept=accuracy.shuffled(samples.concept, candidates, seed))
    return accuracy.accuracy(accuracy.rank_samples(interpreter, wrong, rows), candidates)
