"""Third parties' packages, installed by pip, are chosen by name without a change to encyclo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import in_own_process, one_sentence

PACKAGES = sorted((Path(__file__).parents[1] / "external_plugin").iterdir())


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Install the packages with pip outside the environment; return the environment variables that find them."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(target), *map(str, PACKAGES)], check=True, capture_output=True)
    return {"PYTHONPATH": os.pathsep.join([str(target), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)}


def test_its_plugins_are_listed_with_its_package(installed: dict[str, str]):
    result = in_own_process("plugins", "--json", env=installed)
    rows = {row["name"]: row for row in json.loads(result.stdout)["plugins"]}
    for name, hooks, package in (
        ("questions", ["sample_prompts"], ("encyclo-questions", "0.3.0")),
        ("dot", ["load_interpreter", "train_interpreter"], ("encyclo-questions", "0.3.0")),
        ("sqlite", ["store_activations"], ("encyclo-sqlite", "1.2.0")),
    ):
        assert rows[name]["hooks"] == hooks
        assert (rows[name]["package"], rows[name]["version"]) == package
        assert (rows[name]["state"], rows[name]["error"]) == ("ready", None)


def test_they_make_an_encyclopedia(installed: dict[str, str], tmp_path: Path, tiny_flags: list[str]):
    out = tmp_path / "run"
    command = [
        "run", "--sampler", "questions", "--interpreter", "dot", "--store", "sqlite",
        "-o", "questions.ending= Tell me!", "--with", "timing",
        "--limit", "30", "--per-concept", "6", "--out", out, *tiny_flags,
    ]  # fmt: skip
    result = in_own_process(*command, "--json", env=installed)
    assert result.returncode == 0, result.stderr
    printed = json.loads(result.stdout)
    rung = printed["metrics"]["accuracy"]["heldout_prompts"]
    assert rung["dot"]["top1"] > 0.5 and rung["dot"]["n"] == 30 and rung["centroid"]["n"] == 30
    assert printed["run"]["provenance"]["plugins"]["questions"] == "encyclo-questions 0.3.0"
    assert printed["run"]["provenance"]["plugins"]["sqlite"] == "encyclo-sqlite 1.2.0"
    assert (out / "samples.sqlite").exists() and not (out / "encyclopedia.h5").exists()
    summary = in_own_process(*command, env=installed)
    assert "samples.sqlite, interpreter/" in "".join(summary.stdout.split("\n")), summary.stderr
    assert in_own_process("verify", out, env=installed).returncode == 0
    for source, store, target in (
        (out, "hdf5", tmp_path / "h5"),
        (tmp_path / "h5", "sqlite", tmp_path / "back"),
    ):
        converted = in_own_process("convert", source, "--store", store, "--out", target, env=installed)
        assert converted.returncode == 0, converted.stderr
    assert not (tmp_path / "h5" / "samples.sqlite").exists()
    assert in_own_process("verify", tmp_path / "back", env=installed).returncode == 0
    entry = json.loads(in_own_process("show", out, "animal", "--json", env=installed).stdout)
    assert all(prompt["text"].endswith("Tell me!") for prompt in entry["prompts"])
    assert len(entry["most_confused"]) == 5
    timed = {row["hook"] for row in json.loads((out / "plugins/timing/timing.json").read_text())["rows"]}
    assert {"sample_prompts", "store_activations: finalise", "train_interpreter"} <= timed


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


@pytest.mark.parametrize("package", ["encyclo-questions", "encyclo-sqlite"])
def test_they_keep_the_contracts(installed: dict[str, str], package: str, tmp_path: Path):
    """As its author would: the package's own tests, against the installed package."""
    (folder,) = (p for p in PACKAGES if p.name == package)
    (tmp_path / "test_contract.py").write_text((folder / "test_contract.py").read_text())
    result = run_pytest(tmp_path, installed)
    assert result.returncode == 0, result.stdout[-3000:]
    assert " passed" in result.stdout and "skipped" not in result.stdout


def run_pytest(folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--import-mode=importlib",
        "-p",
        "no:cacheprovider",
        str(folder),
    ]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, cwd=folder)
