"""The rungs of the evaluation ladder: their samples and their figures.

A rung reads a `SampleSet` that training never sees: sentences that mention a concept (`natural`), definitions
that don't name it (`described`), or samples of held-out families and concepts. `measure` computes its figures, the
same for the interpreter and each baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

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


@dataclass(frozen=True)
class ReadTwice:
    """Readings, and the rank [n] that each of them gives the truth of the null: another concept than its own."""

    readings: Readings
    null: NDArray[np.int64]

    def take(self, chosen: NDArray[np.bool_]) -> ReadTwice:
        """Return the readings chosen by a mask."""
        return ReadTwice(self.readings.take(chosen), self.null[chosen])


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
    read = read_twice(interpreter, rung, distribution, seed)
    return figures(read, concepts, rung.left_out, seed), read.readings


def read_twice(
    interpreter: Interpreter, rung: RungSamples, distribution: TrainingDistribution, seed: int
) -> ReadTwice:
    """Read a rung once, and rank both its truth and the shuffled one, which shows the effect of chance."""
    concept = rung.samples.concept[rung.rows]
    reader = _NullReader(interpreter, accuracy.shuffled(concept, len(interpreter.concepts), seed))
    # It asks for scores and nothing else.
    readings = confidence.collect_readings(cast(Interpreter, reader), rung.samples, rung.rows, distribution)
    return ReadTwice(readings, np.concatenate([np.empty(0, np.int64), *reader.ranks]))


def figures(read: ReadTwice, concepts: Sequence[Concept], left_out: int, seed: int) -> Accuracy | None:
    """Return the figures of a rung's readings without calibration; None if there are none."""
    readings = read.readings
    found = accuracy.accuracy(readings.rank, len(concepts))
    if found is None:
        return None
    categories, names = [c.category for c in concepts], [c.name for c in concepts]
    more = {
        **accuracy.intervals(readings.rank, readings.truth, seed),
        # A single candidate has no other concept that could be the truth.
        "null": accuracy.accuracy(read.null, len(concepts)) if len(concepts) > 1 else None,
        "by_category": accuracy.by_category(readings.rank, readings.truth, categories),
        "confused": accuracy.confused_pairs(readings.truth, readings.best, names),
        "left_out": left_out,
    }
    return found.model_copy(update=more)


class _NullReader:
    """Reads as `interpreter` does, and ranks another truth in the same scores, reading after reading."""

    def __init__(self, interpreter: Interpreter, truth: NDArray[np.int32]) -> None:
        self.concepts, self.ranks = interpreter.concepts, list[NDArray[np.int64]]()
        self._interpreter, self._truth = interpreter, truth

    def read(self, activations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the interpreter's scores."""
        scores = self._interpreter.read(activations)
        own, self._truth = np.split(self._truth, [len(scores)])
        self.ranks.append(accuracy.true_ranks(scores, own))
        return scores
