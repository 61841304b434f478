"""The command line: help, plugins, bad input. Every refusal is one sentence, exit code 2, nothing written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import in_own_process, one_sentence

HEAVY = {"torch", "h5py", "zarr", "transformers", "scipy", "sklearn", "matplotlib"}


def test_help_names_every_command(encyclo):
    result = encyclo("--help")
    assert result.returncode == 0
    for command in ("run", "plan", "plugins", "show"):
        assert f"  {command} " in result.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["plugins"], ["plugins", "--json"]])
def test_light_commands_import_nothing_heavy(arguments: list[str]):
    code = (
        "import sys; from encyclo.cli import run_command; code = run_command(sys.argv[1:]); "
        f"print(sorted({HEAVY!r} & sys.modules.keys()), file=sys.stderr); sys.exit(code)"
    )
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert result.returncode == 0
    assert result.stderr.strip() == "[]"


def test_plugins_lists_every_built_in_with_its_hooks(encyclo):
    rows = {row["name"]: row for row in json.loads(encyclo("plugins", "--json").stdout)["plugins"]}
    assert rows["hdf5"]["hooks"] == ["store_activations"]
    assert rows["transformers"]["hooks"] == ["capture_layers", "check_capture", "load_model"]
    assert rows["transformer"]["hooks"] == ["load_interpreter", "train_interpreter"]
    assert {"core", "raw", "templates", "centroid", "calibrated"} <= rows.keys()
    assert all(row["error"] is None and row["package"] == "encyclo" for row in rows.values())


BAD = {
    "unknown sampler": (["--sampler", "tempaltes"], ["tempaltes", "did you mean templates", "raw"]),
    "unknown store": (["--store", "sqlite"], ["sqlite", "hdf5"]),
    "a plugin of another kind": (
        ["--store", "templates"],
        ["templates", "store_activations", "sample_prompts"],
    ),
    "layer too deep": (["--layers", "1,9"], ["Layer 9", "0", "4", "-5"]),
    "layer too far back": (["--layers", "-6"], ["Layer -6", "4", "-5"]),
    "one layer twice": (["--layers", "4,-1"], ["twice", "4"]),
    "layers that are not numbers": (["--layers", "deep"], ["--layers", "deep"]),
    "limit 0": (["--limit", "0"], ["--limit", "0", "greater than or equal to 1"]),
    "per-concept 0": (["--per-concept", "0"], ["--per-concept", "0"]),
    "unknown pooling": (["--pooling", "max"], ["--pooling", "max", "span"]),
    "unknown option": (["-o", "templates.groupz=1"], ["templates", "groupz", "groups"]),
    "option value": (["-o", "transformer.width=many"], ["transformer.width", "many"]),
    "option value outside": (["-o", "transformer.width=-1"], ["transformer.width", "-1"]),
    "option of a plugin not used": (["-o", "zarr.level=1"], ["zarr", "hdf5"]),
    "option without a key": (["-o", "templates"], ["NAME.key=value", "templates"]),
    "unknown group": (["-o", 'templates.groups=["quotes"]'], ["quotes", "quoted", "subject"]),
    "unknown category": (["-o", 'core.categories=["beasts"]'], ["beasts", "animals"]),
    "unknown device": (["--device", "abacus"], ["abacus", "cpu"]),
    "no such file": (["--config", "no-such.toml"], ["no-such.toml"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_usage_is_one_sentence_and_writes_nothing(
    encyclo, name: str, tmp_path: Path, tiny_flags: list[str]
):
    flags, words = BAD[name]
    out = tmp_path / "out"
    result = encyclo("run", "--sampler", "templates", "--limit", "4", "--out", out, *tiny_flags, *flags)
    message = one_sentence(result.stderr)
    assert result.returncode == 2, result.stderr
    for word in words:
        assert word in message
    assert result.stdout == ""
    assert not (out / "run.json").exists()
    assert not out.exists() or not any(out.iterdir())


def test_a_model_that_is_not_there_says_what_was_tried_and_the_pip_line(encyclo, tmp_path: Path):
    result = encyclo("run", "--model", "nobody/no-model", "--out", tmp_path / "out")
    message = one_sentence(result.stderr)
    assert result.returncode == 2
    for word in ("nobody/no-model", "not a folder", ".gguf", "pip install 'encyclo[gemma]'"):
        assert word in message
    assert not (tmp_path / "out").exists()


def test_an_unknown_flag_is_a_usage_error(encyclo, tmp_path: Path):
    result = encyclo("run", "--sampler", "templates", "--colour", "red", "--out", tmp_path / "out")
    assert result.returncode == 2
    assert "--colour" in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_out_that_cannot_be_made(encyclo, tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    result = encyclo("run", "--out", tmp_path / "file" / "run")
    assert result.returncode == 2
    assert "can't be made" in one_sentence(result.stderr)


def test_an_out_that_is_a_file_or_holds_something_else(encyclo, tmp_path: Path):
    (tmp_path / "letter.txt").write_text("Dear reader")
    for out, word in ((tmp_path / "letter.txt", "is a file"), (tmp_path, "no run.json")):
        result = encyclo("run", "--out", out)
        assert result.returncode == 2
        assert word in one_sentence(result.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_used_out_with_another_configuration_says_what_differs(
    encyclo, tiny_run: Path, tiny_flags: list[str]
):
    before = sorted(path.name for path in tiny_run.rglob("*"))
    result = encyclo(
        "run", "--sampler", "templates", "--limit", "40", "--per-concept", "7", "--seed", "3",
        "--out", tiny_run, *tiny_flags,
    )  # fmt: skip
    message = one_sentence(result.stderr)
    assert result.returncode == 2
    assert "per_concept: 10 there, 7 now" in message
    assert "seed: 0 there, 3 now" in message
    assert sorted(path.name for path in tiny_run.rglob("*")) == before


def test_show_suggests_the_nearest_names(encyclo, tiny_run: Path):
    result = encyclo("show", tiny_run, "animl")
    assert result.returncode == 2
    assert "animal" in one_sentence(result.stderr)


def test_show_of_something_that_is_no_run(encyclo, tmp_path: Path):
    result = encyclo("show", tmp_path, "animal")
    assert result.returncode == 2
    assert "run.json" in one_sentence(result.stderr)


def test_python_m_is_the_same_command():
    result = in_own_process("--version")
    assert (result.returncode, result.stdout) == (0, "encyclo 0.1.0\n")
