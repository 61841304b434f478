"""The rung `natural`: sentences by other authors that mention a concept, captured once, never trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from encyclo import half_precision
from encyclo.english import find_mention
from encyclo.runs.open_run import OpenRun
from encyclo.seeds import derive_seed
from encyclo.statistics.splits import leaked_prompts
from encyclo.storage.ledger import Commit, read_committed
from encyclo.types import Concept, Prompt, SampleSet, Split, Store

LIMIT_IN_RUN = 1_000
"""The most sentences that `encyclo run` reads after each stage."""


@dataclass(frozen=True)
class RungSamples:
    """A rung's samples, and how many prompts were left out because they or the name were in training."""

    samples: SampleSet
    rows: NDArray[np.int64]
    left_out: int = 0


def natural_prompts(concepts: Sequence[Concept], seed: int, limit: int) -> list[Prompt]:
    """Return at most `limit` example sentences that mention their concept, in the run's order.

    Every concept gives its first sentence before any gives its second.
    """
    waiting = [(place, _sentences(concepts[place])) for place in draw_concepts(concepts, seed)]
    chosen: list[tuple[int, Prompt]] = []
    while waiting and len(chosen) < limit:
        again = []
        for place, sentences in waiting:
            if len(chosen) == limit:
                break
            if prompt := next(sentences, None):
                chosen.append((place, prompt))
                again.append((place, sentences))
        waiting = again
    return [prompt for _, prompt in sorted(chosen, key=lambda item: item[0])]


def _sentences(concept: Concept) -> Iterator[Prompt]:
    spans = dict(zip(concept.examples, concept.example_spans or repeat(None), strict=False))
    for example, known in spans.items():
        if span := known or find_mention(example, concept):
            yield Prompt(concept.id, example, span, "natural")


def draw_concepts(concepts: Sequence[Concept], seed: int) -> list[int]:
    """Return the concepts' indices in the order in which a rung draws them; it doesn't depend on the list's order."""
    return sorted(range(len(concepts)), key=lambda i: derive_seed(seed, "rung", concepts[i].id))


def capture_rung(run: OpenRun, prompts: Sequence[Prompt], title: str) -> SampleSet:
    """Capture a rung's prompts with the run's capture plugin; keep them in memory, in half precision."""
    session = run.session
    with session.progress.track(f"Capturing {title}", len(prompts), "prompts") as advance:
        captured = run.capture(prompts, advance)
    halves, scale = half_precision.encode(captured.activations)
    families = tuple(sorted({prompt.family for prompt in prompts}))
    return SampleSet(
        concept=np.array([session.place_of[p.concept] for p in prompts], np.int32),
        named=np.array([p.span is not None for p in prompts], bool),
        family=np.array([families.index(p.family) for p in prompts], np.int32),
        families=families,
        split=np.full(len(prompts), Split.TEST, np.int8),
        layers=session.schema.layers,
        fetch=lambda rows: half_precision.decode(halves[rows], scale[rows]),
    )


class NaturalSentences:
    """The rung `natural` of one run: captured once, read by every interpreter, without training's prompts."""

    def __init__(self, run: OpenRun, limit: int = LIMIT_IN_RUN) -> None:
        self._run = run
        self._prompts = natural_prompts(run.session.concepts, run.session.config.seed, limit)
        self._leaked: set[int] = set()
        self._checked: set[str] = set()

    @property
    def count(self) -> int:
        """Return the number of sentences, prompts of training included."""
        return len(self._prompts)

    def rung(self, commits: Sequence[Commit]) -> RungSamples | None:
        """Return the sentences that are not prompts of `commits`; None if none is left."""
        fresh = [commit for commit in commits if commit.unit not in self._checked]
        if self._prompts and fresh:
            texts = prompts_of(self._run.store, fresh)
            self._leaked |= leaked_prompts(texts, [prompt.text for prompt in self._prompts])
            self._checked |= {commit.unit for commit in fresh}
        rows = np.array([i for i in range(len(self._prompts)) if i not in self._leaked], np.int64)
        if len(rows) == 0:
            return None
        return RungSamples(self._samples, rows, len(self._leaked))

    @cached_property
    def _samples(self) -> SampleSet:
        return capture_rung(self._run, self._prompts, "natural sentences")


def prompts_of(store: Store, commits: Sequence[Commit]) -> Iterator[str]:
    """Yield the texts of all committed prompts, one part in memory at a time."""
    for commit in commits:
        if commit.rows:
            yield from read_committed(store, commit).prompt
