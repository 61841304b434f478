"""The rows to train on, and the watched rows that decide when to stop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encyclo.types import SampleSet, Split
from encyclo_interpreters.sample_statistics import training_means

FEWEST_DESCRIBED = 100
"""With fewer described concepts no shared space is fitted: it would be noise."""
WATCHED_CONCEPTS = 0.05
"""Share of the described concepts whose descriptions are watched, not trained on."""
MOST_WATCHED = 4096
"""The validation loss uses at most this many samples of each kind."""


@dataclass(frozen=True)
class TrainingData:
    """The samples, the rows to train on, and the concepts' means.

    rows, watched: int64, rows to train on and rows that decide when to stop
    means, count:  float32 [C, L, H] and [C], of each concept over its named training samples
    """

    samples: SampleSet
    rows: NDArray[np.int64]
    watched: NDArray[np.int64]
    means: NDArray[np.float32]
    count: NDArray[np.int64]

    @classmethod
    def choose(cls, samples: SampleSet, concepts: int, generator: np.random.Generator) -> TrainingData:
        """Choose training and watched rows, and average each concept's named training samples."""
        rows, watched = choose_rows(samples, generator)
        means, count = training_means(samples, rows, concepts)
        # A concept that no training sample names has no signature for its descriptions to find.
        rows, watched = (part[count[samples.concept[part]] > 0] for part in (rows, watched))
        return cls(samples, rows, watched, means, count)

    @property
    def described_rows(self) -> NDArray[np.int64]:
        """Return the rows of the training descriptions."""
        return self.rows[~self.samples.named[self.rows]]

    @property
    def described_watched(self) -> NDArray[np.int64]:
        """Return the rows of the watched descriptions."""
        return self.watched[~self.samples.named[self.watched]]


def choose_rows(
    samples: SampleSet, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (training rows, watched rows).

    Watched are the named samples of the validation families, and every description of a few concepts: a description
    should find its concept even if no description of that concept was trained on.
    """
    rows, validation = samples.rows(Split.TRAIN), samples.rows(Split.VALIDATION)
    named = samples.named[validation]
    watched = _thinned(validation[named], generator)
    described = np.unique(samples.concept[rows[~samples.named[rows]]])
    if len(described) >= FEWEST_DESCRIBED:
        size = max(1, int(WATCHED_CONCEPTS * len(described)))
        watched_concepts = generator.choice(described, size, replace=False)
        held_out = ~samples.named[rows] & np.isin(samples.concept[rows], watched_concepts)
        watched = np.concatenate([watched, _thinned(rows[held_out], generator)])
        rows = rows[~held_out]
    else:
        rows = rows[samples.named[rows]]
    return rows, watched


def _thinned(rows: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    return rows if len(rows) <= MOST_WATCHED else np.sort(generator.choice(rows, MOST_WATCHED, replace=False))
