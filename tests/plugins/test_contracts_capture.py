"""The built-in capture keeps the contract on a tiny model; careless ones break it, check by check."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from encyclo.testing.capture import CaptureContract
from encyclo.testing.fixtures.plain_forward import write_tiny_model
from encyclo.types import Samples


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny models")
    write_tiny_model(folder / "model")
    write_tiny_model(folder / "broken", broken=True)
    return folder


class OnWrittenModels(CaptureContract):
    """The contract, with the models written once for all checks."""

    plugin = "transformers"
    options = {"dtype": "float32"}  # noqa: RUF012

    @pytest.fixture(autouse=True)
    def _models(self, written: Path):
        type(self).written = written

    def model_name(self, folder: Path, broken: bool = False) -> str:
        return str(self.written / ("broken" if broken else "model"))


class TestTransformers(OnWrittenModels):
    pass


class TestTransformersInSmallBatches(OnWrittenModels):
    options = {"dtype": "float32", "batch_tokens": 20}  # noqa: RUF012


def sloppy(batch):
    return dataclasses.replace(batch, activations=batch.activations.astype(np.float16).astype(np.float32))


def doubles(batch):
    return dataclasses.replace(batch, activations=batch.activations.astype(np.float64))


def mixing(batch):
    return dataclasses.replace(batch, activations=batch.activations - batch.activations.mean(axis=0))


def turned(batch):
    return dataclasses.replace(batch, activations=batch.activations[:, ::-1])


SPOILT = {
    "equals_a_plain_forward": sloppy,
    "every_prompt_is_answered_once": doubles,
    "a_prompt_is_read_alike_in_any_batch": mixing,
    "layers_are_those_asked_for": turned,
}


def contract_of(written: Path, **own) -> CaptureContract:
    contract = type("Given", (OnWrittenModels,), own)()
    contract.written = written
    return contract


@pytest.mark.parametrize("check", SPOILT)
def test_a_careless_capture_is_found_out(check: str, written: Path, tmp_path: Path):
    def batches(self, *asked, **named):
        return [SPOILT[check](batch) for batch in CaptureContract.batches(self, *asked, **named)]

    problem = contract_of(written, batches=batches).find(check, tmp_path).problem
    assert problem is not None and problem.startswith("ContractError"), problem


@pytest.mark.parametrize("check", ["refuses_what_is_not_finite", "refuses_a_mention_without_a_token"])
def test_a_capture_that_swallows_what_is_wrong_is_found_out(check: str, written: Path, tmp_path: Path):
    def batches(self, model, folder, asked, *rest):
        return [Samples(np.array([0]), np.zeros((1, 4, 32), np.float32), 2, 2)]

    assert "ContractError" in contract_of(written, batches=batches).find(check, tmp_path).problem


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("describes_the_model", {"depth": 5}),
        ("describes_the_model", {"source": ""}),
        ("describes_the_model", {"weights_sha256": "0" * 64}),
        ("forward_is_a_plain_forward", {"forward": lambda texts, layers: [np.ones((3, 4, 32))] * len(texts)}),
        ("tokens_match_the_states", {"tokens": lambda text: [(0, len(text))]}),
        ("tokens_match_the_states", {"tokens": lambda text: []}),
        ("generates_for_a_seed", {"generate": lambda *a, **k: ["same", "same"]}),
        ("generates_for_a_seed", {"generate": lambda *a, **k: ["one"]}),
    ],
)
def test_a_handle_that_says_what_is_not_so_is_found_out(check, change, written: Path, tmp_path: Path):
    def model(self, folder, broken=False):
        true = CaptureContract.model(self, folder, broken)
        names = (
            "name",
            "source",
            "depth",
            "hidden_size",
            "dtype",
            "device",
            "weights_sha256",
            "forward",
            "tokens",
            "generate",
        )
        return SimpleNamespace(**{**{name: getattr(true, name) for name in names}, **change})

    assert "Error" in contract_of(written, model=model).find(check, tmp_path).problem


@pytest.mark.parametrize(
    "change",
    [
        lambda ranges: ranges[::-1],
        lambda ranges: ranges[:1] * len(ranges),
        lambda ranges: [(start + 1, end + 1) for start, end in ranges],
        lambda ranges: [(start, min(end, start + 1)) for start, end in ranges],
    ],
    ids=["falling", "all special", "shifted", "cut"],
)
def test_ranges_that_are_not_the_tokens_own_are_found_out(change, written: Path, tmp_path: Path):
    def model(self, folder, broken=False):
        true = CaptureContract.model(self, folder, broken)
        return SimpleNamespace(forward=true.forward, tokens=lambda text: change(true.tokens(text)))

    problem = contract_of(written, model=model).find("tokens_match_the_states", tmp_path).problem
    assert problem is not None and problem.startswith("ContractError"), problem


def test_a_model_need_not_generate(written: Path, tmp_path: Path):
    def model(self, folder, broken=False):
        return SimpleNamespace(forward=CaptureContract.model(self, folder, broken).forward)

    assert contract_of(written, model=model).find("generates_for_a_seed", tmp_path).problem is None


def test_a_text_that_does_not_stop_is_found_out(written: Path, tmp_path: Path):
    def model(self, folder, broken=False):
        true = CaptureContract.model(self, folder, broken)
        return SimpleNamespace(generate=lambda *given: true.generate(*given[:3]))

    problem = contract_of(written, model=model).find("generates_for_a_seed", tmp_path).problem
    assert problem is not None and "match of `stop`" in problem


@pytest.mark.parametrize("lacking", ["forward", "tokens"])
def test_a_handle_that_can_not_be_read_is_no_model(lacking: str, written: Path, tmp_path: Path):
    from encyclo.plugins.handles import ModelHandle, Owner
    from encyclo.plugins.values import WrongAnswer

    true, nobody = contract_of(written).model(tmp_path), Owner("mine", nullcontext, nullcontext)
    parts = {name: getattr(true, name) for name in ModelHandle.NEEDS}
    assert ModelHandle(SimpleNamespace(**parts), nobody).depth == true.depth
    del parts[lacking]
    with pytest.raises(WrongAnswer, match=f"is not a model: it has no {lacking}"):
        ModelHandle(SimpleNamespace(**parts), nobody)
