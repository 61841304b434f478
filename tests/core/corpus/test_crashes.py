"""`encyclo capture` survives kill -9, power cuts and a refusing disk: the same command ends with the same manifest."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from random import Random

import pytest

import encyclo
from encyclo.cli import run_command
from encyclo.corpus.text_capture import TextCapture
from encyclo.maintenance.verify import verify
from encyclo.storage import files
from encyclo.storage.ledger import Ledger
from encyclo.testing.faults import disks
from encyclo.testing.faults.processes import ForkServer
from tests.commands import one_sentence

UNITS = 2


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": f"the dog {n} is old and wide"}) + "\n" for n in range(12)))
    return path


def go(texts: Path, model: Path, out: Path, store: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("encyclo.corpus.blocks.MOST_TOKENS", 72)
        flags = ["--model", str(model), "--layers", "1,-1", "--device", "cpu", "--store", store, "--json"]
        return run_command(["capture", str(texts), "--out", str(out), *flags])


def command(texts: Path, model: Path, out: Path, store: str) -> None:
    sys.exit(go(texts, model, out, store))


def content(out: Path) -> tuple[bytes, list[str]]:
    with encyclo.open(out) as capture:
        assert isinstance(capture, TextCapture) and capture.finished
        parts = [part.checksum() for part in capture.parts()]
    assert not verify(out).findings
    return (out / "manifest.json").read_bytes(), parts


@pytest.fixture(scope="module", params=["hdf5", pytest.param("zarr", marks=pytest.mark.slow)])
def store(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def expected(store: str, texts: Path, tiny_gemma: Path, tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("whole") / "out"
    assert go(texts, tiny_gemma, out, store) == 0
    found = content(out)
    assert len(found[1]) == UNITS
    return found


def warm(model: Path) -> None:
    """Import what a capture imports, and compile nothing."""
    import encyclo_hdf5.store
    import encyclo_zarr.store
    from encyclo_capture.model import TransformersModel

    handle = TransformersModel(str(model), "cpu", "float32")
    _ = handle.network, handle.split_text("a"), encyclo_hdf5.store, encyclo_zarr.store


@pytest.mark.parametrize("kills", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_kill_9_at_random_instants(store, expected, texts, tiny_gemma, tmp_path: Path, kills: int):
    random, killed, between = Random(0), 0, 0
    with ForkServer() as server:
        server.warm(warm, tiny_gemma)
        whole = server.run(command, texts, tiny_gemma, tmp_path / "whole", store)
        assert whole.status == 0, whole.output
        commits = sorted(p.stat().st_mtime for p in (tmp_path / "whole" / "commits").glob("*.json"))
        for number in range(6 * kills):
            out = tmp_path / str(number)
            since, latest = (
                (out / "commits", commits[-1] - commits[0]) if number % 2 else (None, whole.seconds)
            )
            ending = server.run(
                command, texts, tiny_gemma, out, store, kill_after=random.uniform(0.0, latest), since=since
            )
            killed += ending.killed
            there = set(Ledger(out).commits()) if (out / "commits").exists() else set()
            between += 0 < len(there) < UNITS
            if there and not (out / "manifest.json").exists():
                with encyclo.open(out) as capture:  # what is committed can be read before it is complete
                    assert not capture.finished and len(list(capture.parts())) == len(there)
            ending = server.run(command, texts, tiny_gemma, out, store)
            assert ending.status == 0, ending.output
            assert there <= set(Ledger(out).commits())
            assert content(out) == expected
            if killed == kills:
                break
    assert killed == kills and between


def test_a_power_cut_after_every_call(store, expected, texts, tiny_gemma, tmp_path: Path):
    parent = tmp_path / "recorded"
    parent.mkdir()
    disk = disks.RecordingDisk(parent)
    try:
        with files.using(disk):
            assert go(texts, tiny_gemma, parent / "out", store) == 0
    finally:
        disk.close()
    names, data = disks.SURVIVALS[0]
    for number in disks.telling([moment.call for moment in disk.moments], every=False):
        place = tmp_path / str(number)
        place.mkdir()
        disks.restore(disks.survivors(disk.moments[number], names, data, seed=number), place)
        with files.using(disks.HastyDisk()):
            assert go(texts, tiny_gemma, place / "out", store) == 0, disk.moments[number].call
        assert content(place / "out") == expected


def test_every_refused_call_is_one_sentence_and_the_same_command_goes_on(
    store, expected, texts, tiny_gemma, tmp_path: Path, capsys
):
    counting = disks.FailingDisk()
    with files.using(counting):
        assert go(texts, tiny_gemma, tmp_path / "out", store) == 0
    for place in disks.telling(counting.calls, every=False):
        number, call = place + 1, counting.calls[place]
        if call.startswith("remove"):
            continue
        out = tmp_path / str(number)
        capsys.readouterr()
        with files.using(disks.FailingDisk(number, (errno.ENOSPC, errno.EIO)[number % 2])):
            assert go(texts, tiny_gemma, out, store) in (1, 2), call
        assert one_sentence(capsys.readouterr().err), call
        with files.using(disks.HastyDisk()):
            assert go(texts, tiny_gemma, out, store) == 0, call
        assert content(out) == expected
