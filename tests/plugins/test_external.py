"""A third party's package, installed by pip, is chosen by name without a change to encyclo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import in_own_process, one_sentence

PACKAGE = Path(__file__).parents[1] / "external_plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Install the package with pip beside the environment; return the environment variables that find it."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(target), str(PACKAGE)], check=True, capture_output=True)
    return {"PYTHONPATH": os.pathsep.join([str(target), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)}


def test_its_plugins_are_listed_with_its_package(installed: dict[str, str]):
    result = in_own_process("plugins", "--json", env=installed)
    rows = {row["name"]: row for row in json.loads(result.stdout)["plugins"]}
    for name, hooks in (
        ("questions", ["sample_prompts"]),
        ("dot", ["load_interpreter", "train_interpreter"]),
    ):
        assert rows[name]["hooks"] == hooks
        assert (rows[name]["package"], rows[name]["version"]) == ("encyclo-questions", "0.3.0")


def test_they_make_an_encyclopedia(installed: dict[str, str], tmp_path: Path, tiny_flags: list[str]):
    out = tmp_path / "run"
    result = in_own_process(
        "run", "--sampler", "questions", "--interpreter", "dot", "-o", "questions.ending= Tell me!",
        "--limit", "30", "--per-concept", "6", "--out", out, "--json", *tiny_flags, env=installed,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    printed = json.loads(result.stdout)
    rung = printed["metrics"]["accuracy"]["heldout_prompts"]
    assert rung["dot"]["top1"] > 0.5 and rung["dot"]["n"] == 30 and rung["centroid"]["n"] == 30
    assert printed["run"]["provenance"]["plugins"]["questions"] == "encyclo-questions 0.3.0"
    entry = json.loads(in_own_process("show", out, "animal", "--json", env=installed).stdout)
    assert all(prompt["text"].endswith("Tell me!") for prompt in entry["prompts"])
    assert len(entry["most_confused"]) == 5


def test_its_options_are_checked(installed: dict[str, str], tmp_path: Path, tiny_flags: list[str]):
    flags = [
        "--sampler",
        "questions",
        "-o",
        "questions.beginning=Well",
        "--out",
        tmp_path / "run",
        *tiny_flags,
    ]
    result = in_own_process("run", *flags, env=installed)
    assert result.returncode == 2
    assert "'beginning'" in one_sentence(result.stderr) and "ending" in result.stderr


def test_without_it_its_names_are_unknown(encyclo, tmp_path: Path, tiny_flags: list[str]):
    result = encyclo("run", "--sampler", "questions", "--out", tmp_path / "run", *tiny_flags)
    assert result.returncode == 2
    assert "'questions'" in one_sentence(result.stderr)
