"""What training reads, and what is kept aside to say when it should stop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encyclo.types import SampleSet, Split
from encyclo_interpreters.sample_statistics import training_means

FEWEST_DESCRIBED = 100
"""Described concepts below which no shared space is fitted: it would be noise."""
WATCHED_CONCEPTS = 0.05
"""Share of the described concepts whose descriptions only say when to stop."""
MOST_WATCHED = 4096
"""Samples of a kind that the validation loss is taken over."""


@dataclass(frozen=True)
class TrainingData:
    """The samples, which of them train, and the concepts' means.

    rows train, `watched` say when to stop: int64. means float32 [C, L, H] and count [C] are the concepts' over
    their named training samples.
    """

    samples: SampleSet
    rows: NDArray[np.int64]
    watched: NDArray[np.int64]
    means: NDArray[np.float32]
    count: NDArray[np.int64]

    @classmethod
    def choose(cls, samples: SampleSet, concepts: int, generator: np.random.Generator) -> TrainingData:
        """Choose what trains and what is watched, and average it."""
        rows, watched = choose_rows(samples, generator)
        means, count = training_means(samples, rows, concepts)
        # A description of a concept that no training sample names has no signature to find.
        rows, watched = (some[count[samples.concept[some]] > 0] for some in (rows, watched))
        return cls(samples, rows, watched, means, count)

    @property
    def described_rows(self) -> NDArray[np.int64]:
        """Return the descriptions that train."""
        return self.rows[~self.samples.named[self.rows]]

    @property
    def described_watched(self) -> NDArray[np.int64]:
        """Return the descriptions that are watched."""
        return self.watched[~self.samples.named[self.watched]]


def choose_rows(
    samples: SampleSet, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (rows that train, rows that are watched).

    Watched are the validation families' samples that name, and the descriptions of a few concepts in every
    family: what is asked of a description is to find a concept whose descriptions were never met.
    """
    rows, validation = samples.rows(Split.TRAIN), samples.rows(Split.VALIDATION)
    named = samples.named[validation]
    watched = _thinned(validation[named], generator)
    described = np.unique(samples.concept[rows[~samples.named[rows]]])
    if len(described) >= FEWEST_DESCRIBED:
        kept = generator.choice(described, max(1, int(WATCHED_CONCEPTS * len(described))), replace=False)
        apart = ~samples.named[rows] & np.isin(samples.concept[rows], kept)
        watched = np.concatenate([watched, _thinned(rows[apart], generator)])
        rows = rows[~apart]
    else:
        rows = rows[samples.named[rows]]
    return rows, watched


def _thinned(rows: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    return rows if len(rows) <= MOST_WATCHED else np.sort(generator.choice(rows, MOST_WATCHED, replace=False))
