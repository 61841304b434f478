"""A run without --layers on models of other depths, and on an encoder, which can't write sentences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands import one_sentence
from tests.tiny_models import write_model


def record(out: Path) -> dict:
    return json.loads((out / "run.json").read_text())


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("encoder") / "bert", "bert")


def test_a_shallow_model_has_default_layers_and_run_json_records_them(
    encyclo, tiny_gemma: Path, tmp_path: Path
):
    flags = ["run", "--sampler", "raw", "--limit", "20", "--model", tiny_gemma, "--device", "cpu"]
    flags += ["--out", tmp_path / "run"]
    assert encyclo(*flags).returncode == 0
    assert record(tmp_path / "run")["config"]["layers"] == [-3, -2, -1]
    for same in ((), ("--layers", "-3,-2,-1")):
        assert encyclo(*flags, *same).returncode == 0
    refused = one_sentence(encyclo(*flags, "--layers", "-2,-1").stderr)
    assert "layers: [-3, -2, -1] there, [-2, -1] now" in refused


def test_layers_that_are_named_stay_as_they_are(encyclo, tiny_gemma: Path):
    flags = ["plan", "--sampler", "raw", "--limit", "20", "--model", tiny_gemma, "--device", "cpu"]
    refused = one_sentence(encyclo(*flags, "--layers", "-12,-9,-6,-3,-1").stderr)
    assert "Layer -12 is outside the model" in refused and "0 (the embedding) to 4" in refused


def test_an_encoder_runs_every_stage_and_frames_replace_what_it_cannot_write(
    encyclo, tiny_bert: Path, tmp_path: Path
):
    out = tmp_path / "run"
    result = encyclo(
        "run", "--limit", "30", "--per-concept", "4", "--model", tiny_bert, "--device", "cpu", "--out", out
    )
    assert result.returncode == 0, result.stderr
    assert "can't write sentences, so written frames are used instead" in result.stderr
    assert record(out)["config"]["sampler"] == ["raw", "templates", "diverse", "adversarial"]
    assert encyclo("verify", out).returncode == 0
    assert encyclo("evaluate", out, "--limit", "50").returncode == 0
    assert encyclo("read", out, "An animal sleeps.").returncode == 0
