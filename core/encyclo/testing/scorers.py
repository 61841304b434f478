"""The contract of the hook `score_confidence`.

    from encyclo.testing.scorers import ScorerContract

    class TestMine(ScorerContract):
        plugin = "mine"

The interpreter is planted: its accuracy for each concept is known, so that confidences can be compared with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from encyclo.testing.contract import require
from encyclo.testing.fixtures.planted import PlantedReader, WatchedReader
from encyclo.testing.hooked import HookContract
from encyclo.types import SampleSet, Scores, Split

LEVELS = (0.2, 0.5, 0.8, 0.97)
CONCEPTS = 80


def reader(levels: tuple[float, ...] = LEVELS) -> PlantedReader:
    """Return a planted interpreter whose concepts have the accuracies `levels`, in turn."""
    return PlantedReader(np.resize(np.array(levels), CONCEPTS))


class ScorerContract(HookContract):
    """The contract of scorers; subclass it and name the plugin."""

    hooks: ClassVar[tuple[str, ...]] = ("score_confidence",)

    def score(self, planted: PlantedReader, samples: SampleSet, folder: Path, seed: int = 0) -> Scores:
        """Return the plugin's scores, as a run gets them."""
        scores: Scores = self.call(
            "score_confidence",
            interpreter=planted,
            samples=samples,
            context=self.context(folder, seed, interpreter=planted),
        )
        return scores

    def check_scores_are_probabilities(self, folder: Path) -> None:
        """Each concept has a float32 confidence from 0 to 1, inside its interval."""
        scores = self.score(reader(), reader().samples(10), folder)
        for name in ("confidence", "low", "high"):
            values = getattr(scores, name)
            require(values.dtype == np.float32, f"{name} is {values.dtype}, not float32.")
            require(bool(((values >= 0) & (values <= 1)).all()), f"{name} is outside 0 to 1.")
        inside = (scores.low <= scores.confidence) & (scores.confidence <= scores.high)
        require(bool(inside.all()), "A confidence is outside its interval.")

    def check_confidence_is_calibrated(self, folder: Path) -> None:
        """For concepts with an accuracy of 20%, 50%, 80% or 97%, the mean confidence is within 8 points of it."""
        planted = reader()
        scores = self.score(planted, planted.samples(25), folder)
        for level in LEVELS:
            mean = float(scores.confidence[planted.accuracy == level].mean())
            require(
                abs(mean - level) <= 0.08,
                f"Concepts that are read right {level:.0%} of the time have a confidence of {mean:.0%}.",
            )

    def check_it_is_not_sure_of_a_poor_reader(self, folder: Path) -> None:
        """For an interpreter with an accuracy of 5%, confidences and the lower ends of intervals are low."""
        planted = reader((0.05,))
        scores = self.score(planted, planted.samples(10), folder)
        mean, low = float(scores.confidence.mean()), float(scores.low.mean())
        require(mean <= 0.2 and low <= 0.1, f"It gives {mean:.0%} (from {low:.0%}) for an accuracy of 5%.")

    def check_intervals_hold_the_truth(self, folder: Path) -> None:
        """At least 88% of the intervals contain the true probability, also with few samples per concept."""
        for each in (3, 20):
            held: list[NDArray[np.bool_]] = []
            for seed in range(3):
                planted = reader()
                scores = self.score(planted, planted.samples(each, seed), folder)
                held.append((scores.low <= planted.accuracy) & (planted.accuracy <= scores.high))
            share = float(np.mean(held))
            require(
                share >= 0.88, f"With {each} samples a split, {share:.0%} of the intervals hold the truth."
            )

    def check_more_samples_narrow_the_interval(self, folder: Path) -> None:
        """With sixteen times the samples, intervals are at most half as wide."""
        planted = reader((0.5,))
        few, many = (self.score(planted, planted.samples(each), folder) for each in (4, 64))
        width = float((few.high - few.low).mean()), float((many.high - many.low).mean())
        require(width[1] <= width[0] / 2, f"Intervals are {width[0]:.2f} wide, then {width[1]:.2f}.")

    def check_reads_what_training_never_saw(self, folder: Path) -> None:
        """The interpreter reads only rows of `Split.CALIBRATION` and `Split.TEST`."""
        planted = WatchedReader(reader().accuracy)
        self.score(planted, planted.marked(planted.samples(5)), folder)
        read = {Split(split).name for split in planted.read_of}
        require(read <= {"CALIBRATION", "TEST"}, f"It read samples of {', '.join(sorted(read))}.")

    def check_nothing_is_made_up(self, folder: Path) -> None:
        """Without held-out samples confidences are NaN and `calibration` is empty, never a made-up figure."""
        planted = reader()
        only = planted.samples(5, splits=(Split.TRAIN, Split.VALIDATION))
        scores = self.score(planted, only, folder)
        known = [name for name in ("confidence", "low", "high") if not np.isnan(getattr(scores, name)).all()]
        require(
            not known and not scores.calibration,
            f"It gave {known or 'calibration'} without samples.",
        )

    def check_calibration_is_reported(self, folder: Path) -> None:
        """`calibration` has ece, brier, n and bins; n counts the test samples, and the bins agree with n and ece."""
        planted = reader()
        samples = planted.samples(20)
        found = self.score(planted, samples, folder).calibration
        lacking = {"ece", "brier", "n", "bins"} - set(found)
        require(not lacking, f"calibration has no {', '.join(sorted(lacking))}.")
        n = len(samples.rows(Split.TEST))
        require(found["n"] == n, f"n is {found['n']}, but there are {n} test samples.")
        confidence, accuracy, count = np.array(found["bins"], float).T
        require(int(count.sum()) == n, f"The bins hold {int(count.sum())} samples, but n is {n}.")
        ece = float((count * np.abs(confidence - accuracy)).sum() / n)
        require(
            abs(ece - found["ece"]) <= 1e-6,
            f"The bins give an error of {ece:.4f}, but ece is {found['ece']:.4f}.",
        )
        rows = samples.rows(Split.TEST)
        right = float((planted.read(samples.read(rows)).argmax(1) == samples.concept[rows]).mean())
        seen = float((accuracy * count).sum() / n)
        require(abs(seen - right) <= 1e-6, f"The bins give an accuracy of {seen:.1%}, but it is {right:.1%}.")

    def check_readings_are_calibrated(self, folder: Path) -> None:
        """Planted scores are too sharp by a known factor; after calibration the error is at most 0.04."""
        planted = reader()
        found = self.score(planted, planted.samples(25), folder).calibration
        require(found["ece"] <= 0.04, f"The calibration error is {found['ece']:.3f}.")

    def check_is_the_same_for_a_seed(self, folder: Path) -> None:
        """Scoring again gives the same, bit for bit."""
        planted = reader()
        first, second = (self.score(planted, planted.samples(8), folder) for _ in range(2))
        same = [np.array_equal(getattr(first, n), getattr(second, n)) for n in ("confidence", "low", "high")]
        require(all(same) and dict(first.calibration) == dict(second.calibration), "Two scorings differ.")
