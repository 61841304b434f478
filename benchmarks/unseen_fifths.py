"""The rungs described and absent of a finished run, with each fifth of its concepts taken out in turn.

    python benchmarks/unseen_fifths.py DIR [--fifths 5] [--limit 5000]

`encyclo evaluate` takes one fifth out. For 1,000 concepts that leaves about 200 definitions, of which chance alone
makes a calibration error of 0.05. Here the interpreter is trained once per fifth, without its baselines.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from encyclo.entry_words import EntryWords
from encyclo.evaluation.absent import mentions, read_absent
from encyclo.evaluation.rungs import capture_definitions, measure
from encyclo.evaluation.unseen_concepts import WEIGHED, calibrate, take_out_concepts
from encyclo.runs.open_run import OpenRun
from encyclo.runs.reopen import finished_run
from encyclo.statistics import confidence
from encyclo.statistics.confidence import Readings
from encyclo.terminal import ConsoleProgress


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--fifths", type=int, default=5, help="how many of the five fifths to take out")
    parser.add_argument("--limit", type=int, default=5000, help="the most definitions to capture")
    arguments = parser.parse_args()
    with finished_run(arguments.run, ConsoleProgress(quiet=True), "auto") as run:
        samples = run.load_samples(run.ledger.ordered())
        definitions = capture_definitions(run, arguments.limit)
        read = [one_fifth(run, samples, definitions, fifth) for fifth in range(arguments.fifths)]
        distribution = confidence.training_distribution(samples)
        together = Readings(
            *(
                np.concatenate([getattr(some, field.name) for some in read])
                for field in dataclasses.fields(Readings)
            )
        )
        # Concepts are numbered anew in each fifth; a group holds a concept's definitions.
        groups = np.concatenate([some.truth + fifth * 10**6 for fifth, some in enumerate(read)])
        seed = run.session.config.seed
        found = confidence.cross_fit(together, groups, distribution, seed=seed, by_kind=True)
    if found is None:
        raise SystemExit("too few definitions to measure calibration")
    print(
        f"described: top-1 {together.right.mean():.1%}, calibration error {found.ece:.3f} "
        f"(by chance alone {found.ece_by_chance:.3f}), n={len(together)}"
    )


def one_fifth(run: OpenRun, samples: Any, definitions: Any, fifth: int) -> Readings:
    """Train without a fifth, print the rung absent, and return the readings of its definitions."""
    session, config = run.session, run.session.config
    taken = take_out_concepts(session, samples, definitions, fifth)
    if taken is None:
        raise SystemExit(f"{run.path} has too few concepts to take a fifth out")
    distribution = confidence.training_distribution(taken.training)
    smaller = dataclasses.replace(session, concepts=taken.candidates[: taken.trained])
    with tempfile.TemporaryDirectory() as folder:
        elsewhere = dataclasses.replace(run.directory, path=Path(folder))
        interpreter = OpenRun(smaller, elsewhere, run.store).train(config.interpreter, taken.training)
    words = EntryWords.of(taken.candidates[: taken.trained])
    absent, known = (
        mentions(run, run.ledger.ordered(), taken.unseen.samples, rows[:WEIGHED])
        for rows in (taken.unseen.rows, taken.tested)
    )
    if calibrator := calibrate(interpreter, taken, distribution):
        print(
            f"fifth {fifth}: absent {read_absent(interpreter, calibrator, words, absent, known)}", flush=True
        )
    interpreter.add_concepts([c.id for c in taken.candidates[taken.trained :]], taken.joining)
    _, readings = measure(interpreter, taken.described, taken.candidates, distribution, config.seed)
    return readings


if __name__ == "__main__":
    main()
