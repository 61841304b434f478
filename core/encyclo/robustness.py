"""The ladder's `adversarial` rung: fresh attacks on the interpreter as it is, none of them a sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from encyclo import evaluation
from encyclo.sampling import Collector
from encyclo.session import Session, Stage

if TYPE_CHECKING:
    from encyclo.judging import Judgement

ATTACKED = 200
"""Concepts that are attacked to judge an interpreter, evenly from those that the stage was about."""


def fresh_attacks(
    session: Session, collector: Collector, stage: Stage, concepts: Sequence[int], judged: Judgement
) -> dict[str, Any] | None:
    """Return metrics.json's accuracy object for new attacks on `judged.interpreter`; 1 - top1 of them succeed.

    The stage's sampler makes them, against this interpreter, from what it keeps for judging. None where it
    makes none.
    """
    step = max(1, -(-len(concepts) // ATTACKED))
    some = [session.trainable[i] for i in concepts[::step]]
    prompts = list(collector.ask(some, stage, judging=True, **judged.known()))
    if not prompts:
        return None
    place = {concept.id: index for index, concept in enumerate(session.concepts)}
    activations, _, _ = collector.capture(prompts, lambda _: None)
    truth = np.array([place[prompt.concept] for prompt in prompts], np.int32)
    slices = [slice(at, at + evaluation.BATCH) for at in range(0, len(truth), evaluation.BATCH)]
    ranks = [evaluation.true_ranks(judged.interpreter.read(activations[s]), truth[s]) for s in slices]
    return evaluation.accuracy(np.concatenate(ranks), len(session.concepts))
