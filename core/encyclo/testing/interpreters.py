"""The contract of the hooks `train_interpreter` and `load_interpreter`.

    from encyclo.testing.interpreters import InterpreterContract

    class TestMine(InterpreterContract):
        plugin = "mine"

An interpreter that can't add concepts lists `adds_a_concept` in its `known_failures`, with the reason.
"""

from __future__ import annotations

import contextlib
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from encyclo.statistics.accuracy import rank_samples
from encyclo.testing.contract import require
from encyclo.testing.fixtures.planted import PlantedSamples
from encyclo.testing.hooked import HookContract
from encyclo.types import Interpreter, SampleSet, Split

FILES = {"model.safetensors", "config.json"}
SUFFIXES = {".safetensors", ".json"}


class InterpreterContract(HookContract):
    """The contract of interpreters; subclass it and name the plugin."""

    hooks: ClassVar[tuple[str, ...]] = ("train_interpreter", "load_interpreter")
    accuracy: ClassVar[float] = 0.9
    """The lowest accuracy on planted families that it never saw; with 30 concepts, chance is 0.03."""
    many_samples: ClassVar[int] = 16_000
    """The number of samples in the memory check."""

    def train(self, planted: PlantedSamples, folder: Path, seed: int = 0) -> Interpreter:
        """Return an interpreter trained on planted samples, as in a run."""
        trained: Interpreter = self.call(
            "train_interpreter",
            samples=planted.make(),
            concepts=planted.ids(),
            context=self.context(folder, seed),
        )
        return trained

    def load(self, saved: Path, folder: Path) -> Interpreter:
        """Load the interpreter that the plugin saved into `saved`."""
        loaded: Interpreter = self.call("load_interpreter", folder=saved, context=self.context(folder))
        return loaded

    def check_knows_its_concepts(self, folder: Path) -> None:
        """Its `concepts` are the ids that it was trained on, in that order."""
        planted = PlantedSamples()
        known = list(self.train(planted, folder).concepts)
        require(
            known == [c.id for c in planted.ids()], f"It knows {known[:3]} …, not the concepts it was given."
        )

    def check_learns_a_planted_signal(self, folder: Path) -> None:
        """It names nine of ten planted concepts correctly, in families that it never saw."""
        planted = PlantedSamples()
        found = top1(self.train(planted, folder), planted.make(), Split.TEST)
        require(found >= self.accuracy, f"It names {found:.0%} right, not {self.accuracy:.0%}.")

    def check_finds_nothing_in_noise(self, folder: Path) -> None:
        """With shuffled labels it is not better than chance: nothing leaks."""
        planted = PlantedSamples(shuffled=True)
        found = top1(self.train(planted, folder), planted.make(), Split.TEST)
        require(
            found <= 0.15, f"It names {found:.0%} right with shuffled labels: it has seen the test labels."
        )

    def check_trains_on_its_own_splits(self, folder: Path) -> None:
        """Only rows of `Split.TRAIN` and `Split.VALIDATION` are read."""
        planted = PlantedSamples()
        self.train(planted, folder)
        samples = planted.make()
        read = np.unique(np.concatenate([np.empty(0, np.int64), *planted.rows_read]))
        strange = sorted({Split(s).name for s in samples.split[read]} - {"TRAIN", "VALIDATION"})
        require(not strange, f"It read samples of {', '.join(strange)}, which are reserved for testing it.")

    def check_takes_any_device(self, folder: Path) -> None:
        """`context.device` is the user's choice: given `auto`, it chooses itself where to train and load."""
        planted = PlantedSamples()
        values = planted.make().read(np.arange(30))
        context = replace(self.context(folder), device="auto")
        interpreter = self.call(
            "train_interpreter", samples=planted.make(), concepts=planted.ids(), context=context
        )
        loaded = self.call("load_interpreter", folder=_saved(interpreter, folder), context=context)
        for one in (interpreter, loaded):
            scores = one.read(values)
            require(scores.shape == (30, planted.concepts), "With the device `auto` it does not read.")

    def check_scores_have_their_shape(self, folder: Path) -> None:
        """`read` takes one or many samples and gives float32 [n, C] with finite scores."""
        planted = PlantedSamples()
        interpreter = self.train(planted, folder)
        for rows in (1, 5, 130):
            values = planted.make().read(np.arange(rows))
            before = values.copy()
            scores = interpreter.read(values)
            wanted = (rows, planted.concepts)
            require(
                scores.shape == wanted and scores.dtype == np.float32,
                f"{rows} samples give {scores.dtype}{list(scores.shape)}, not float32{list(wanted)}.",
            )
            require(bool(np.isfinite(scores).all()), "A score is not finite.")
            require(np.array_equal(values, before), "Reading changed the given activations.")

    def check_a_sample_is_read_alike_in_any_batch(self, folder: Path) -> None:
        """A sample's scores are the same alone and among others, up to rounding."""
        planted = PlantedSamples()
        interpreter = self.train(planted, folder)
        values = planted.make().read(np.arange(40))
        together = interpreter.read(values)
        alone = np.concatenate([interpreter.read(values[i : i + 1]) for i in range(len(values))])
        off = float(np.abs(together - alone).max() / np.abs(together).max())
        require(off <= 1e-4, f"A sample's scores depend on the batch: off by {off:.2g} of the largest.")

    def check_is_the_same_for_a_seed(self, folder: Path) -> None:
        """Trained again with the same seed, it gives the same scores bit for bit, and saves the same bytes."""
        kept: list[tuple[NDArray[np.float32], Path]] = []
        for name in ("first", "second"):
            np.random.seed(len(kept))  # a global seed must not matter
            planted = PlantedSamples()
            interpreter = self.train(planted, folder / name)
            kept.append(
                (interpreter.read(planted.make().read(np.arange(60))), _saved(interpreter, folder / name))
            )
        (first, one), (second, other) = kept
        require(np.array_equal(first, second), "Two trainings with one seed give different scores.")
        weights = [(path / "model.safetensors").read_bytes() for path in (one, other)]
        require(weights[0] == weights[1], "Two trainings with one seed save different weights.")

    def check_keeps_its_promise_on_save_and_load(self, folder: Path) -> None:
        """A loaded interpreter gives the same scores bit for bit as the saved one, and has the same concepts."""
        planted = PlantedSamples()
        interpreter = self.train(planted, folder)
        values = planted.make().read(np.arange(100))
        promised = interpreter.read(values)
        loaded = self.load(_saved(interpreter, folder), folder)
        require(list(loaded.concepts) == list(interpreter.concepts), "Loading gives other concepts.")
        require(np.array_equal(loaded.read(values), promised), "Loading gives other scores.")
        require(np.array_equal(interpreter.read(values), promised), "Saving changed the interpreter.")

    def check_saves_safetensors_alone(self, folder: Path) -> None:
        """It writes model.safetensors and config.json, and only such files in sub-folders: no code."""
        from safetensors.numpy import load_file

        saved = _saved(self.train(PlantedSamples(), folder), folder)
        paths = [path for path in saved.rglob("*") if path.is_symlink() or not path.is_dir()]
        names = {path.name for path in paths if path.parent == saved}
        require(names == FILES, f"It saved {sorted(names)}, not {sorted(FILES)}.")
        strange = [path.name for path in paths if path.is_symlink() or path.suffix not in SUFFIXES]
        require(not strange, f"It saved {strange}, which are neither safetensors nor JSON files.")
        for path in paths:
            if path.suffix == ".safetensors":
                load_file(path)

    def check_saves_into_its_folder_alone(self, folder: Path) -> None:
        """`save` writes only into the given folder, not next to it or into the working directory."""
        interpreter, folder = self.train(PlantedSamples(), folder), folder.resolve()
        saved, working = folder / "given" / "interpreter", folder / "working"
        saved.mkdir(parents=True)
        working.mkdir()
        before = _written(folder, saved)
        with contextlib.chdir(working):
            interpreter.save(saved)
        outside = sorted(str(path.relative_to(folder)) for path, _ in _written(folder, saved) ^ before)
        require(not outside, f"Saving wrote {outside}, which are outside the given folder.")

    def check_adds_a_concept(self, folder: Path) -> None:
        """Concepts are added by their signatures alone: they can be read, and the old ones are read as before."""
        planted = PlantedSamples()
        interpreter = self.train(planted, folder)
        count, new = planted.concepts, list(range(planted.concepts, planted.concepts + 5))
        values = planted.make().read(np.arange(100))
        before = interpreter.read(values)
        interpreter.add_concepts([f"new {number}" for number in new], planted.signatures(new))
        require(
            list(interpreter.concepts)[count:] == [f"new {number}" for number in new],
            "The new concepts do not come after the old ones.",
        )
        after = interpreter.read(values)
        require(after.shape == (100, count + 5), f"Scores have the shape {after.shape} after 5 were added.")
        require(np.allclose(after[:, :count], before, atol=1e-5), "The scores of the old concepts changed.")
        right = self._right(interpreter, planted, new)
        require(right >= 0.8, f"{right:.0%} of the new concepts' samples are named right, not 80%.")
        loaded = self.load(_saved(interpreter, folder), folder)
        require(np.array_equal(loaded.read(values), after), "Loading with them gives other scores.")

    def check_memory_is_flat(self, folder: Path) -> None:
        """Training reads its samples in pieces: it holds less than half of all samples in memory."""
        planted = PlantedSamples(concepts=20, per_family=self.many_samples // 180)
        samples = planted.make()
        samples.read(np.arange(1))  # what planting itself keeps is made before it is measured,
        self.train(PlantedSamples(concepts=4), folder)  # and so are libraries imported on first use
        total = len(samples.rows(Split.TRAIN)) * planted.layers * planted.hidden * 4
        tracemalloc.start()
        try:
            self.call(
                "train_interpreter", samples=samples, concepts=planted.ids(), context=self.context(folder)
            )
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # Values by row (labels, row numbers) may be kept: they are small compared to the activations.
        largest = max(len(rows) for rows in planted.rows_read)
        planned = len(samples.rows(Split.TRAIN))
        require(largest <= planned // 2, f"It read {largest:,} of {planned:,} training samples at once.")
        by_row = 100 * len(samples) + sum(rows.nbytes for rows in planted.rows_read)
        require(
            peak <= total / 2 + by_row,
            f"Training held {peak / 2**20:.0f} MB; all its samples take {total / 2**20:.0f}.",
        )

    def _right(self, interpreter: Interpreter, planted: PlantedSamples, new: list[int]) -> float:
        hits = [interpreter.read(planted.fresh(new, seed)).argmax(axis=1) == new for seed in range(10)]
        return float(np.mean(hits))


def top1(interpreter: Interpreter, samples: SampleSet, split: Split) -> float:
    """Return the share of a split's samples whose own concept has the highest score."""
    return float((rank_samples(interpreter, samples, samples.rows(split)) == 1).mean())


def _saved(interpreter: Interpreter, folder: Path) -> Path:
    """Save into a new folder and return it."""
    saved = folder / "interpreter"
    saved.mkdir(parents=True)
    interpreter.save(saved)
    return saved


def _written(folder: Path, apart: Path) -> set[tuple[Path, int]]:
    """Return the files and links below `folder`, but not below `apart`, each with the time of its last change."""
    paths = (path for path in folder.rglob("*") if apart not in path.parents)
    return {(path, path.lstat().st_mtime_ns) for path in paths if path.is_symlink() or not path.is_dir()}
