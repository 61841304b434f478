"""Every file of a run, replaced by what hangs or fills a machine: each command that reads it refuses it by name."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from encyclo.testing.faults.hostile_files import KINDS, find_fault, make_hostile
from encyclo.testing.faults.processes import ForkServer

ARGUMENTS = {
    "show": ["{run}", "organ"],
    "read": ["{run}", "A dog sleeps.", "--device", "cpu"],
    "evaluate": ["{run}", "--device", "cpu"],
    "converge": ["{run}"],
    "verify": ["{run}"],
    "convert": ["{run}", "--store", "zarr", "--out", "{run}/../converted"],
    "report": ["{run}"],
    "export": ["{run}", "--out", "{run}/../exported", "--no-parquet"],
    "run": ["--sampler", "templates", "--limit", "40", "--out", "{run}"],
}
IMPORTS = (
    "encyclo.cli",
    "encyclo_hdf5.store",
    "encyclo_zarr.store",
    "encyclo_interpreters.transformer.interpreter",
    "encyclo_capture.model",
)
READERS = {
    "run.json": [*ARGUMENTS],
    "metrics.json": ["verify", "convert", "report", "evaluate", "run"],
    "seal.json": ["show", "read", "verify", "convert", "report", "export", "converge"],
    "calibration.json": ["read"],
    "details.json": ["show", "verify"],
    "interpreter/sha256.json": ["show", "report", "read", "verify", "export"],
    "interpreter/config.json": ["read", "verify", "export"],
    "interpreter/model.safetensors": ["read", "verify", "export"],
    "report.html": ["convert"],
    "encyclopedia.h5": ["show", "read", "verify", "convert", "report", "export", "converge"],
    "commits/*.json": ["verify", "convert", "evaluate", "run"],
    "parts/*.h5": ["verify", "convert", "evaluate", "run"],
    "rounds/0/plan.json": ["run"],
    "rounds/0/result.json": ["run"],
}
"""The commands that read a file."""
HARMLESS = {"report.html": ("folder", "deep", "numbers", "surrogate")}
"""What convert copies: any file of the run's own."""
FEW = ("rounds/0/plan.json", "rounds/0/result.json", "calibration.json")
"""Read by slow commands only: half of the kinds."""


def call(arguments: list[str], run: Path) -> None:
    from encyclo.cli import run_command

    sys.exit(run_command([argument.format(run=run) for argument in arguments]))


def warm() -> None:
    """Import what the commands import."""
    for module in IMPORTS:
        importlib.import_module(module)


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with ForkServer() as made:
        made.warm(warm)
        yield made


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all tests, so that the file of 500 MB is written once."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def unfinished(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, to be gone on with: metrics.json marks it as finished."""
    copy = tmp_path_factory.mktemp("unfinished") / "run"
    shutil.copytree(tiny_run, copy)
    (copy / "metrics.json").unlink()
    return copy


@pytest.mark.parametrize("file", READERS)
def test_a_hostile_file_is_refused_by_name(
    file: str, server: ForkServer, tiny_run: Path, unfinished: Path, tiny_flags: list[str], work: Path
):
    """Every kind, and every command that reads the file, in turn."""
    faults = []
    name = min(tiny_run.glob(file)).relative_to(tiny_run).as_posix()
    named = Path(name).stem if file.startswith("parts/") else Path(name).name
    commands, kinds = READERS[file], [kind for kind in KINDS if kind not in HARMLESS.get(file, ())]
    kinds = kinds[::2] if file in FEW else kinds
    for turn in range(max(len(commands), len(kinds))):
        command, kind = commands[turn % len(commands)], kinds[turn % len(kinds)]
        arguments = [command, *ARGUMENTS[command], *(tiny_flags if command == "run" else ())]
        good = unfinished if command == "run" and file != "metrics.json" else tiny_run
        if fault := find_fault(server, partial(call, arguments), good, work, name, kind, named):
            faults.append(f"{command}, {kind}: {fault}")
    assert not faults, "\n".join(faults)


INPUTS = {
    "flags.toml": ["run", "--config", "{run}/flags.toml"],
    "list.csv": ["run", "--concepts", "file", "-o", "file.path={run}/list.csv"],
    "model/config.json": ["run", "--model", "{run}/model"],
    "model/tokenizer.json": ["run", "--model", "{run}/model", "--layers", "1"],
    "model/model.safetensors": ["run", "--model", "{run}/model"],
}
"""Files that a user names, and how."""


@pytest.mark.parametrize("file", INPUTS)
def test_a_hostile_file_that_the_user_names_is_refused(
    file: str, server: ForkServer, tiny_gemma: Path, tmp_path: Path
):
    good = tmp_path / "good"
    shutil.copytree(tiny_gemma, good / "model")
    (good / "flags.toml").write_text("seed = 1")
    (good / "list.csv").write_text("name\ndog")
    kinds = ["device", "pipe", "folder", *(["sparse"] if "safetensors" not in file else [])]
    kinds += ["deep"] if file == "model/config.json" else []
    command = partial(call, [*INPUTS[file], "--out", "{run}/../out"])
    faults = [find_fault(server, command, good, tmp_path, file, kind, Path(file).name) for kind in kinds]
    assert not any(faults), faults


def test_a_list_a_configuration_and_a_model_may_be_links(tiny_gemma: Path, tmp_path: Path, encyclo):
    blobs, links = tmp_path / "blobs", tmp_path / "links"
    shutil.copytree(tiny_gemma, blobs)
    (blobs / "list.csv").write_text("name\ndog\ncat")
    (blobs / "flags.toml").write_text("layers = [-1]")
    links.mkdir()
    for file in blobs.iterdir():
        (links / file.name).symlink_to(file)
    flags = ["--config", links / "flags.toml", "-o", f"file.path={links}/list.csv", "--device", "cpu"]
    done = encyclo("plan", "--sampler", "templates", "--concepts", "file", "--model", links, *flags)
    assert done.returncode == 0, done.stderr
    assert "Concepts  2" in done.stdout


def test_hostile_files_of_a_plugin_are_not_used(tmp_path: Path, work: Path):
    """A record of generated sentences, and a file that a model's licence is read from."""
    from encyclo_capture.loading.weights import Weights, find_licence
    from encyclo_samplers.generated_sentences import _recorded

    for kind in KINDS:
        (tmp_path / "LICENSE").write_text("MIT")
        make_hostile(tmp_path / "LICENSE", kind, work)
        assert _recorded(tmp_path / "LICENSE") is None
        licence = find_licence("x", Weights(tmp_path, "", ""))
        assert licence is None or len(licence) < 200
        shutil.rmtree(tmp_path / "LICENSE") if kind == "folder" else (tmp_path / "LICENSE").unlink()


def test_a_models_card_can_hold_no_bomb(tmp_path: Path):
    from encyclo_capture.loading.weights import _card_licence

    card = tmp_path / "README.md"
    lists = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30))
    card.write_text(f"---\na0: &a0 [x]\n{lists}\nlicense: *a29\n---\n")
    assert _card_licence(card) is None
    card.write_text("---\nlicense: [mit, apache-2.0]\n---\n")
    assert _card_licence(card) == "mit, apache-2.0"
    card.write_text("---\nlicense: " + "[" * 5_000 + "\n---\n")
    assert _card_licence(card) is None
