"""The evaluation ladder: what each rung reads, and what is measured on it.

A rung's material is a `SampleSet` that training never sees: sentences that mention a concept (`natural`),
definitions that don't name it (`described`), or samples of held-out families and concepts. Everything that is
measured on it, for an interpreter and for each baseline alike, is in `measure`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo import half_precision
from encyclo.english import find_mention
from encyclo.errors import EncycloError
from encyclo.pipeline.collect import Collector
from encyclo.runs.session import Session
from encyclo.seeds import derive_seed
from encyclo.statistics import accuracy as evaluation
from encyclo.statistics import confidence
from encyclo.statistics.confidence import Readings, Surroundings
from encyclo.statistics.splits import leaked_families, leaked_prompts, names_itself
from encyclo.storage.ledger import Commit, Ledger, read_committed
from encyclo.types import Concept, Interpreter, Prompt, SampleSet, Split, Store

RUNGS = ("heldout_prompts", "natural", "described", "unseen", "adversarial")
FRAME = """Definition: a domesticated animal that barks
Word: dog

Definition: a large natural stream of water
Word: river

Definition: the act of forgiving someone
Word: forgiveness

Definition: {}
Word:"""
"""What a definition is read in: after three examples a causal model's last token is about to say the word."""
AT_MOST = 10_000
"""Prompts that `encyclo evaluate` captures for a rung, drawn evenly over concepts."""
AT_MOST_IN_RUN = 1_000
"""Sentences that `encyclo run` reads after each stage."""


@dataclass(frozen=True)
class Material:
    """What a rung reads, and how many prompts were left out because training or the name gives them away."""

    samples: SampleSet
    rows: NDArray[np.int64]
    left_out: int = 0


def natural_prompts(concepts: Sequence[Concept], seed: int, at_most: int) -> list[Prompt]:
    """Return example sentences that mention their concept, in the run's order; at most so many.

    Every concept gives its first sentence before any gives its second.
    """
    waiting = [(place, _sentences(concepts[place])) for place in _drawn(concepts, seed)]
    chosen: list[tuple[int, Prompt]] = []
    while waiting and len(chosen) < at_most:
        again = []
        for place, sentences in waiting:
            if len(chosen) == at_most:
                break
            if prompt := next(sentences, None):
                chosen.append((place, prompt))
                again.append((place, sentences))
        waiting = again
    return [prompt for _, prompt in sorted(chosen, key=lambda item: item[0])]


def _sentences(concept: Concept) -> Iterator[Prompt]:
    for example in dict.fromkeys(concept.examples):
        if span := find_mention(example, concept):
            yield Prompt(concept.id, example, span, "natural")


def described_prompts(concepts: Sequence[Concept], seed: int, at_most: int) -> tuple[list[Prompt], int]:
    """Return definitions in their frame, in the run's order, and how many were left out for naming their concept."""
    chosen: list[tuple[int, str]] = []
    left_out = 0
    for place in _drawn(concepts, seed):
        definition = concepts[place].definition.strip()
        if not definition or len(chosen) == at_most:
            continue
        text = FRAME.format(definition)
        # The whole prompt: the frame's own examples name a concept or two.
        if names_itself(concepts[place], text):
            left_out += 1
        else:
            chosen.append((place, text))
    return [Prompt(concepts[place].id, text, None, "described") for place, text in sorted(chosen)], left_out


def _drawn(concepts: Sequence[Concept], seed: int) -> list[int]:
    """Return the concepts' places in the order in which they are drawn, whatever the list's order."""
    return sorted(range(len(concepts)), key=lambda i: derive_seed(seed, "rung", concepts[i].id))


def capture(session: Session, out: Path, store: Store, prompts: Sequence[Prompt], title: str) -> SampleSet:
    """Capture a rung's prompts through the run's capture plugin; kept in half precision, in memory."""
    collector = Collector(session, out, store, Ledger(out))
    with session.progress.track(f"Capturing {title}", len(prompts), "prompts") as advance:
        values, _, _ = collector.capture(list(prompts), advance)
    halves, scale = half_precision.encode(values)
    place = {concept.id: index for index, concept in enumerate(session.concepts)}
    families = tuple(sorted({prompt.family for prompt in prompts}))
    return SampleSet(
        concept=np.array([place[p.concept] for p in prompts], np.int32),
        named=np.array([p.span is not None for p in prompts], bool),
        family=np.array([families.index(p.family) for p in prompts], np.int32),
        families=families,
        split=np.full(len(prompts), Split.TEST, np.int8),
        layers=session.schema.layers,
        fetch=lambda rows: half_precision.decode(halves[rows], scale[rows]),
    )


