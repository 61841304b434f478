"""Temporary files that a killed process left: `verify` lists them, and the next run removes them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from encyclo.errors import RunDirectoryError
from encyclo.maintenance.verify import verify
from encyclo.runs import worker_locks
from encyclo.storage.ledger import locked

LEFTOVERS = (
    ".tmp-0123.json", "rounds/0/.tmp-0123.json", "plugins/transformer/.tmp-0123.safetensors",
    "commits/.tmp-0123.json", "parts/.tmp-0123.h5",
)  # fmt: skip
FOLDER = "rounds/0/.tmp-4567"


@pytest.mark.parametrize("finished", [True, False])
def test_leftovers_are_listed_and_removed_by_the_same_command(
    tiny_run: Path, tiny_flags: list[str], tmp_path: Path, encyclo, finished: bool
):
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    if not finished:
        (run / "metrics.json").unlink()
    for name in (*LEFTOVERS, f"{FOLDER}/.tmp-1/model.safetensors"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("half")
    found = [problem for problem in verify(run).findings if "killed process" in problem.what]
    assert sorted(problem.where for problem in found) == sorted((*LEFTOVERS, FOLDER))
    assert "removes it" in encyclo("verify", run).stdout
    flags = ["run", "--sampler", "templates", "--limit", "40", *tiny_flags, "--out", run]
    assert encyclo(*flags).returncode == 0
    assert list(run.rglob(".tmp-*")) == []
    assert verify(run).findings == []


def test_parts_without_a_commit_are_listed_and_pruned(tiny_run: Path, tmp_path: Path, encyclo):
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    (run / "parts" / "dead.h5").write_text("whole, and never committed")
    (run / "parts" / ".tmp-0123.h5").write_text("half")
    assert {problem.where for problem in verify(run).findings} == {"parts/dead.h5", "parts/.tmp-0123.h5"}
    said = encyclo("verify", run)
    assert said.returncode == 1
    assert "parts/dead.h5: no commit names this part: a killed process left it" in said.stdout
    assert f"`encyclo verify {run} --prune` removes it" in said.stdout
    worker_locks.admit(run)  # a killed command's workers may be about to commit a part
    assert encyclo("verify", run, "--prune").returncode == 0
    assert not (run / worker_locks.FOLDER).exists()
    assert not (run / "parts" / "dead.h5").exists() and verify(run).findings == []


def test_prune_waits_for_no_running_command_and_needs_a_run(tiny_run: Path, tmp_path: Path):
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    (run / "parts" / "busy.h5").write_text("a running command's")
    with locked(run), pytest.raises(RunDirectoryError, match="in use by process"):
        verify(run, prune=True)
    assert (run / "parts" / "busy.h5").exists()
    with pytest.raises(RunDirectoryError, match="is not a run of encyclo"):
        verify(tmp_path, prune=True)
