"""How many new samples each unsettled concept gets, from how far it has to go, within a stage's budget."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FEWEST = 2
"""New samples that an unsettled concept gets at least (budget permitting): fewer say nothing new."""
TIMES = 3
"""New samples that a concept gets at most, as a multiple of the usual number: a hopeless one can't take all."""
MARGIN = 2
"""What is asked for, as a multiple of the need: with no more than that, chance alone would leave half of them short,
and a stage's samples are more various than those before, by which the need is estimated."""


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

    The distance from the mean to the lower end falls about as 1/sqrt(samples), if the mean stays. Infinite
    where the mean itself is not above the target: then only a better interpreter helps, and more samples make
    one. NaN where the confidence isn't known.
    """
    width, room = confidence - low, confidence - target
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = count * (width / room) ** 2 - count
    needed = np.where(low >= target, 0.0, np.where(room > 0, np.ceil(needed), np.inf))
    result: NDArray[np.float64] = np.where(np.isnan(low) | np.isnan(confidence), np.nan, needed)
    return result


def allocate(needed: NDArray[np.floating], usual: int, budget: int) -> NDArray[np.int64]:
    """Return int64 [n]: samples for each of n concepts, their sum at most `budget`.

    A concept gets MARGIN times what it needs, but between FEWEST and TIMES times `usual`; one whose need is unknown
    (NaN) gets `usual`. If that is over the budget all are cut in proportion, and what rounding leaves goes to the
    largest remainders, then to the first concepts.
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
