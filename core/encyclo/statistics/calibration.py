"""Calibration: temperature, calibration error, reliability bins, abstention, conformal sets, intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15
BORROWED = 100.0
"""The most readings that all other concepts together count as, beside a concept's own ones, in its interval."""
BLOCK = 2**17
"""Scores that are exponentiated at once: 1 MB with their exponentials, which stays in a processor's cache."""
FIRST = 16
"""The best scores that give a first temperature."""
MOST_STEPS = 60
CLOSE = 3e-4
"""The last of Newton's steps, in log(temperature): the error is about its square."""
FLAT = 1e-12
"""A loss that changes by less, when the temperature changes by a factor of e, has reached its end."""
FARTHEST = np.float32(-1e15)
"""Scores that are lower, beside the best one, count as this."""
HALVINGS = 24
"""Halvings of [0, 1] in the search for a quantile: as fine as float32."""


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
    scores = np.asarray(scores)
    own, descending = scores[np.arange(len(truth)), truth], -np.sort(-scores, axis=1)
    return fit_temperature_of_best(descending, own, np.ones(len(truth), bool))


def fit_temperature_of_best(
    top: NDArray[np.floating], own: NDArray[np.floating], inside: NDArray[np.bool_]
) -> float:
    """Return the same from each reading's best scores [n, K], the score of its truth [n], and whether it is among them.

    Scores are descending. The temperature is found in [1e-4, 1e3] by Newton's method on the loss's slope, which rises
    with 1 / temperature, within a bracket that is halved where Newton's steps are too long. The first few scores give
    the start for all of them.
    """
    if top.shape[1] > 4 * FIRST:
        few = top[:, :FIRST]
        start = -np.log(fit_temperature_of_best(few, own, own >= few[:, -1]))
    else:
        reach = float(np.median(top[:, 0] - np.median(top, axis=1)))
        start = np.log(2 * np.log1p(top.shape[1]) / reach) if 0 < reach < np.inf else 0.0
    low, high = np.log(1e-3), np.log(1e4)  # of 1 / temperature
    place, step = min(max(float(start), low), high), high - low
    for _ in range(MOST_STEPS):
        inverse = np.exp(place)
        slope, bend = _slope_of_loss(top, own, inside, inverse)
        low, high = (place, high) if slope * inverse < -FLAT else (low, place)
        wanted = inverse - (slope + FLAT / inverse) / bend if bend > 0 else -1.0
        following = np.log(wanted) if wanted > 0 else high
        close = CLOSE
        if not (low < following < high and abs(following - place) <= step / 2):
            following, close = (low + high) / 2, CLOSE**2
        place, step = float(following), abs(following - place)
        if step < close:
            break
    return float(np.exp(-place))


def _slope_of_loss(
    top: NDArray[np.floating], own: NDArray[np.floating], inside: NDArray[np.bool_], inverse: float
) -> tuple[float, float]:
    """Return the first and second derivative of the mean loss by 1 / temperature; rows are read in blocks.

    Each reading's sums are in float32, which moves the temperature by less than a millionth; the means are in float64.
    """
    size = max(1, BLOCK // max(1, top.shape[1]))
    first, second = np.empty((2, len(top)))
    buffer = np.empty((2, min(size, len(top)), top.shape[1]), np.float32)
    for start in range(0, len(top), size):
        rows = slice(start, start + size)
        values, weight = buffer[:, : len(top[rows])]
        highest = top[rows, :1]
        # Minus each row's best, so that no exponential overflows.
        np.subtract(top[rows], highest, out=values, casting="same_kind")
        if values.min() < FARTHEST:  # a score of -inf would give 0 times infinity
            np.maximum(values, FARTHEST, out=values)
        np.exp(np.multiply(values, np.float32(inverse), out=weight), out=weight)
        behind = np.maximum(own[rows].astype(np.float64) - highest[:, 0], FARTHEST)
        # A truth that is not among the best scores counts beside them.
        other = np.where(inside[rows], 0, np.exp(behind * inverse))
        total = weight.sum(axis=1) + other
        mean = (np.vecdot(weight, values) + other * behind) / total
        weight *= values
        square = (np.vecdot(weight, values) + other * behind**2) / total
        first[rows], second[rows] = mean - behind, square - mean**2
    return float(first.mean()), float(second.mean())


def reliability_bins(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], bins: int = BINS
) -> list[Bin]:
    """Return the non-empty bins of equal width over [0, 1], by ascending confidence."""
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


