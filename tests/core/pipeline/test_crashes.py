"""A real `encyclo run` survives kill -9, power cuts, a full disk and I/O errors at every call, and damage."""

from __future__ import annotations

import errno
import importlib
import json
import pickle
import sys
from pathlib import Path
from random import Random

import pytest

import encyclo
from encyclo.cli import run_command
from encyclo.errors import DamagedError
from encyclo.maintenance.verify import verify
from encyclo.pipeline.rounds import Rounds
from encyclo.plugins.manager import Plugins
from encyclo.runs.calibration_file import load_calibration
from encyclo.runs.directory import read_record as record_of
from encyclo.runs.interpreter_folder import check_sums
from encyclo.runs.metrics import read_metrics
from encyclo.schema import Schema
from encyclo.storage import files
from encyclo.storage.ledger import Ledger
from encyclo.testing.faults import disks
from encyclo.testing.faults.battery import check_mutations
from encyclo.testing.faults.processes import ForkServer
from encyclo.testing.fixtures.small_run import read_part
from tests import fast_plugin
from tests.commands import one_sentence

STORES = ["hdf5", pytest.param("zarr", marks=pytest.mark.slow)]
UNITS = 2
NOTHING = Schema((), (), 0)


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


def go(store: str, out: Path, limit: int = UNITS) -> int:
    return run_command([*fast_plugin.FLAGS, str(out), "--store", store, "--limit", str(limit)])


def content(out: Path) -> dict[str, object]:
    """Return an encyclopedia's content, except for its id and time, which differ between any two runs."""
    check_sums(out / "interpreter")
    with encyclo.open(out) as book:
        samples = {name: book.samples(name).checksum() for name in book.book.concepts.name}
        found = book.book.signatures
        tables = pickle.dumps((vars(book.book.concepts), found.mean, found.variance, found.count))
        sums = json.loads((out / "interpreter" / "sha256.json").read_text())
        metrics = json.loads((out / "metrics.json").read_text())
    return {"samples": samples, "tables": tables, "interpreter": sums, "accuracy": metrics["accuracy"]}


def commits(out: Path) -> set[str]:
    return set(Ledger(out).commits()) if (out / "commits").exists() else set()


@pytest.fixture
def plain_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encyclo.report.run.write_report", fast_plugin.write_plainly)


class Promises(disks.RecordingDisk):
    """Counts a unit as promised once the folder of its record has been synced."""

    def done(self, call: str, path: Path) -> None:
        if call == "sync_folder" and path.name == "commits":
            self.promised = len(list(path.glob("[0-9a-f]*.json")))
        super().done(call, path)


@pytest.mark.parametrize(
    "codes",
    [
        (errno.ENOSPC, errno.EIO),
        pytest.param((errno.EIO, errno.ENOSPC), marks=pytest.mark.slow),
        pytest.param((errno.EACCES, errno.EROFS), marks=pytest.mark.slow),
    ],
    ids=lambda codes: "-".join(errno.errorcode[code] for code in codes),
)
def test_every_call_refused(store: str, whole: Path, tmp_path: Path, capsys, plain_report, codes):
    """The codes take turns from call to call: together, the variants give every code to every call."""
    counting = disks.FailingDisk()
    with files.using(counting):
        assert go(store, tmp_path / "run") == 0
    expected = content(whole)
    for place in disks.telling(counting.calls, every=False):
        number, call = place + 1, counting.calls[place]
        if call.startswith("remove"):
            continue
        out = tmp_path / str(number) / "run"
        out.parent.mkdir()
        capsys.readouterr()
        with files.using(disks.FailingDisk(number, codes[number % len(codes)])):
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
    for number in disks.telling([moment.call for moment in disk.moments], every=len(survivals) > 1):
        moment = disk.moments[number]
        for names, data in survivals:
            left = disks.survivors(moment, names, data, seed=number)
            image = pickle.dumps((moment.promised, sorted(left.items())))
            if image in seen:
                continue
            seen.add(image)
            place = tmp_path / f"{number}-{names}-{data}"
            place.mkdir()
            disks.restore(left, place)
            case = number, moment.call, names, data
            assert len(commits(place / "run")) >= moment.promised, case
            with files.using(disks.HastyDisk()):
                assert go(store, place / "run") == 0, case
            assert content(place / "run") == expected, case


def test_a_power_cut_after_every_call(store: str, whole: Path, tmp_path: Path, plain_report):
    cut_everywhere(store, whole, tmp_path, disks.SURVIVALS[:1])


@pytest.mark.slow
def test_a_power_cut_after_every_call_in_every_way(store: str, whole: Path, tmp_path: Path):
    cut_everywhere(store, whole, tmp_path, disks.SURVIVALS)


