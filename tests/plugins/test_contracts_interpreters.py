"""The built-in interpreters keep the contract; careless ones break it, check by check."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from encyclo.testing.interpreters import InterpreterContract
from encyclo.types import Split


class TestCentroid(InterpreterContract):
    plugin = "centroid"


class TestTransformer(InterpreterContract):
    plugin = "transformer"
    options = {"width": 32, "heads": 2, "depth": 1, "epochs": 2}  # noqa: RUF012


class TestLogistic(InterpreterContract):
    plugin = "logistic"


class Means:
    """A correct interpreter of a few lines, to be broken."""

    def __init__(self, concepts, means, centre):
        self.concepts, self.means, self.centre = list(concepts), means, centre

    def read(self, activations):
        gap = (activations - self.centre).reshape(len(activations), 1, -1) - self.means[None]
        return -np.square(gap).sum(-1).astype(np.float32)

    def add_concepts(self, ids, signatures):
        self.concepts += list(ids)
        self.means = np.concatenate([self.means, (signatures - self.centre).reshape(len(ids), -1)])

    def save(self, folder):
        from safetensors.numpy import save_file

        save_file({"means": self.means, "centre": self.centre}, folder / "model.safetensors")
        (folder / "config.json").write_text("\n".join(self.concepts))


def load(folder):
    from safetensors.numpy import load_file

    kept = load_file(folder / "model.safetensors")
    return Means((folder / "config.json").read_text().split("\n"), kept["means"], kept["centre"])


def fit(samples, concepts, splits=(Split.TRAIN,), block=64, kind=Means):
    rows = samples.rows(*splits)
    total = None
    for start in range(0, len(rows), block):
        some = rows[start : start + block]
        values = samples.read(some)
        total = np.zeros((len(concepts), *values.shape[1:])) if total is None else total
        np.add.at(total, samples.concept[some], values)
    count = np.bincount(samples.concept[rows], minlength=len(concepts))
    means = (total / count[:, None, None]).astype(np.float32)
    centre = means.mean(axis=0)
    return kind([c.id for c in concepts], (means - centre).reshape(len(means), -1), centre)


class Backwards(Means):
    def __init__(self, concepts, means, centre):
        super().__init__(list(concepts)[::-1], means, centre)


class Sharing(Means):
    def read(self, activations):
        return super().read(activations - activations.mean(axis=0))


class Doubles(Means):
    def read(self, activations):
        return super().read(activations).astype(np.float64)


class Forgetful(Means):
    def save(self, folder):
        super().save(folder)
        (folder / "config.json").write_text("\n".join(self.concepts[:-1]))


class Rounding(Means):
    def save(self, folder):
        coarse = self.means.astype(np.float16).astype(np.float32)
        Means(self.concepts, coarse, self.centre).save(folder)


class Pickling(Means):
    def save(self, folder):
        super().save(folder)
        np.save(folder / "extra.npy", self.means)


class Nested(Means):
    """Careful: keeps a part of itself in a sub-folder."""

    def save(self, folder):
        super().save(folder)
        (folder / "parts" / "first").mkdir(parents=True)
        super().save(folder / "parts" / "first")


class NestedPickling(Means):
    def save(self, folder):
        super().save(folder)
        (folder / "parts").mkdir()
        np.save(folder / "parts" / "extra.npy", self.means)


class Linking(Means):
    def save(self, folder):
        super().save(folder)
        (folder / "more.json").symlink_to(folder / "config.json")


class Unnamed(Means):
    def save(self, folder):
        super().save(folder)
        (folder / "config.json").rename(folder / "settings.json")


class Beside(Means):
    def save(self, folder):
        super().save(folder)
        (folder.parent / "cache.json").write_text("{}")


class WhereItStands(Means):
    def save(self, folder):
        super().save(folder)
        Path("last.json").write_text("{}")


class Closed(Means):
    def add_concepts(self, ids, signatures):
        raise NotImplementedError("a closed list of classes")


class Restless(Means):
    def read(self, activations):
        return super().read(activations) + np.random.default_rng().normal(size=1).astype(np.float32)


class Blind(Means):
    def read(self, activations):
        return np.zeros((len(activations), len(self.means)), np.float32)


class Mangling(Means):
    def read(self, activations):
        scores = super().read(activations)
        activations -= self.centre
        return scores


EVERY = tuple(Split)
CARELESS = {
    "knows_its_concepts": [lambda s, c: fit(s, c, kind=Backwards)],
    "learns_a_planted_signal": [lambda s, c: fit(s, c, kind=Blind)],
    "finds_nothing_in_noise": [lambda s, c: fit(s, c, EVERY)],
    "trains_on_its_own_splits": [lambda s, c: fit(s, c, EVERY)],
    "scores_have_their_shape": [lambda s, c: fit(s, c, kind=Doubles), lambda s, c: fit(s, c, kind=Mangling)],
    "a_sample_is_read_alike_in_any_batch": [lambda s, c: fit(s, c, kind=Sharing)],
    "is_the_same_for_a_seed": [lambda s, c: fit(s, c, kind=Restless)],
    "keeps_its_promise_on_save_and_load": [
        lambda s, c: fit(s, c, kind=Forgetful),
        lambda s, c: fit(s, c, kind=Rounding),
    ],
    "saves_safetensors_alone": [
        lambda s, c: fit(s, c, kind=Pickling),
        lambda s, c: fit(s, c, kind=NestedPickling),
        lambda s, c: fit(s, c, kind=Linking),
        lambda s, c: fit(s, c, kind=Unnamed),
    ],
    "saves_into_its_folder_alone": [
        lambda s, c: fit(s, c, kind=Beside),
        lambda s, c: fit(s, c, kind=WhereItStands),
    ],
    "adds_a_concept": [lambda s, c: fit(s, c, kind=Closed)],
    "memory_is_flat": [lambda s, c: fit(s, c, block=10**9)],
}
CASES = [(check, index) for check, makers in CARELESS.items() for index in range(len(makers))]


def contract_of(train) -> InterpreterContract:
    class Given(InterpreterContract):
        plugin = "centroid"

        def call(self, hook, **arguments):
            if hook == "train_interpreter":
                return train(arguments["samples"], arguments["concepts"])
            return load(arguments["folder"])

    return Given()


def contract_on_a_device() -> InterpreterContract:
    """Of an interpreter that hands its context's device to torch as it is."""

    class Given(InterpreterContract):
        plugin = "centroid"

        def call(self, hook, **arguments):
            torch.device(arguments["context"].device)
            return super().call(hook, **arguments)

    return Given()


def test_a_device_that_is_not_resolved_is_found_out(tmp_path: Path):
    problem = contract_on_a_device().find("takes_any_device", tmp_path).problem
    assert problem is not None and "auto" in problem


@pytest.mark.parametrize(("check", "index"), CASES, ids=[f"{c}-{i}" for c, i in CASES])
def test_a_careless_interpreter_is_found_out(check: str, index: int, tmp_path: Path):
    problem = contract_of(CARELESS[check][index]).find(check, tmp_path).problem
    assert problem is not None and problem.startswith(("ContractError", "NotImplementedError")), problem


@pytest.mark.parametrize("check", CARELESS)
def test_a_careful_interpreter_is_not(check: str, tmp_path: Path):
    assert contract_of(fit).find(check, tmp_path).problem is None


@pytest.mark.parametrize("check", ["saves_safetensors_alone", "saves_into_its_folder_alone"])
def test_sub_folders_are_allowed(check: str, tmp_path: Path):
    careful = contract_of(lambda s, c: fit(s, c, kind=Nested))
    assert careful.find(check, tmp_path).problem is None
