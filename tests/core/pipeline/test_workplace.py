"""What a worker on another machine says if it doesn't find there what the rounds before wrote."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from encyclo.errors import RunDirectoryError
from encyclo.executors import UnitReceipt
from encyclo.pipeline.dispatch import _Commits
from encyclo.pipeline.workplace import _Recalled
from encyclo.runs import worker_locks
from encyclo.runs.directory import read_record
from encyclo.runs.reopen import reopen_run
from encyclo.storage.ledger import Commit, Unit
from encyclo.terminal import ConsoleProgress

ADVICE = r" in .*; give --out a folder on a file system that all machines share\.$"


@pytest.fixture
def recalled(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Recalled:
    monkeypatch.setattr(worker_locks, "SECONDS_UNTIL_SEEN", 0.1)
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    for path in (run / "commits").iterdir():
        path.rename(path.with_suffix(".late"))
    return _Recalled(reopen_run(run, read_record(run), ConsoleProgress(quiet=True), "cpu"))


def test_a_plan_that_is_not_seen_is_named(recalled: _Recalled):
    with pytest.raises(RunDirectoryError, match="^The worker on .* finds no plan of the round 90" + ADVICE):
        recalled(90)


def test_a_commit_that_is_not_seen_is_named(recalled: _Recalled):
    with pytest.raises(RunDirectoryError, match="finds no record of the unit [0-9a-f]{32}" + ADVICE):
        recalled._earlier(1)


def test_commits_are_read_at_the_same_time():
    """Each of these waits for the others; they come in the order of their receipts."""
    all_three = threading.Barrier(3)

    def read(receipt: UnitReceipt) -> Commit:
        all_three.wait(60)
        return Commit.of_nothing(Unit(receipt.unit, 0, ()))

    with _Commits(read) as commits:
        for unit in "cab":
            commits.expect(UnitReceipt(unit, "here"))
        assert [commit.unit for commit in commits.all()] == ["c", "a", "b"]


def test_a_commit_that_can_not_be_read_ends_the_round():
    def read(receipt: UnitReceipt) -> Commit:
        raise RunDirectoryError(receipt.unit)

    with pytest.raises(RunDirectoryError, match=r"^first$"), _Commits(read) as commits:
        commits.expect(UnitReceipt("first", "here"))
        commits.expect(UnitReceipt("second", "here"))
        list(commits.all())
