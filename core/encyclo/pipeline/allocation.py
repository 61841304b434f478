"""Divide a stage's budget of new samples among the unsettled concepts, according to their needs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FEWEST = 2
"""The fewest new samples of an unsettled concept, if the budget allows it: one alone adds no information."""
TIMES = 3
"""The most new samples of a concept, as a multiple of the usual number, so that a hopeless one can't take all."""
MARGIN = 2
"""A concept gets this multiple of its estimated need. With just the estimate about half of the concepts would get too
few samples, and the estimate is too low, because the earlier samples vary less than a new stage's."""


def samples_to_converge(
    count: NDArray[np.integer], error: NDArray[np.floating], threshold: float
) -> NDArray[np.float64]:
    """Return float64 [C]: new samples until the relative standard error `error` is at most `threshold`.

    A standard error falls as 1/sqrt(samples), so a concept with `count` samples needs
    count * (error / threshold)^2 in all. NaN where the error isn't known yet (fewer than two samples).
    """
    with np.errstate(invalid="ignore"):
        needed = count * (np.where(np.isfinite(error), error, np.nan) / threshold) ** 2 - count
    result: NDArray[np.float64] = np.maximum(np.ceil(needed), 0)
    return result


def samples_to_clear(
    count: NDArray[np.integer],
    confidence: NDArray[np.floating],
    low: NDArray[np.floating],
    target: float,
) -> NDArray[np.float64]:
    """Return float64 [C]: new samples until the interval's lower end `low` clears `target`.

    The distance from the mean to the lower end falls about as 1/sqrt(samples), if the mean doesn't change.
    Infinite where the mean itself is not above the target: only a better interpreter helps then, and more
    samples train one. NaN where the confidence isn't known.
    """
    width, room = confidence - low, confidence - target
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = count * (width / room) ** 2 - count
    needed = np.where(low >= target, 0.0, np.where(room > 0, np.ceil(needed), np.inf))
    result: NDArray[np.float64] = np.where(np.isnan(low) | np.isnan(confidence), np.nan, needed)
    return result


def allocate(needed: NDArray[np.floating], usual: int, budget: int) -> NDArray[np.int64]:
    """Return int64 [n]: the samples of each of n concepts, at most `budget` in all.

    A concept gets MARGIN times its need, at least FEWEST and at most TIMES times `usual`; if its need is
    unknown (NaN), it gets `usual`. If the sum exceeds the budget, all are cut in proportion; the samples left
    by rounding go to the largest remainders, then to the first concepts.
    """
    most = max(FEWEST, TIMES * usual)
    asked = np.clip(np.where(np.isnan(needed), usual, MARGIN * needed), FEWEST, most)
    total = asked.sum()
    if total <= budget:
        return asked.astype(np.int64)
    share = asked * (budget / total)
    given: NDArray[np.int64] = np.floor(share).astype(np.int64)
    order = np.argsort(-(share - given), kind="stable")
    given[order[: budget - int(given.sum())]] += 1
    return given
