"""What is read in running text: recall, precision, false alarms, calibration; and which of a word's senses."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encyclo.statistics import accuracy
from encyclo.statistics.calibration import expected_calibration_error, reliability_bins
from encyclo.statistics.figures import Accuracy, TextReadings

FEWEST_DOCUMENTS = 5
"""With fewer documents the interval is over readings: so few documents don't show how much documents differ."""


@dataclass(frozen=True)
class Answers:
    """What a reader says about each of n words: an entry's row (-1: none) int64 [n], its confidence float64 [n]."""

    entry: NDArray[np.int64]
    confidence: NDArray[np.float64]


def reading_figures(
    answers: Answers,
    right: Sequence[Collection[int]],
    stands: NDArray[np.bool_],
    document: NDArray[np.integer],
    at_least: float,
    seed: int = 0,
) -> TextReadings:
    """Return the figures of the answers whose confidence is at least `at_least`: the readings.

    `right` holds the rows of the entries that are right at each word; a word that has some is a mention. `stands` says
    where an entry's word stands, bool [n], `document` which document a word is in, int [n].
    """
    given = (answers.entry >= 0) & (answers.confidence >= at_least)
    correct = np.array([row in rows for row, rows in zip(answers.entry.tolist(), right, strict=True)], bool)
    mentions, readings, found = sum(map(bool, right)), int(given.sum()), int((given & correct).sum())
    figures = TextReadings(
        readings=readings,
        recall=found / mentions if mentions else None,
        others_per_1000=1000 * int((given & ~stands).sum()) / len(given) if len(given) else None,
        precision=None,
        precision_low=None,
        precision_high=None,
        ece=None,
        n=mentions,
    )
    if not readings:
        return figures
    low, high = _interval(correct[given], document[given], seed)
    error = expected_calibration_error(reliability_bins(answers.confidence[given], correct[given]))
    more = {"precision": found / readings, "precision_low": low, "precision_high": high, "ece": error}
    return figures.model_copy(update=more)


def _interval(correct: NDArray[np.bool_], document: NDArray[np.integer], seed: int) -> tuple[float, float]:
    """Return a 95% interval: a bootstrap that draws documents with all their readings, else the exact binomial one."""
    from scipy.stats import binomtest

    _, place, count = np.unique(document, return_inverse=True, return_counts=True)
    if len(count) < FEWEST_DOCUMENTS or correct.all() or not correct.any():
        exact = binomtest(int(correct.sum()), len(correct)).proportion_ci()
        return float(exact.low), float(exact.high)
    return accuracy.share_interval(np.bincount(place, correct), count, seed)


@dataclass(frozen=True)
class Choice:
    """A mention: the entries that have its word, the right ones, and each reader's score of each of `entries`."""

    entries: Sequence[int]
    right: Collection[int]
    scores: Mapping[str, Sequence[float]]

    def rank(self, scores: Sequence[float]) -> int:
        """Return the rank of the best right entry; ties count against. Never 1 if no right entry has the word."""
        own = [score for entry, score in zip(self.entries, scores, strict=True) if entry in self.right]
        if not own:
            return max(2, len(self.entries) + 1)
        others = (s for entry, s in zip(self.entries, scores, strict=True) if entry not in self.right)
        return 1 + sum(not score < max(own) for score in others)


def sense_accuracies(
    choices: Sequence[Choice], readers: Sequence[str], seed: int = 0
) -> dict[str, Accuracy | None]:
    """Return each reader's accuracy among a word's entries: over words that two entries have, and over all.

    `candidates` is the most entries of a word. The null gives a word's entries their scores in random order.
    """
    truth = np.array([min(choice.right) for choice in choices], np.int64)
    several = np.array([len(choice.entries) > 1 for choice in choices], bool)
    most = max((len(choice.entries) for choice in choices), default=0)
    found: dict[str, Accuracy | None] = {}
    for reader in readers:
        ranks = np.array([choice.rank(choice.scores[reader]) for choice in choices], np.int64)
        figures = _accuracy(ranks[several], truth[several], most, seed)
        if figures is not None:
            draw = np.random.default_rng(seed)
            guesses = [choice.rank(draw.permutation(choice.scores[reader]).tolist()) for choice in choices]
            null = accuracy.accuracy(np.array(guesses, np.int64)[several], most)
            figures = figures.model_copy(update={"null": null, "all": _accuracy(ranks, truth, most, seed)})
        found[reader] = figures
    return found


def _accuracy(
    ranks: NDArray[np.int64], truth: NDArray[np.int64], candidates: int, seed: int
) -> Accuracy | None:
    found = accuracy.accuracy(ranks, candidates)
    return found and found.model_copy(update=accuracy.intervals(ranks, truth, seed))
