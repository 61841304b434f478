"""Do confidences hold? Temperature, calibration error, reliability bins, abstention, conformal sets, intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15


@dataclass(frozen=True)
class Bin:
    """A reliability bin: mean confidence, accuracy, count."""

    confidence: float
    accuracy: float
    count: int


def softmax(scores: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Return softmax(scores / temperature) over the last axis."""
    from scipy.special import softmax as scipy_softmax

    result: NDArray[np.float64] = scipy_softmax(np.asarray(scores, np.float64) / temperature, axis=-1)
    return result


def fit_temperature(scores: NDArray[np.floating], truth: NDArray[np.integer]) -> float:
    """Return the temperature that minimises the negative log likelihood of the truth.

    Temperature scaling: Guo et al., "On Calibration of Modern Neural Networks", 2017. scores [n, C].
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    scores = np.asarray(scores, np.float64)
    own = scores[np.arange(len(truth)), truth]

    def loss(log_temperature: float) -> float:
        temperature = np.exp(log_temperature)
        return float(np.mean(logsumexp(scores / temperature, axis=1) - own / temperature))

    best = minimize_scalar(loss, bounds=(np.log(1e-4), np.log(1e3)), method="bounded")
    return float(np.exp(best.x))


def reliability_bins(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], bins: int = BINS
) -> list[Bin]:
    """Return the non-empty bins of equal width over [0, 1], by rising confidence."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    found = []
    for index in np.unique(place):
        inside = place == index
        found.append(Bin(float(confidence[inside].mean()), float(correct[inside].mean()), int(inside.sum())))
    return found


def expected_calibration_error(bins: list[Bin]) -> float:
    """Return the mean distance of confidence and accuracy, weighted by count (Naeini et al., 2015)."""
    total = sum(b.count for b in bins)
    return sum(b.count * abs(b.confidence - b.accuracy) for b in bins) / total


def brier_score(confidence: NDArray[np.floating], correct: NDArray[np.bool_]) -> float:
    """Return the mean squared distance of the first reading's confidence from right (1) or wrong (0)."""
    return float(np.mean((np.asarray(confidence, np.float64) - correct) ** 2))


def accuracy_by_coverage(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], steps: int = 10
) -> list[list[float]]:
    """Return [coverage, accuracy, confidence] where only the surest readings are answered, at equal steps.

    The third figure is the lowest confidence that is answered (El-Yaniv and Wiener, "On the Foundations of
    Noise-free Selective Classification", 2010). Of equal confidences an even share is taken to be answered.
    """
    order = np.argsort(-np.asarray(confidence, np.float64), kind="stable")
    sure = np.asarray(confidence, np.float64)[order]
    # Within a run of equal confidences each reading counts with the run's mean: their order is chance.
    _, group = np.unique(-sure, return_inverse=True)
    mean = np.bincount(group, correct[order]) / np.bincount(group)
    right = np.cumsum(mean[group])
    found = []
    for step in range(1, steps + 1):
        answered = max(1, round(len(order) * step / steps))
        found.append(
            [answered / len(order), float(right[answered - 1] / answered), float(sure[answered - 1])]
        )
    return found


def conformal_threshold(strangeness: NDArray[np.floating], level: float) -> float:
    """Return the strangeness that a fresh one stays within with probability at least `level`.

    Split conformal prediction (Vovk et al., "Algorithmic Learning in a Random World", 2005): the
    ceil((n + 1) level)-th smallest of n calibration values; infinite where n is too small to promise it.
    """
    place = int(np.ceil((len(strangeness) + 1) * level))
    return float(np.sort(strangeness)[place - 1]) if place <= len(strangeness) else float("inf")


@dataclass(frozen=True)
class BetaPrior:
    """A Beta distribution of accuracies over concepts: `mean`, and `strength` in samples."""

    mean: float
    strength: float


def fit_beta_prior(right: NDArray[np.integer], total: NDArray[np.integer], most: float = 20.0) -> BetaPrior:
    """Fit how accuracy varies over concepts (beta-binomial likelihood), from `right` of `total` readings each.

    The strength is at most `most`: where concepts hardly differ the likelihood would let it grow without
    bound, and a concept's few own samples would count for nothing.
    """
    from scipy.optimize import minimize_scalar
    from scipy.stats import betabinom

    seen = total > 0
    right, total = right[seen], total[seen]
    mean = float((right.sum() + 0.5) / (total.sum() + 1.0))

    def loss(log_strength: float) -> float:
        strength = np.exp(log_strength)
        return -float(betabinom.logpmf(right, total, mean * strength, (1 - mean) * strength).sum())

    best = minimize_scalar(loss, bounds=(np.log(0.5), np.log(most)), method="bounded")
    return BetaPrior(mean, float(np.exp(best.x)))


def beta_interval(
    prior: BetaPrior, right: NDArray[np.integer], total: NDArray[np.integer], level: float = 0.95
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return (mean, low, high) float32 [C] of each concept's accuracy after its own readings.

    Where nearly every reading is right (or wrong) the fitted prior holds next to no reading of the other kind,
    and its interval would claim certainty from three samples. For the interval, not for the mean, the prior
    therefore holds at least half a reading of either kind (Jeffreys' prior).
    """
    from scipy.stats import beta

    yes, no = prior.mean * prior.strength, (1 - prior.mean) * prior.strength
    mean = (yes + right) / (prior.strength + total)
    a, b = max(yes, 0.5) + right, max(no, 0.5) + (total - right)
    tail = (1 - level) / 2
    low, high = beta.ppf(tail, a, b), beta.ppf(1 - tail, a, b)
    # A very skewed distribution has its mean outside the central interval: the interval then reaches to it.
    low, high = np.minimum(low, mean), np.maximum(high, mean)
    return mean.astype(np.float32), low.astype(np.float32), high.astype(np.float32)
