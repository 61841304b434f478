"""A real `encyclo run` survives kill -9, power cuts, a full disk and I/O errors at every call, and damage."""

from __future__ import annotations

import errno
import json
import pickle
import sys
from functools import partial
from pathlib import Path
from random import Random

import pytest

import encyclo
from encyclo import files
from encyclo.cli import run_command
from encyclo.ledger import Ledger
from encyclo.testing import disks
from encyclo.testing.battery import check_mutations
from encyclo.testing.processes import Nursery
from tests import fast_plugin
from tests.commands import one_sentence

STORES = ["hdf5"]


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("site")
    fast_plugin.install(folder)
    sys.path.append(str(folder))
    yield
    sys.path.remove(str(folder))


@pytest.fixture(scope="module", params=STORES)
def store(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def whole(store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert go(store, out) == 0
    return out


def go(store: str, out: Path) -> int:
    return run_command([*fast_plugin.FLAGS, str(out), "--store", store])


def content(out: Path) -> dict[str, object]:
    """Return what an encyclopedia holds, but for what differs between any two runs: its id and time."""
    with encyclo.open(out) as book:
        samples = {name: book.samples(name).checksum() for name in book.book.concepts.name}
        tables = pickle.dumps((vars(book.book.concepts), vars(book.book.signatures)))
        sums = json.loads((out / "interpreter" / "sha256.json").read_text())
        metrics = json.loads((out / "metrics.json").read_text())
    return {"samples": samples, "tables": tables, "interpreter": sums, "accuracy": metrics["accuracy"]}


def commits(out: Path) -> set[str]:
    return set(Ledger(out).commits()) if (out / "commits").exists() else set()


class Promises(disks.RecordingDisk):
    """Counts a unit as promised once the folder of its record has been synced."""

    def done(self, call: str, path: Path) -> None:
        if call == "sync_folder" and path.name == "commits":
            self.promised = len(list(path.glob("[0-9a-f]*.json")))
        super().done(call, path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["full", "error"])
def test_every_call_refused(store: str, whole: Path, tmp_path: Path, capsys, plain_report, code: int):
    counting = disks.FailingDisk()
    with files.using(counting):
        assert go(store, tmp_path / "run") == 0
    expected = content(whole)
    for number, call in enumerate(counting.calls, 1):
        if call.startswith("remove"):
            continue
        out = tmp_path / str(number) / "run"
        out.parent.mkdir()
        capsys.readouterr()
        with files.using(disks.FailingDisk(number, code)):
            assert go(store, out) in (1, 2), (number, call)
        assert one_sentence(capsys.readouterr().err), (number, call)
        with files.using(disks.HastyDisk()):
            assert go(store, out) == 0, (number, call)
        assert content(out) == expected, (number, call)


def cut_everywhere(store: str, whole: Path, tmp_path: Path, survivals) -> None:
    parent = tmp_path / "recorded"
    parent.mkdir()
    disk = Promises(parent)
    try:
        with files.using(disk):
            assert go(store, parent / "run") == 0
    finally:
        disk.close()
    expected, seen = content(whole), set()
    for number, moment in enumerate(disk.moments):
        for names, data in survivals:
            left = disks.survivors(moment, names, data, seed=number)
            image = pickle.dumps((moment.promised, sorted(left.items())))
            if image in seen:
                continue
            seen.add(image)
            place = tmp_path / f"{number}-{names}-{data}"
            place.mkdir()
            disks.restore(left, place)
            told = number, moment.call, names, data
            assert len(commits(place / "run")) >= moment.promised, told
            with files.using(disks.HastyDisk()):
                assert go(store, place / "run") == 0, told
            assert content(place / "run") == expected, told


def test_a_power_cut_after_every_call(store: str, whole: Path, tmp_path: Path, plain_report):
    cut_everywhere(store, whole, tmp_path, disks.SURVIVALS[:1])


@pytest.mark.slow
def test_a_power_cut_after_every_call_in_every_way(store: str, whole: Path, tmp_path: Path):
    cut_everywhere(store, whole, tmp_path, disks.SURVIVALS)


def command(store: str, out: Path) -> None:
    assert go(store, out) == 0


def warm(store: str, out: Path) -> None:
    import encyclo.pipeline
    import encyclo.refinement
    import encyclo.report.page
    import encyclo_hdf5.store
    import encyclo_interpreters.centroid
    import encyclo_scorers.calibrated  # noqa: F401


def kill_often(store: str, whole: Path, tmp_path: Path, kills: int) -> None:
    expected, random, killed, in_commits = content(whole), Random(0), 0, 0
    with Nursery() as nursery:
        nursery.warm(warm, store, tmp_path / "warm")
        ending = nursery.run(command, store, tmp_path / "first")
        assert ending.status == 0, ending.output
        for number in range(4 * kills):
            out = tmp_path / str(number)
            ending = nursery.run(command, store, out, kill_after=random.uniform(0, ending_time := ending_seconds(ending)))
            killed += ending.killed
            assert ending.killed or ending.status == 0, ending.output
            kept = commits(out)
            in_commits += 0 < len(kept) < fast_plugin.CONCEPTS
            ending = nursery.run(command, store, out)
            assert ending.status == 0, ending.output
            assert kept <= commits(out)
            assert content(out) == expected
            if killed == kills:
                break
    assert killed == kills
