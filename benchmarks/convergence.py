"""From which error on do more samples no longer change readings? The default of `converged_below` is based on this.

    encyclo run --sampler templates --per-concept 20 -o core.examples=wordnet --out RUN
    python benchmarks/convergence.py RUN

Each concept's prototype is made of 1, 2, 3 ... of its training samples, drawn at random. The interpreter then reads
samples that training never saw: those of held-out families, and natural sentences. This gives every concept a relative
standard error, as a run computes it, and readings. A reading is correct or not, and it is the same as with the
prototypes of all samples or it has changed. Both shares are averaged over concepts with about the same error. The
transformer's encoder is not trained again: the question is how many samples a signature needs, not an interpreter.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encyclo.pipeline.natural_sentences import NaturalSentences, RungSamples
from encyclo.runs.directory import read_record
from encyclo.runs.reopen import reopen_run
from encyclo.runs.session import Session
from encyclo.statistics.signatures import estimate_signatures, relative_standard_error
from encyclo.terminal import ConsoleProgress
from encyclo.types import Interpreter, SampleSet, Split

SIZES = (1, 2, 3, 4, 5, 6, 8, 10, 12)
DRAWS = 5
EDGES = (0.0, 0.18, 0.2, 0.22, 0.24, 0.26, 0.28, 0.3, 0.35, 0.4, 0.5, 0.7, 1.0, np.inf)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    given = parser.parse_args()
    session, samples, natural, trained = load(given.run)
    heldout = RungSamples(samples, samples.named_rows(Split.CALIBRATION, Split.TEST))
    rungs = {"held-out": heldout} | ({"natural": natural} if natural else {})
    for name, interpreter in trained.items():
        for rung, rung_samples in rungs.items():
            print(
                f"\n{name}, {rung}: {len(rung_samples.rows):,} readings of {len(session.concepts):,} concepts\n"
            )
            print_table(samples, interpreter, rung_samples, len(session.concepts))


def load(path: Path) -> tuple[Session, SampleSet, RungSamples | None, dict[str, Interpreter]]:
    """Return a finished run's session, samples, natural sentences and interpreters."""
    run = reopen_run(path, read_record(path), ConsoleProgress(quiet=True))
    commits = run.ledger.ordered()
    samples = run.load_samples(commits)
    own = run.load_interpreter(path / "interpreter")
    trained = {run.session.config.interpreter: own, "centroid": run.train("centroid", samples)}
    return run.session, samples, NaturalSentences(run).rung(commits), trained


def print_table(samples: SampleSet, interpreter: Interpreter, rung_samples: RungSamples, count: int) -> None:
    """Print one row per number of samples, then one row per bin of relative standard errors."""
    values, truth = (
        rung_samples.samples.read(rung_samples.rows),
        rung_samples.samples.concept[rung_samples.rows],
    )
    training = samples.named_rows(Split.TRAIN)
    whole = with_prototypes(interpreter, samples, training, count).read(values).argmax(axis=1)
    found = []
    print("| samples per concept | median error | correct readings | changed readings |")
    print("|---|---|---|---|")
    for size in SIZES:
        rows = []
        for draw in range(DRAWS):
            drawn = draw_samples(samples, training, size, draw)
            best = with_prototypes(interpreter, samples, drawn, count).read(values).argmax(axis=1)
            error = errors(samples, drawn, count)
            rows.append(np.stack([error[truth], best == truth, best != whole]))
        found.append(np.concatenate(rows, axis=1))
        print(
            f"| {size} | {shown(np.median(found[-1][0]))} | {found[-1][1].mean():.2%} | {found[-1][2].mean():.2%} |"
        )
    print(f"| all ({len(training) / count:.1f} on average) | {shown(np.median(errors(samples, training, count)))} | "
          f"{(whole == truth).mean():.2%} | |")  # fmt: skip
    print_bins(np.concatenate(found, axis=1))


def print_bins(found: NDArray[np.float64]) -> None:
    """Print correct and changed readings by relative standard error: found float64 [3, readings]."""
    print("\n| relative standard error | readings | correct readings | changed readings |")
    print("|---|---|---|---|")
    for low, high in pairwise(EDGES):
        inside = found[:, (found[0] >= low) & (found[0] < high)]
        if inside.shape[1]:
            right, changed = inside[1].mean(), inside[2].mean()
            print(f"| {low:g} to {high:g} | {inside.shape[1]:,} | {right:.2%} | {changed:.2%} |")


def draw_samples(samples: SampleSet, rows: NDArray[np.int64], size: int, draw: int) -> NDArray[np.int64]:
    """Return at most `size` of each concept's rows, drawn at random."""
    order = np.random.default_rng([size, draw]).permutation(len(rows))
    shuffled = rows[order]
    by_concept = shuffled[np.argsort(samples.concept[shuffled], kind="stable")]
    _, first = np.unique(samples.concept[by_concept], return_index=True)
    place = np.arange(len(by_concept)) - np.repeat(first, np.diff([*first, len(by_concept)]))
    return np.sort(by_concept[place < size])


def with_prototypes(
    interpreter: Interpreter, samples: SampleSet, rows: NDArray[np.int64], count: int
) -> Interpreter:
    """Return the interpreter with every concept's prototype made of these rows alone."""
    means = estimate_means(samples, rows, count)
    fresh = copy.copy(interpreter)
    for name in ("prototypes", "centroids"):
        if hasattr(fresh, name):
            setattr(fresh, name, getattr(fresh, name)[:0])
    ids, fresh.concepts = list(interpreter.concepts), []
    fresh.add_concepts(ids, means)
    return fresh


def estimate_means(samples: SampleSet, rows: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """Return each concept's mean over these rows, as the interpreters take it: float32 [C, L, H]."""
    total = np.zeros((count, *samples.read(rows[:1]).shape[1:]))
    for some in pieces(rows):
        np.add.at(total, samples.concept[some], samples.read(some))
    number = np.bincount(samples.concept[rows], minlength=count)
    return (total / np.maximum(number, 1)[:, None, None]).astype(np.float32)


def errors(samples: SampleSet, rows: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Return each concept's relative standard error as a run has it after these samples: float64 [C]."""
    chosen = SampleSet(
        samples.concept[rows], samples.named[rows], samples.family[rows], samples.families, samples.split[rows],
        samples.layers, lambda some: samples.read(rows[some]),
    )  # fmt: skip
    return relative_standard_error(estimate_signatures(chosen, count))


def pieces(rows: NDArray[np.int64], size: int = 2048) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def shown(value: float) -> str:
    return "unknown" if np.isinf(value) else f"{value:.3f}"


if __name__ == "__main__":
    main()
