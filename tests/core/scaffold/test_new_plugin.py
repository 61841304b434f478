"""`encyclo new-plugin`: packages that install and pass their contract at once; names that can't be."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from encyclo.cli import run_command
from encyclo.scaffold import KINDS
from tests.commands import one_sentence
from tests.core.plugins.test_hookspecs import SPECS
from tests.plugins.test_external import run_pytest

NAMES = {
    "load_concepts": "my-ships",
    "sample_prompts": "my_frames",
    "capture_layers": "my-plain-run",
    "store_activations": "my-npz",
    "train_interpreter": "my-nearest",
    "score_confidence": "encyclo-often",
    "run_units": "my-order",
}
OPTIONAL = {"check_capture", "end_run"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write a package a kind; return the folders by hook."""
    parent = tmp_path_factory.mktemp("new plugins")
    for hook, name in NAMES.items():
        assert run_command(["new-plugin", name, "--hook", hook, "--out", str(parent)]) == 0
    return {
        hook: parent / (name if name.startswith("encyclo") else f"encyclo-{name.replace('_', '-')}")
        for hook, name in NAMES.items()
    }


@pytest.fixture(scope="module")
def installed(written: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*command, "--target", str(target), *map(str, written.values())], check=True, capture_output=True
    )
    return {"PYTHONPATH": os.pathsep.join([str(target), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)}


def test_every_hook_has_a_package():
    assert KINDS.keys() == SPECS.keys() - OPTIONAL
    assert {KINDS[hook] for hook in NAMES} == set(KINDS.values())


@pytest.mark.parametrize("hook", NAMES)
def test_a_package_is_small_and_names_itself(hook: str, written: dict[str, Path]):
    folder = written[hook]
    module = folder.name.replace("-", "_")
    names = {file.name for file in folder.iterdir()}
    assert names == {"pyproject.toml", f"{module}.py", "test_contract.py", "README.md"}
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == folder.name and project["entry-points"]["encyclo"] == {NAMES[hook]: module}
    for file in folder.iterdir():
        text = file.read_text()
        assert NAMES[hook] in text and "{%" not in text and "{{" not in text and text.endswith("\n")
    code = (folder / f"{module}.py").read_text()
    compile(code, module, "exec")
    assert all(f"def {other}(" in code for other, kind in KINDS.items() if kind == KINDS[hook])


@pytest.mark.parametrize("hook", NAMES)
def test_a_package_installs_and_passes_at_once(hook: str, written, installed):
    assert_passes(written[hook], installed)


def assert_passes(folder: Path, installed: dict[str, str]) -> None:
    result = run_pytest(folder, installed)
    assert result.returncode == 0, result.stdout[-3000:]
    assert " passed" in result.stdout and "skipped" not in result.stdout and "xfailed" not in result.stdout


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("class", "Python keyword"),
        ("match", "Python keyword"),
        ("raw", "taken by package encyclo"),
        ("My-plugin", "small letters"),
        ("my.plugin", "small letters"),
        ("my--plugin", "small letters"),
        ("my-", "small letters"),
        ("../x", "small letters"),
        ("3d", "begin with a letter"),
        ("größe", "small letters"),
        ("a=b", "small letters"),
        ("a b", "small letters"),
    ],
)
def test_a_name_that_can_not_be_is_refused(encyclo, tmp_path: Path, name: str, named: str):
    result = encyclo("new-plugin", name, "--hook", "sample_prompts", "--out", tmp_path)
    assert result.returncode == 2
    message = one_sentence(result.stderr)
    assert repr(name) in message and named in message
    assert list(tmp_path.iterdir()) == []


def test_a_hook_that_is_none_is_refused_listing_the_hooks(encyclo, tmp_path: Path):
    result = encyclo("new-plugin", "mine", "--hook", "sample_promts", "--out", tmp_path)
    assert result.returncode == 2
    assert all(hook in one_sentence(result.stderr) for hook in ("'sample_promts'", *KINDS))


def test_a_folder_that_exists_is_left_alone(encyclo, tmp_path: Path):
    (tmp_path / "encyclo-mine").mkdir()
    result = encyclo("new-plugin", "mine", "--hook", "sample_prompts", "--out", tmp_path)
    assert result.returncode == 2
    assert "encyclo-mine exists" in one_sentence(result.stderr)
    assert list((tmp_path / "encyclo-mine").iterdir()) == []


def test_a_folder_that_can_not_be_made_is_one_sentence(encyclo, tmp_path: Path):
    (tmp_path / "file").write_text("")
    result = encyclo("new-plugin", "mine", "--hook", "sample_prompts", "--out", tmp_path / "file")
    assert result.returncode == 2
    assert "can't be written" in one_sentence(result.stderr)


def test_it_says_what_comes_next(encyclo, tmp_path: Path):
    result = encyclo("new-plugin", "mine", "--hook", "sample_prompts", "--out", tmp_path)
    assert result.returncode == 0
    assert "encyclo_mine.py" in result.stdout and "pip install -e" in result.stdout
