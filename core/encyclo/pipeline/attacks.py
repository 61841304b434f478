"""The ladder's `adversarial` rung: fresh attacks on the current interpreter; none becomes a sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encyclo.pipeline.collect import ask_sampler
from encyclo.pipeline.judge import Judgement
from encyclo.runs.open_run import OpenRun
from encyclo.runs.session import Stage
from encyclo.statistics import accuracy
from encyclo.statistics.figures import Accuracy
from encyclo.types import Prompt

ATTACKED = 200
"""At most this many of the stage's concepts, evenly spaced, are attacked to judge an interpreter."""


class CaptureOnce:
    """Captures each prompt once: attacks on one interpreter are read again and tried on the next."""

    def __init__(self, run: OpenRun) -> None:
        self._run = run
        self._seen: dict[Prompt, NDArray[np.float32]] = {}

    def __call__(self, prompts: Sequence[Prompt]) -> NDArray[np.float32]:
        """Return the prompts' activations, float32 [n, L, H]."""
        fresh = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._seen]
        if fresh:
            self._seen.update(zip(fresh, self._run.capture(fresh).activations, strict=True))
        return np.stack([self._seen[prompt] for prompt in prompts])


def fresh_attacks(
    run: OpenRun, capture: CaptureOnce, stage: Stage, concepts: Sequence[int], judged: Judgement
) -> Accuracy | None:
    """Return the accuracy under new attacks on `judged.interpreter`; 1 - top1 of them succeed.

    The stage's sampler makes them from the frames that it reserves for judging. None if it makes none.
    """
    session = run.session
    session.progress.stage(f"Attacking the {session.config.interpreter} interpreter")
    step = max(1, -(-len(concepts) // ATTACKED))
    attacked = [session.trainable[i] for i in concepts[::step]]
    prompts = list(ask_sampler(run, attacked, stage, judging=True, capture=capture, **judged.known()))
    if not prompts:
        return None
    activations = capture(prompts)
    truth = np.array([session.place_of[prompt.concept] for prompt in prompts], np.int32)
    slices = [slice(at, at + accuracy.BATCH) for at in range(0, len(truth), accuracy.BATCH)]
    ranks = [accuracy.true_ranks(judged.interpreter.read(activations[s]), truth[s]) for s in slices]
    return accuracy.accuracy(np.concatenate(ranks), len(session.concepts))
