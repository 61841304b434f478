"""The ladder's `adversarial` rung: fresh attacks on the interpreter as it is, none of them a sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from encyclo.pipeline.collect import Collector
from encyclo.runs.session import Session, Stage
from encyclo.statistics import accuracy as evaluation
from encyclo.types import Prompt

if TYPE_CHECKING:
    from encyclo.pipeline.judge import Judgement

ATTACKED = 200
"""Concepts that are attacked to judge an interpreter, evenly from those that the stage was about."""


class Memory:
    """Captures prompts, each of them once: attacks on one interpreter are read again, and tried on the next."""

    def __init__(self, collector: Collector) -> None:
        self.collector = collector
        self._seen: dict[Prompt, NDArray[np.float32]] = {}

    def capture(self, prompts: Sequence[Prompt]) -> NDArray[np.float32]:
        """Return the prompts' activations, float32 [n, L, H]."""
        fresh = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._seen]
        if fresh:
            self._seen.update(zip(fresh, self.collector.quietly(fresh), strict=True))
        return np.stack([self._seen[prompt] for prompt in prompts])


def fresh_attacks(
    session: Session, memory: Memory, stage: Stage, concepts: Sequence[int], judged: Judgement
) -> dict[str, Any] | None:
    """Return metrics.json's accuracy object for new attacks on `judged.interpreter`; 1 - top1 of them succeed.

    The stage's sampler makes them, against this interpreter, from what it keeps for judging. None where it
    makes none.
    """
    step = max(1, -(-len(concepts) // ATTACKED))
    some = [session.trainable[i] for i in concepts[::step]]
    asked = memory.collector.ask(some, stage, judging=True, capture=memory.capture, **judged.known())
    prompts = list(asked)
    if not prompts:
        return None
    place = {concept.id: index for index, concept in enumerate(session.concepts)}
    activations = memory.capture(prompts)
    truth = np.array([place[prompt.concept] for prompt in prompts], np.int32)
    slices = [slice(at, at + evaluation.BATCH) for at in range(0, len(truth), evaluation.BATCH)]
    ranks = [evaluation.true_ranks(judged.interpreter.read(activations[s]), truth[s]) for s in slices]
    return evaluation.accuracy(np.concatenate(ranks), len(session.concepts))
