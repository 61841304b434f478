"""Judge a round: read the samples back, train an interpreter on them, measure and score it.

judge ── OpenRun.load_samples   committed parts → one sample set, split by family
      ├─ estimate               samples → signatures, and what each context adds to them
      └─ train_and_score        interpreter → held-out and natural accuracy, a confidence for every concept
recall                          the same for a round that an earlier process judged
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.pipeline.natural_sentences import RungSamples
from encyclo.pipeline.rounds import Result
from encyclo.pipeline.train import train_and_score
from encyclo.runs.open_run import OpenRun
from encyclo.statistics.figures import Accuracy
from encyclo.statistics.signatures import Contexts, estimate, relative_standard_error
from encyclo.storage.ledger import Commit
from encyclo.types import Interpreter, SampleSet, Scores, Signatures


@dataclass(frozen=True)
class Judgement:
    """The result of one round's training, with its samples. converged: bool [C]."""

    samples: SampleSet
    interpreter: Interpreter
    signatures: Signatures
    contexts: Contexts
    scores: Scores
    accuracy: Accuracy | None
    """Accuracy on held-out families, as in metrics.json."""
    natural: Accuracy | None
    """Accuracy on sentences by other authors; None if the concepts have none."""
    converged: NDArray[np.bool_]

    def known(self) -> dict[str, Any]:
        """Return what this round adds to the context of the next round's sampler."""
        return {"interpreter": self.interpreter, "scores": self.scores, "signatures": self.signatures}


def judge(run: OpenRun, commits: Sequence[Commit], sentences: RungSamples | None) -> Judgement:
    """Train the interpreter, measure it on samples that training never saw and on `sentences`, score every concept."""
    config = run.session.config
    samples = run.load_samples(commits)
    signatures, contexts = estimate(samples, len(run.session.concepts))
    trained = train_and_score(run, config.interpreter, samples, signatures, sentences)
    return Judgement(
        samples,
        trained.interpreter,
        signatures,
        contexts,
        trained.scores,
        trained.heldout,
        trained.natural,
        relative_standard_error(signatures) <= config.converged_below,
    )


def recall(run: OpenRun, commits: Sequence[Commit], result: Result, interpreter: Path) -> Judgement:
    """Return what `judge` returned in an earlier process: read the samples again, load the interpreter."""
    session = run.session
    samples = run.load_samples(commits)
    signatures, contexts = estimate(samples, len(session.concepts))
    name = session.config.interpreter
    if session.plugins.implements(name, "load_interpreter"):
        loaded = run.load_interpreter(interpreter)
    else:
        loaded = run.train(name, samples)
    return Judgement(
        samples,
        loaded,
        signatures,
        contexts,
        result.scores,
        result.accuracy,
        result.natural,
        result.converged,
    )
