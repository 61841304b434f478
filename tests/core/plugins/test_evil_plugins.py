"""Every mistake that a plugin can make ends in one sentence that names it, and leaves a run that goes on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from encyclo.testing.faults.evil_plugins import EVIL, Mistake
from encyclo.testing.faults.mistakes import MISTAKES
from encyclo.testing.fixtures import complete_plugin
from tests.conftest import Result

NAME = "evil"


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Install the evil plugin for these tests."""
    folder = tmp_path_factory.mktemp("site-packages")
    complete_plugin.install(folder, NAME, "encyclo.testing.faults.evil_plugins:EVIL")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The flags of a run in which the evil plugin does everything."""
    file = tmp_path_factory.mktemp("config") / "run.toml"
    file.write_text(f'baselines = []\nscorer = "{NAME}"\n')
    return [*complete_plugin.flags(NAME), "--config", str(file)]


def fault_of(result: Result) -> str | None:
    """Return what is wrong with how a command met a mistake; None if it is one sentence that names the plugin."""
    said = [line for line in result.stderr.splitlines() if line.startswith("encyclo: ")]
    wrong = [word for word in ("Traceback", "unexpected", "Exception ignored") if word in result.stderr]
    if result.returncode != 1:
        return f"exit code {result.returncode}"
    if wrong or len(said) != 1 or f"Plugin '{NAME}' (package encyclo-evil 1.0) " not in said[0]:
        return result.stderr[-500:]
    return f"long: {said[0]}" if len(said[0]) > 2_000 else None


def groups() -> dict[tuple[str, str], list[Mistake]]:
    found = defaultdict(list)
    for mistake in MISTAKES:
        found[mistake.hook, mistake.command].append(mistake)
    return found


GROUPS = groups()
FINISHED = ("read", "report", "evaluate")


def met(encyclo: Callable[..., Result], mistake: Mistake, arguments: Sequence[str | Path]) -> str | None:
    """Run a command with a mistake; return what is wrong with how it ended."""
    EVIL.mistake = mistake
    try:
        found = fault_of(encyclo(*arguments))
    finally:
        EVIL.mistake = None
    return None if found is None else f"{mistake}: {found}"


@pytest.mark.parametrize("hook, command", [key for key in GROUPS if key[1] not in FINISHED])
def test_a_run_that_meets_a_mistake_names_the_plugin_and_goes_on_without_it(
    hook: str, command: str, encyclo: Callable[..., Result], flags: list[str], tmp_path: Path
):
    name, *more = command.split()
    arguments = [name, *flags, *more, "--out", tmp_path / "run"]
    faults = [met(encyclo, mistake, arguments) for mistake in GROUPS[hook, command]]
    assert not any(faults), "\n".join(filter(None, faults))
    assert not (tmp_path / "run" / "metrics.json").exists()
    result = encyclo(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    verified = encyclo("verify", tmp_path / "run")
    assert verified.returncode == 0, verified.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, flags: list[str]) -> Path:
    """A finished run of the good plugin; commands that fail don't change it."""
    from encyclo.cli import run_command

    out = tmp_path_factory.mktemp("runs") / "finished"
    assert run_command(["run", *flags, "--out", str(out), "--json"]) == 0
    return out


@pytest.mark.parametrize("hook, command", [key for key in GROUPS if key[1] in FINISHED])
def test_a_command_that_opens_a_run_names_the_plugin_and_leaves_the_run_as_it_is(
    hook: str, command: str, encyclo: Callable[..., Result], finished: Path
):
    arguments = [command, finished, *(["3 word1 word2"] if command == "read" else [])]
    if hook == "load_interpreter":
        (finished / "details.json").unlink()  # with it, a report needs no interpreter
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    faults = [met(encyclo, mistake, arguments) for mistake in GROUPS[hook, command]]
    assert not any(faults), "\n".join(filter(None, faults))
    after = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    assert after == before
    assert encyclo(*arguments).returncode == 0
    assert encyclo("report", finished).returncode == 0 and (finished / "details.json").exists()


READ_BY = {
    "verify": ("read_part", "open returns", "the book is", "samples are"),
    "convert": ("read_part", "open returns", "the book is", "close"),
}


@pytest.mark.parametrize("command", READ_BY)
def test_a_store_that_reads_wrongly_is_named_by_what_reads_it(
    command: str, encyclo: Callable[..., Result], finished: Path, tmp_path: Path
):
    chosen = [m for m in GROUPS["store_activations", "run"] if m.words.startswith(READ_BY[command])]
    assert len(chosen) > 25
    for number, mistake in enumerate(chosen):
        EVIL.mistake = mistake
        more = ["--store", "hdf5", "--out", tmp_path / str(number)] if command == "convert" else []
        try:
            result = encyclo(command, finished, *more)
        finally:
            EVIL.mistake = None
        said = result.stdout + result.stderr
        assert result.returncode == 1, f"{mistake}: {said}"
        assert f"Plugin '{NAME}' (package" in said and "Traceback" not in said, f"{mistake}: {said}"
    assert encyclo("verify", finished).returncode == 0
