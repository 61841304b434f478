"""convert and export write a whole folder or none: refused, killed or out of disk, the same command starts anew."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from encyclo.errors import StoreError
from encyclo.export.export import export
from encyclo.maintenance.convert import convert
from encyclo.maintenance.verify import verify
from encyclo.storage import checksums, files
from encyclo.testing.faults import disks
from tests.commands import one_sentence
from tests.stored_runs import make_first_version, make_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("finished") / "run", "hdf5")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


class Killed(KeyboardInterrupt):
    """The process is gone: no plugin's error."""


class DyingDisk(disks.CountingDisk):
    """Dies after the n-th call; what is on the disk by then stays."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def done(self, call: str, path: Path) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed

    def remove(self, path: Path) -> None:
        if self.left >= 0:
            super().remove(path)


def to_zarr(run: Path, out: Path) -> None:
    convert(run, "zarr", out)


def to_files(run: Path, out: Path) -> None:
    export(run, out, parquet=False)


def content(folder: Path) -> dict[str, bytes]:
    """Return a folder's files, but for the names of attempts and the records that have them."""
    named = ("parts", "commits", "seal.json", "metadata.json")
    found = {p.relative_to(folder): p for p in folder.rglob("*") if p.is_file()}
    return {name.as_posix(): p.read_bytes() for name, p in found.items() if name.parts[0] not in named}


@pytest.mark.parametrize("write", [to_zarr, to_files])
def test_a_kill_after_any_call_leaves_nothing_that_stops_the_same_command(run: Path, tmp_path: Path, write):
    write(run, tmp_path / "whole")
    expected, out = content(tmp_path / "whole"), tmp_path / "new" / "out"
    calls = 0
    while True:
        try:
            with files.using(DyingDisk(calls)):
                write(run, out)
            break
        except Killed:
            calls += 1 if write is to_files else 7
        if out.exists():  # only whole
            assert content(out) == expected
            shutil.rmtree(out)
        else:
            with files.using(disks.HastyDisk()):
                write(run, out)
            assert content(out) == expected, calls
            assert sorted(path.name for path in out.parent.iterdir()) == ["out"]
            shutil.rmtree(out)
    assert calls > 5
    assert content(out) == expected


@pytest.mark.parametrize("write", [to_zarr, to_files])
def test_a_full_disk_leaves_nothing(run: Path, tmp_path: Path, write):
    counting = disks.FailingDisk()
    with files.using(counting):
        write(run, tmp_path / "whole")
    out, expected = tmp_path / "new" / "out", content(tmp_path / "whole")
    out.parent.mkdir()
    for number, call in enumerate(counting.calls, 1):
        if number % 5 or call.startswith("remove"):
            continue
        with files.using(disks.FailingDisk(number, errno.ENOSPC)), pytest.raises(StoreError) as refused:
            write(run, out)
        assert "No space left on device" in str(refused.value) and "\n" not in str(refused.value), call
        if out.exists():  # only whole: syncing the folder above failed
            assert content(out) == expected
            shutil.rmtree(out)
        assert list(out.parent.iterdir()) == []
    write(run, out)
    assert content(out) == expected


@pytest.mark.parametrize("write", [to_zarr, to_files])
def test_two_at_once_do_not_mix(run: Path, tmp_path: Path, write):
    out = tmp_path / "out"
    with FileLock(tmp_path / ".tmp-out.lock"), pytest.raises(StoreError, match="Another process is writing"):
        write(run, out)
    assert not out.exists()
    write(run, out)


@pytest.mark.parametrize("write", [to_zarr, to_files])
def test_a_folder_that_is_filled_meanwhile_is_kept(run: Path, tmp_path: Path, write, monkeypatch):
    out = tmp_path / "out"
    tree = files.sync_tree

    def fill(folder: Path) -> None:
        tree(folder)
        if folder.name.startswith(".tmp-"):
            out.mkdir(exist_ok=True)
            (out / "thesis.tex").write_text("precious")

    monkeypatch.setattr(files, "sync_tree", fill)
    with pytest.raises(StoreError, match="not empty"):
        write(run, out)
    assert (out / "thesis.tex").read_text() == "precious"


def test_an_empty_folder_is_filled_and_any_other_refused(run: Path, tmp_path: Path, encyclo):
    out = tmp_path / "out"
    out.mkdir()
    assert encyclo("convert", run, "--store", "zarr", "--out", out).returncode == 0
    assert verify(out).findings == []
    result = encyclo("convert", run, "--store", "zarr", "--out", out)
    assert result.returncode == 2 and "holds a run" in one_sentence(result.stderr)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".lock").write_text("")
    result = encyclo("convert", run, "--store", "zarr", "--out", tmp_path / "other")
    assert result.returncode == 2 and "is not empty" in one_sentence(result.stderr)


@pytest.mark.parametrize("first_version", [False, True])
@pytest.mark.parametrize("name", ["interpreter/model.safetensors", "interpreter/sha256.json", "metrics.json"])
def test_a_damaged_file_is_not_copied(run: Path, tmp_path: Path, encyclo, name: str, first_version: bool):
    if first_version:
        make_first_version(run)
    (run / name).write_bytes(b"[" + (run / name).read_bytes()[1:])
    result = encyclo("convert", run, "--store", "zarr", "--out", tmp_path / "out")
    assert result.returncode == 1 and Path(name).name in one_sentence(result.stderr)
    assert not (tmp_path / "out").exists()


def test_a_copy_is_sealed_as_a_run_of_its_own(run: Path, tmp_path: Path, encyclo):
    """Its files are listed, and run.json is its own; a run of the first version is sealed by it."""
    for out in (tmp_path / "new", tmp_path / "old"):
        assert encyclo("convert", run, "--store", "zarr", "--out", out).returncode == 0
        before, after = checksums.read_seal(run), checksums.read_seal(out)
        assert after.run_files and after.run_files.keys() >= (before.run_files or {}).keys()
        assert verify(out).findings == []
        make_first_version(run)


def test_the_current_folder_is_refused(run: Path, tmp_path: Path, encyclo, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    result = encyclo("convert", str(run), "--store", "zarr", "--out", ".")
    assert result.returncode == 2 and "is the current folder" in one_sentence(result.stderr)


def test_leftovers_are_not_copied(run: Path, tmp_path: Path, encyclo):
    (run / "plugins").mkdir(exist_ok=True)
    (run / "plugins" / ".tmp-left").write_text("x")
    assert encyclo("convert", str(run), "--store", "zarr", "--out", str(tmp_path / "copy")).returncode == 0
    assert not list((tmp_path / "copy").rglob(".tmp-*"))