def error_by_chance(
    confidence: NDArray[np.floating], bins: int = BINS, draws: int = 200, seed: int = 0
) -> float:
    """Return the mean calibration error if every confidence were exact: what so few readings show by chance alone."""
    exact = np.asarray(confidence, np.float64)
    place = np.minimum((exact * bins).astype(int), bins - 1)
    generator = np.random.default_rng(seed)
    off = [
        np.abs(np.bincount(place, (generator.random(len(exact)) < exact) - exact)).sum() for _ in range(draws)
    ]
    return float(np.mean(off) / len(exact))


def brier_score(confidence: NDArray[np.floating], correct: NDArray[np.bool_]) -> float:
    """Return the mean squared distance between the confidence and being right (1) or wrong (0)."""
    return float(np.mean((np.asarray(confidence, np.float64) - correct) ** 2))


def accuracy_by_coverage(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], steps: int = 10
) -> list[list[float]]:
    """Return [coverage, accuracy, confidence] at equal steps of coverage, the share of readings answered.

    The readings of highest confidence are answered; the third figure is the lowest confidence answered (El-Yaniv and
    Wiener, "On the Foundations of Noise-free Selective Classification", 2010). Equal confidences are answered in equal
    shares.
    """
    order = np.argsort(-np.asarray(confidence, np.float64), kind="stable")
    sure = np.asarray(confidence, np.float64)[order]
    # The order of equal confidences is chance, so each of them counts with their mean.
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


def conformal_threshold(scores: NDArray[np.floating], level: float) -> float:
    """Return the threshold that a new nonconformity score does not exceed with probability at least `level`.

    Split conformal prediction (Vovk et al., "Algorithmic Learning in a Random World", 2005): the
    ceil((n + 1) level)-th smallest of n calibration values; infinite if n is too small for `level`.
    """
    place = int(np.ceil((len(scores) + 1) * level))
    return float(np.sort(scores)[place - 1]) if place <= len(scores) else float("inf")


@dataclass(frozen=True)
class Accuracies:
    """How accuracy varies over concepts: a mixture of Beta distributions, weighted by their posterior.

    yes, no, weight: float64 [k]; the parameters of Beta(yes, no), as right and wrong readings; the weights sum to 1
    share: the share of all readings that are right
    """

    yes: NDArray[np.float64]
    no: NDArray[np.float64]
    weight: NDArray[np.float64]
    share: float

    @property
    def mean(self) -> float:
        """The expected accuracy of a concept without readings."""
        return float(self.weight @ (self.yes / (self.yes + self.no)))

    @property
    def strength(self) -> float:
        """How many readings of a concept weigh as much as the prior over concepts (geometric mean)."""
        return float(np.exp(self.weight @ np.log(self.yes + self.no)))