def command(store: str, out: Path, limit: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("encyclo.report.run.write_report", fast_plugin.write_plainly)
        sys.exit(go(store, out, limit))


def warm() -> None:
    """Import what a run imports; nothing here starts a thread."""
    for name in (
        "encyclo.pipeline.run", "encyclo.report.atlas", "encyclo.report.details", "encyclo_hdf5.store",
        "encyclo_zarr.store", "encyclo_executors.local", "encyclo_interpreters.centroid",
        "encyclo_scorers.calibrated", "scipy.stats", "scipy.optimize", "scipy.sparse", "sklearn.decomposition",
        "sklearn.manifold", "rich.console",
    ):  # fmt: skip
        importlib.import_module(name)


@pytest.mark.parametrize("kills", [20, pytest.param(300, marks=pytest.mark.slow)])
def test_kill_9_at_random_instants(store: str, tmp_path: Path, kills: int):
    """No committed unit is lost, and the same command ends as if nothing had happened."""
    random, killed, between, units = Random(0), 0, 0, fast_plugin.CONCEPTS
    with ForkServer() as server:
        server.warm(warm)
        lengths = [server.run(command, store, tmp_path / f"whole-{i}", units).seconds for i in range(2)]
        expected = content(tmp_path / "whole-0")
        server.run(command, store, tmp_path / "timed", units)
        instants = sorted(p.stat().st_mtime for p in (tmp_path / "timed" / "commits").glob("*.json"))
        for number in range(4 * kills):
            out = tmp_path / str(number)
            # Most of a small run is what follows the last commit: every second kill falls among the commits.
            since, latest = (
                (out / "commits", instants[-1] - instants[0]) if number % 2 else (None, min(lengths))
            )
            after = random.uniform(0.0, latest)
            ending = server.run(command, store, out, units, kill_after=after, since=since)
            assert ending.killed or ending.status == 0, ending.output
            killed += ending.killed
            kept = commits(out)
            between += 0 < len(kept) < units
            ending = server.run(command, store, out, units)
            assert ending.status == 0, ending.output
            assert kept <= commits(out)
            assert content(out) == expected
            if killed == kills:
                break
    assert killed == kills
    print(f"{killed} kills, {between} between the first and the last commit")
    assert between >= kills // 10


@pytest.fixture(scope="module")
def another(store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run like `whole`, of another seed."""
    out = tmp_path_factory.mktemp("another") / "run"
    assert run_command([*fast_plugin.FLAGS, str(out), "--store", store, "--limit", "2", "--seed", "1"]) == 0
    return out


def opened(out: Path, file: str) -> object:
    """Read the content of one file of a finished run, as a user's process does."""
    if file == "metrics.json":
        return read_metrics(out).as_json()
    if file.startswith("rounds/"):
        rounds = Rounds(out, record_of(out)["run_id"])
        plan, result = rounds.plan(0), rounds.result(0)
        if plan is None or result is None:
            raise DamagedError(f"A record of {out}/rounds is gone.")
        saved = check_sums(rounds.saved_interpreter(0))
        return plan, pickle.dumps(result), [path.read_bytes() for path in saved]
    if file.startswith(("commits/", "parts/")):
        ledger = Ledger(out)
        found = ledger.commits()
        if len(found) < UNITS:
            raise DamagedError(f"A commit record of {out} is gone.")
        store = Plugins().call(
            "store_activations", record_of(out)["config"]["store"], location=out, schema=NOTHING
        )
        mine = [c for c in found.values() if file.startswith((f"parts/{c.part}", f"commits/{c.unit}"))]
        return found, [read_part(store, ledger, commit).checksum() for commit in mine]
    with encyclo.open(out) as book:
        if file == "calibration.json":
            return pickle.dumps(load_calibration(out))
        if file == "details.json":
            if book.kept_details is None:
                raise DamagedError("Without it an entry is measured again.")
            return pickle.dumps(book.kept_details.whole())
        if file.startswith("interpreter/"):
            interpreter = book.interpreter()
            scores = interpreter.read(book.samples(book.book.concepts.name[0]).values())
            return interpreter.concepts, scores.tobytes()
        if file == "run.json":
            return book.record
        return [book.samples(name).checksum() for name in book.book.concepts.name], pickle.dumps(
            (book.book.concepts, book.book.signatures, book.book.attributes)
        )


def verified(out: Path, file: str) -> object:
    """Return what a file holds if `encyclo verify` finds nothing in the run; the layout of JSON doesn't count."""
    for problem in verify(out).findings:
        raise DamagedError(str(problem))
    if not (out / file).exists() and file.startswith(("metrics.json", "rounds/")):
        raise DamagedError("Without it the run isn't finished, or its rounds are decided anew.")
    content = (out / file).read_bytes()
    return json.loads(content) if file.endswith(".json") else content


@pytest.mark.parametrize("count", [600, pytest.param(20_000, marks=pytest.mark.slow)])
def test_damaged_and_foreign_files_are_refused(
    store: str, whole: Path, another: Path, tmp_path: Path, count: int
):
    """The contract of stores damages 1,000 more files of parts, records and encyclopedias."""
    files = sorted(str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file())
    # Only a browser reads the report.
    files = [name for name in files if name != "report.html" and not name.startswith(".lock")]
    check_mutations(opened, whole, tmp_path, count, files=files, other=another)


@pytest.mark.parametrize("count", [400, pytest.param(5_000, marks=pytest.mark.slow)])
def test_verify_notices_every_damaged_or_foreign_file(
    store: str, whole: Path, another: Path, tmp_path: Path, count: int
):
    check_mutations(verified, whole, tmp_path, count, other=another)