class NaturalSentences:
    """The rung `natural` of one run: captured once, read by every interpreter, checked against what trains."""

    def __init__(self, session: Session, out: Path, store: Store, at_most: int = AT_MOST_IN_RUN) -> None:
        self._session, self._out, self._store = session, out, store
        self._prompts = natural_prompts(session.concepts, session.config.seed, at_most)
        self._samples: SampleSet | None = None
        self._leaked: set[int] = set()
        self._checked: set[str] = set()

    def material(self, commits: Sequence[Commit]) -> Material | None:
        """Return the sentences without those among the prompts of `commits`; None where none is left."""
        fresh = [commit for commit in commits if commit.unit not in self._checked]
        if self._prompts and fresh:
            texts = prompts_of(self._store, fresh)
            self._leaked |= leaked_prompts(texts, [prompt.text for prompt in self._prompts])
            self._checked |= {commit.unit for commit in fresh}
        rows = np.array([i for i in range(len(self._prompts)) if i not in self._leaked], np.int64)
        if len(rows) == 0:
            return None
        if self._samples is None:
            self._samples = capture(self._session, self._out, self._store, self._prompts, "natural sentences")
        return Material(self._samples, rows, len(self._leaked))


def prompts_of(store: Store, commits: Sequence[Commit]) -> Iterator[str]:
    """Yield the texts of all committed prompts, a part in memory at a time."""
    for commit in commits:
        if commit.rows:
            yield from read_committed(store, commit).prompt


def check_apart(training: SampleSet, judging: Material, rung: str) -> None:
    """Refuse a rung that reads a family which training read as well. Raises EncycloError."""
    rows = training.rows(Split.TRAIN, Split.VALIDATION)
    used = {training.families[f] for f in np.unique(training.family[rows])}
    read = {judging.samples.families[f] for f in np.unique(judging.samples.family[judging.rows])}
    if both := leaked_families(used, read):
        raise EncycloError(
            f"The rung {rung} can't be judged: training read prompts of the family {min(both)!r} as well; "
            "give the sampler's families other names."
        )


def measure(
    interpreter: Interpreter,
    material: Material,
    concepts: Sequence[Concept],
    near: Surroundings,
    seed: int,
) -> tuple[dict[str, Any] | None, Readings]:
    """Return metrics.json's object for one interpreter on one rung (without calibration), and the readings.

    `concepts` are the candidates, in the interpreter's order, which `material.concept` counts in.
    """
    samples, rows = material.samples, material.rows
    readings = confidence.collect_readings(interpreter, samples, rows, near)
    found = evaluation.accuracy(readings.rank, len(concepts))
    if found is None:
        return None, readings
    found |= evaluation.intervals(readings.rank, readings.truth, seed)
    found["null"] = _null(interpreter, samples, rows, len(concepts), seed)
    categories = [concept.category for concept in concepts]
    found["by_category"] = evaluation.by_category(readings.rank, readings.truth, categories)
    names = [concept.name for concept in concepts]
    found["confused"] = evaluation.confused_pairs(readings.truth, readings.best, names)
    found["left_out"] = material.left_out
    return found, readings


def _null(
    interpreter: Interpreter, samples: SampleSet, rows: NDArray[np.int64], candidates: int, seed: int
) -> dict[str, Any] | None:
    """Return the accuracy with the concepts shuffled: what chance and the candidates' own shares give."""
    if candidates < 2:
        return None
    wrong = evaluation.shuffled(samples.concept, candidates, seed)
    ranks = [
        evaluation.true_ranks(scores, wrong[some])
        for some, scores in evaluation.read_in_batches(interpreter, samples, rows)
    ]
    return evaluation.accuracy(np.concatenate(ranks), candidates)
