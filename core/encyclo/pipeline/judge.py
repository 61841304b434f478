"""What a stage finds out: samples read back, an interpreter trained on them, measured and scored.

judge ── load_samples        committed parts → one sample set, split by family
      ├─ estimate            signatures, and what contexts add
      └─ train_and_score     interpreter → held-out and natural accuracy, a confidence for every concept
recall                       the same of a round that an earlier process judged
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from encyclo.evaluation.rungs import Material, NaturalSentences
from encyclo.pipeline.rounds import Result
from encyclo.query.encyclopedia import check_sums
from encyclo.runs.session import Session
from encyclo.statistics import accuracy as evaluation
from encyclo.statistics.signatures import Contexts, estimate, relative_standard_error
from encyclo.statistics.splits import split_families
from encyclo.storage import files
from encyclo.storage.ledger import Commit, Ledger
from encyclo.storage.sample_rows import CommittedRows, sample_set
from encyclo.types import Interpreter, SampleSet, Scores, Signatures, Split, Store


@dataclass(frozen=True)
class Judgement:
    """What one stage's training found out, from which samples."""

    samples: SampleSet
    interpreter: Interpreter
    signatures: Signatures
    contexts: Contexts
    scores: Scores
    accuracy: dict[str, Any] | None
    """On held-out families, as metrics.json has it."""
    natural: dict[str, Any] | None
    """On sentences by other authors; None where the concepts have none."""
    converged: np.ndarray[Any, np.dtype[np.bool_]]

    def known(self) -> dict[str, Any]:
        """Return what the context of the next round's sampler says of this one."""
        return {
            "interpreter": self.interpreter,
            "scores": self.scores,
            "signatures": self.signatures,
        }


def judge(
    session: Session, out: Path, store: Store, commits: Sequence[Commit], natural: NaturalSentences
) -> Judgement:
    """Train the interpreter, measure it on what training never saw, score every concept."""
    samples = load_samples(session, out, store, commits)
    signatures, contexts = estimate(samples, len(session.concepts))
    trained = train_and_score(
        session, out, session.config.interpreter, samples, signatures, natural.material(commits)
    )
    converged = relative_standard_error(signatures) <= session.config.converged_below
    return Judgement(
        samples,
        trained.interpreter,
        signatures,
        contexts,
        trained.scores,
        trained.heldout,
        trained.natural,
        converged,
    )


def recall(
    session: Session,
    out: Path,
    store: Store,
    commits: Sequence[Commit],
    result: Result,
    interpreter: Path,
) -> Judgement:
    """Return what `judge` found in an earlier process: samples read again, the interpreter loaded."""
    samples = load_samples(session, out, store, commits)
    signatures, contexts = estimate(samples, len(session.concepts))
    name = session.config.interpreter
    if session.plugins.implements(name, "load_interpreter"):
        check_sums(interpreter)
        loaded: Interpreter = session.plugins.call(
            "load_interpreter", name, folder=interpreter, context=session.context(name, out)
        )
    else:
        loaded = train(session, out, name, samples)
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


@dataclass(frozen=True)
class Trained:
    """An interpreter, its accuracy objects of metrics.json on two rungs, and its scores."""

    interpreter: Interpreter
    heldout: dict[str, Any] | None
    natural: dict[str, Any] | None
    scores: Scores


def train_and_score(
    session: Session,
    out: Path,
    name: str,
    samples: SampleSet,
    signatures: Signatures,
    sentences: Material | None,
) -> Trained:
    """Train the interpreter plugin `name`, read held-out families and natural sentences, score every concept."""
    session.progress.stage(f"Training the {name} interpreter on {len(samples.rows(Split.TRAIN)):,} samples")
    interpreter, count = train(session, out, name, samples), len(session.concepts)
    ranks = evaluation.rank_samples(interpreter, samples, samples.named_rows(Split.TEST))
    natural = None
    if sentences:
        read = evaluation.rank_samples(interpreter, sentences.samples, sentences.rows)
        natural = evaluation.accuracy(read, count)
    scorer = session.config.scorer
    scores: Scores = session.plugins.call(
        "score_confidence",
        scorer,
        interpreter=interpreter,
        samples=samples,
        context=session.context(scorer, out, interpreter=interpreter, signatures=signatures),
    )
    return Trained(interpreter, evaluation.accuracy(ranks, count), natural, scores)


def train(session: Session, out: Path, name: str, samples: SampleSet) -> Interpreter:
    """Train the interpreter plugin `name`; check that it knows the run's concepts."""
    interpreter: Interpreter = session.plugins.call(
        "train_interpreter",
        name,
        samples=samples,
        concepts=session.trainable,
        context=session.context(name, out),
    )
    if not isinstance(interpreter, Interpreter):
        raise session.plugins.fault(name, f"returned a {type(interpreter).__name__}, which is no interpreter")
    if list(interpreter.concepts) != [concept.id for concept in session.concepts]:
        raise session.plugins.fault(name, "returned an interpreter that doesn't know the run's concepts")
    return interpreter


def load_samples(session: Session, out: Path, store: Store, commits: Sequence[Commit]) -> SampleSet:
    """Open the committed parts (checked against their commits) and split them by family.

    Small columns are in memory; activations too where they are few, else they are read by row.
    """
    with session.plugins.blame(session.config.store):
        source = CommittedRows(store, Ledger(out), [commit for commit in commits if commit.rows])
    part = source.columns
    stages: dict[int, set[str]] = {}
    for stage, family in zip(part.stage.tolist(), part.family, strict=True):
        stages.setdefault(stage, set()).add(family)
    chosen = {s.number for s in session.stages if session.plugins.needs_interpreter(s.sampler)}
    assigned = split_families({s: sorted(names) for s, names in stages.items()}, session.config.seed, chosen)
    split = [assigned[s, f] for s, f in zip(part.stage.tolist(), part.family, strict=True)]
    return sample_set(source, session.schema.layers, np.array(split, np.int8))


def save_interpreter(session: Session, interpreter: Interpreter, folder: Path) -> None:
    """Write the interpreter's files and their sha256 beside them, then put the folder in place."""
    with files.replacing_folder(folder) as fresh:
        with session.plugins.blame(session.config.interpreter):
            interpreter.save(fresh)
        sums = {path.name: files.sha256_of(path) for path in sorted(fresh.iterdir())}
        files.write_json(fresh / "sha256.json", sums)