def fit_accuracies(right: NDArray[np.integer], total: NDArray[np.integer]) -> Accuracies:
    """Estimate how accuracy varies over concepts, from `right` of `total` readings of each concept.

    A hierarchical beta-binomial model (Gelman et al., "Bayesian Data Analysis", 2013, ch. 5) on a grid of means and
    strengths. The prior is uniform in the mean and in 1 / (1 + strength), the weight of a single reading
    (Christiansen and Morris, "Hierarchical Poisson Regression Modeling", 1997). The result averages over the grid,
    so it stays as uncertain about the spread of concepts as few readings leave it.
    """
    from scipy.special import betaln, expit

    logit, log_strength = np.meshgrid(np.linspace(-9, 9, 91), np.linspace(-1.5, 9.5, 56), indexing="ij")
    mean, strength = expit(logit).ravel(), np.exp(log_strength).ravel()
    yes, no = mean * strength, (1 - mean) * strength
    # The grid is even in logit and log: their derivatives turn the two densities into weights.
    weight = np.log(mean * (1 - mean)) + np.log(strength) - 2 * np.log1p(strength)
    seen = total > 0
    kinds, count = np.unique(np.stack([right[seen], total[seen]]), axis=1, return_counts=True)
    for (k, n), times in zip(kinds.T.tolist(), count.tolist(), strict=True):
        weight += times * (betaln(yes + k, no + n - k) - betaln(yes, no))
    weight = np.exp(weight - weight.max())
    likely = weight > 1e-6
    share = float(right.sum() / total.sum()) if total.sum() else 0.5
    return Accuracies(yes[likely], no[likely], weight[likely] / weight[likely].sum(), share)


def accuracy_intervals(
    found: Accuracies, right: NDArray[np.integer], total: NDArray[np.integer], level: float = 0.95
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return (mean, low, high) float32 [C] of each concept's accuracy after its own readings.

    If nearly all readings are right, the posterior alone would claim certainty, also of a concept without readings.
    So two more intervals limit it: the one from the concept's k right of n readings alone, and the one in which all
    other readings, whose share p is right, count as S = `BORROWED` readings:

        Beta(k + 1/2, n - k + 1/2)    Beta(k + S p + 1/2, n - k + S (1 - p) + 1/2)

    The second is a power prior (Ibrahim and Chen, "Power Prior Distributions for Regression Models", 2000) on Jeffreys'
    prior. The lower end is at most the larger of their lower ends, and the upper end at least the smaller of their
    upper ends.
    """
    kinds, place = np.unique(np.stack([right, total]), axis=1, return_inverse=True)
    k, n = kinds[0][:, None], kinds[1][:, None]
    yes, no = found.yes + k, found.no + n - k
    mean = (yes / (yes + no)) @ found.weight
    tail = (1 - level) / 2
    low, high = _quantile(yes, no, found.weight, tail), _quantile(yes, no, found.weight, 1 - tail)
    alone_low, alone_high = _jeffreys(kinds[0], kinds[1], level)
    borrowed_low, borrowed_high = _jeffreys(kinds[0] + BORROWED * found.share, kinds[1] + BORROWED, level)
    low = np.minimum(low, np.maximum(alone_low, borrowed_low))
    high = np.maximum(high, np.minimum(alone_high, borrowed_high))
    # A very skewed distribution has its mean outside the central interval: extend the interval to it.
    low, high = np.minimum(low, mean), np.maximum(high, mean)
    one, two, three = (figure.astype(np.float32)[place.ravel()] for figure in (mean, low, high))
    return one, two, three


def _jeffreys(
    right: NDArray[Any], total: NDArray[Any], level: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (low, high) of an accuracy from `right` of `total` readings (Jeffreys' interval)."""
    from scipy.stats import beta

    tail = (1 - level) / 2
    a, b = right + 0.5, total - right + 0.5
    return beta.ppf(tail, a, b), beta.ppf(1 - tail, a, b)


def _quantile(
    yes: NDArray[np.float64], no: NDArray[np.float64], weight: NDArray[np.float64], share: float
) -> NDArray[np.float64]:
    """Return the `share` quantile of m mixtures of Betas (yes, no [m, k]; weight [k]): [m], by bisection."""
    from scipy.special import betainc

    low, high = np.zeros(len(yes)), np.ones(len(yes))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        below = betainc(yes, no, middle[:, None]) @ weight < share
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    result: NDArray[np.float64] = (low + high) / 2
    return result
