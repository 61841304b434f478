"""Do the intervals of confidences hold on prompt families that they were not estimated from?

    encyclo run --sampler templates --per-concept 20 --out RUN
    python benchmarks/intervals.py RUN

Interpreters by nearest centroid, on several layers and some from a single sample per concept, are trained on a part of
the run's prompt families. They read two thirds to nearly all of the other samples correctly. Their readings in one half
of the other families give every concept its interval, and the other half tests it. The first table has, for that half:

    accuracy                   the share of correct readings
    inside the 95% prediction  the share of concepts whose number of correct readings is in the predicted central 95%
    concepts that reach 0.85   the share of concepts whose lower end is at least 0.85, then how often these and the
                               others are read correctly

The second table is about simulated populations: the share of concepts whose true accuracy is in their interval.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom

from encyclo.query.encyclopedia import open_run
from encyclo.statistics import calibration
from encyclo.statistics.calibration import Accuracies
from encyclo.storage.sample_rows import sample_set

READERS = {
    "all layers": (0.3, 0, None),
    "all layers, 1 sample per concept": (0.3, 1, None),
    "layer -1": (0.3, 0, -1),
    "layer -1, 1 sample per concept": (0.3, 1, -1),
    "layer -6, 1 sample per concept": (0.15, 1, -6),
}
"""Share of the families that train, samples per concept (0: all), layer (None: all)."""
TARGET = 0.85
REPEATS = 10


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    given = parser.parse_args()
    print(
        "| interpreter (nearest centroid) | accuracy | readings per concept | strength of the prior | "
        f"inside the 95% prediction | concepts that reach {TARGET} | accuracy of those | accuracy of the others |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, (first, second) in readings(given.run):
        print_row(name, *first, *second)
    print(
        "\n| population | concepts | readings per concept | in the interval | below it | reach 0.95 | truly below |"
    )
    print("|---|---|---|---|---|---|---|")
    for count in (200, 1000):
        for each in (3, 10):
            print_simulated(count, each)


Counts = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Right readings and all readings of each concept."""


def readings(run: Path) -> Iterator[tuple[str, tuple[Counts, Counts]]]:
    """Yield each reader's counts in one half of the families that it was not trained on, and in the other."""
    with open_run(run) as book:
        samples, layers, count = sample_set(book.source, book.layers), book.layers, len(book)
        rows = np.flatnonzero(samples.named)
        values = samples.read(rows)
    owner, family = samples.concept[rows], samples.family[rows]
    generator = np.random.default_rng(0)
    for name, (share, most, layer) in READERS.items():
        order = generator.permutation(len(samples.families))
        apart = order[int(share * len(order)) :]
        trains = ~np.isin(family, apart)
        some = values if layer is None else values[:, [layers.index(layer)]]
        best = read(some, owner, trains, most, count, generator)
        halves = []
        for part in (apart[::2], apart[1::2]):
            inside = np.isin(family, part)
            right = np.bincount(owner[inside], best[inside] == owner[inside], minlength=count)
            halves.append((right.astype(np.int64), np.bincount(owner[inside], minlength=count)))
        yield name, (halves[0], halves[1])


def read(
    values: NDArray[np.float32],
    owner: NDArray[np.int32],
    trains: NDArray[np.bool_],
    most: int,
    count: int,
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """Return the concept whose mean over (at most `most` of) its training rows is nearest to each row."""
    rows = generator.permutation(np.flatnonzero(trains))
    if most:
        rows = rows[np.unique(owner[rows], return_index=True)[1]]
    scaled = (values - values[trains].mean(axis=0)) / (values[trains].std(axis=0) + 1e-6)
    means = np.zeros((count, *values.shape[1:]), np.float32)
    np.add.at(means, owner[rows], scaled[rows])
    means, scaled = (v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-9) for v in (means, scaled))
    flat = means.reshape(count, -1).T
    pieces = [scaled[at : at + 4096].reshape(-1, len(flat)) @ flat for at in range(0, len(scaled), 4096)]
    return np.concatenate([piece.argmax(axis=1) for piece in pieces])


def print_row(
    name: str,
    right: NDArray[np.int64],
    total: NDArray[np.int64],
    later_right: NDArray[np.int64],
    later: NDArray[np.int64],
) -> None:
    """Print how well the intervals from (right, total) predict later readings."""
    found = calibration.fit_accuracies(right, total)
    _, low, _ = calibration.accuracy_intervals(found, right, total)
    cleared = low >= TARGET
    held = [
        predicted(found, *case) for case in zip(right, total, later_right, later, strict=True) if case[3] > 0
    ]
    shares = (later_right[chosen].sum() / max(later[chosen].sum(), 1) for chosen in (cleared, ~cleared))
    print(
        f"| {name} | {later_right.sum() / later.sum():.1%} | {total.mean():.1f} | {found.strength:.1f} | "
        f"{np.mean(held):.1%} | {cleared.mean():.1%} | {' | '.join(f'{share:.1%}' for share in shares)} |"
    )


def predicted(found: Accuracies, right: int, total: int, later_right: int, later: int) -> bool:
    """Return whether `later_right` of `later` is in the central 95% of what `right` of `total` predicts."""
    places = np.arange(later + 1)[:, None]
    # A concept's own readings don't change the weights, as in the intervals.
    chances = betabinom.pmf(places, later, found.yes + right, found.no + total - right) @ found.weight
    below = np.cumsum(chances)
    return bool(np.searchsorted(below, 0.025) <= later_right <= np.searchsorted(below, 0.975))


def populations(count: int, generator: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Return simulated true accuracies."""
    share = generator.random(count)
    return {
        "all 0.998": np.full(count, 0.998),
        "Beta, mean 0.97, strength 3": generator.beta(2.91, 0.09, count),
        "Beta, mean 0.9, strength 5": generator.beta(4.5, 0.5, count),
        "Beta, mean 0.97, strength 20": generator.beta(19.4, 0.6, count),
        "Beta, mean 0.995, strength 200": generator.beta(199, 1, count),
        "2% at 0.6, others 0.999": np.where(share < 0.02, 0.6, 0.999),
        "10% at 0.7, others 0.99": np.where(share < 0.1, 0.7, 0.99),
    }


def print_simulated(count: int, each: int) -> None:
    """Print how often the true accuracy is in the interval; the mean of REPEATS draws."""
    generator = np.random.default_rng(0)
    found: dict[str, list[tuple[float, float, float, float]]] = {}
    for _ in range(REPEATS):
        for name, truth in populations(count, generator).items():
            total = generator.poisson(each, count)
            right = generator.binomial(total, truth)
            usual = calibration.fit_accuracies(right, total)
            _, low, high = calibration.accuracy_intervals(usual, right, total)
            cleared = low >= 0.95
            below = float((truth < low - 1e-6).mean())
            inside = 1 - below - float((truth > high + 1e-6).mean())
            wrongly = float((truth[cleared] < 0.95).mean()) if cleared.any() else 0.0
            found.setdefault(name, []).append((inside, below, float(cleared.mean()), wrongly))
    for name, figures in found.items():
        cells = " | ".join(f"{figure:.1%}" for figure in np.mean(figures, axis=0))
        print(f"| {name} | {count:,} | {each} | {cells} |")


if __name__ == "__main__":
    main()
