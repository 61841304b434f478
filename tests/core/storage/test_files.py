"""Writes that survive a crash: whole or not at all, first wins."""

from __future__ import annotations

import errno
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from encyclo.errors import StoreError
from encyclo.storage import files
from encyclo.testing.faults import disks

CREATE_MANY = """
import sys, pathlib
from encyclo.storage import files
from encyclo.errors import StoreError
from encyclo.testing.faults import disks
folder, me = pathlib.Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for number in range(100):
    if files.create_json(folder / f"{number}.json", {"by": me, "padding": "x" * 5000}):
        print(number)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_replacing_puts_the_new_file_in_place(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with files.replacing(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".txt"
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(error), files.replacing(target) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_an_error_before_the_first_write_leaves_nothing(tmp_path):
    with pytest.raises(ValueError), files.replacing(tmp_path / "a.txt"):
        raise ValueError
    assert names(tmp_path) == []


def test_a_failing_replace_removes_the_temporary_file(tmp_path):
    target = tmp_path / "a"
    target.mkdir()  # a file can't replace a folder
    with pytest.raises(StoreError, match="Is a directory"), files.replacing(target) as temporary:
        temporary.write_text("new")
    assert names(tmp_path) == ["a"]
    assert target.is_dir()


def test_temporary_files_have_the_prefix_that_sweeping_looks_for(tmp_path):
    with files.replacing(tmp_path / "a.h5") as temporary:
        assert temporary.name.startswith(files.TEMPORARY)
        temporary.write_bytes(b"")


def test_write_json_keeps_unicode_and_refuses_nan(tmp_path):
    target = tmp_path / "a.json"
    files.write_json(target, {"name": "Größe 数"})
    assert json.loads(target.read_text(encoding="utf-8")) == {"name": "Größe 数"}
    with pytest.raises(ValueError):
        files.write_json(target, {"ece": float("nan")})
    assert json.loads(target.read_text(encoding="utf-8")) == {"name": "Größe 数"}
    assert names(tmp_path) == ["a.json"]


def test_create_json_first_wins(tmp_path):
    target = tmp_path / "a.json"
    assert files.create_json(target, {"by": 1}) is True
    assert files.create_json(target, {"by": 2}) is False
    assert json.loads(target.read_text()) == {"by": 1}
    assert names(tmp_path) == ["a.json"]


def test_create_json_that_fails_creates_nothing(tmp_path):
    with pytest.raises(ValueError):
        files.create_json(tmp_path / "a.json", {"seconds": float("inf")})
    assert names(tmp_path) == []


def test_create_json_from_two_processes_has_one_winner_a_file(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CREATE_MANY, str(tmp_path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("first", "second")
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:  # both start now
        process.stdin.write("go\n")
        process.stdin.flush()
    won = [[int(line) for line in process.communicate(timeout=60)[0].split()] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(won[0] + won[1]) == list(range(100))
    for name, numbers in zip(("first", "second"), won, strict=True):
        for number in numbers:
            assert json.loads((tmp_path / f"{number}.json").read_text())["by"] == name
    assert len(names(tmp_path)) == 100


def test_sha256_of_is_that_of_the_bytes(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(range(256)) * 5000)
    assert files.sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_folder_is_replaced_whole(tmp_path):
    target = tmp_path / "a"
    for content in ("old", "new"):
        with files.replacing_folder(target) as temporary:
            (temporary / content).mkdir()
            (temporary / content / "file").write_text(content)
        assert names(target) == [content]
    with pytest.raises(ValueError), files.replacing_folder(target) as temporary:
        (temporary / "newer").write_text("half")
        raise ValueError
    assert names(target) == ["new"]
    assert names(tmp_path) == ["a"]


def test_folders_are_made_and_each_parent_is_synced(tmp_path):
    disk = disks.FailingDisk()
    with files.using(disk):
        files.make_folder(tmp_path / "a" / "b")
        files.make_folder(tmp_path / "a" / "b")
    assert disk.calls == ["make_folder a", f"sync_folder {tmp_path.name}", "make_folder b", "sync_folder a"]
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="File exists"):
        files.make_folder(tmp_path / "file")


@pytest.mark.parametrize(
    ("code", "remedy"),
    [(errno.ENOSPC, "free some space"), (errno.EACCES, "permission"), (errno.EIO, "check the disk")],
)
def test_a_refusal_is_one_sentence_with_a_remedy(tmp_path, code, remedy):
    with files.using(disks.FailingDisk(1, code)), pytest.raises(StoreError) as caught:
        files.write_json(tmp_path / "a.json", {})
    assert str(tmp_path / "a.json") in str(caught.value) and remedy in str(caught.value)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


def test_a_late_file_tells_the_first_refusal_at_the_end(tmp_path):
    with pytest.raises(OSError, match="full"), files.late_file(tmp_path / "a") as file:
        file.write(b"kept")
        file.refusal = OSError(errno.ENOSPC, "full")
        assert file.write(b"lost") == 4
    assert (tmp_path / "a").read_bytes() == b"kept"
    with files.late_file(tmp_path / "b") as file:
        file.write(memoryview(bytes(range(8))))
        file.truncate(4)
    assert (tmp_path / "b").read_bytes() == bytes(range(4))
