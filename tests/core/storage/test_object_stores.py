"""Runs on object stores: equal to local ones, whatever the store answers, whoever dies, and nobody's secrets shown."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import encyclo
from encyclo.cli import run_command
from encyclo.errors import MissingDependencyError, RunDirectoryError, StoreError, UsageError
from encyclo.maintenance.verify import verify
from encyclo.plugins.manager import Plugins
from encyclo.runs.directory import read_record
from encyclo.runs.reopen import reopen_store
from encyclo.storage import files, lease
from encyclo.storage.ledger import Ledger, Unit
from encyclo.storage.object_errors import reason
from encyclo.storage.objects import Found, Objects, url_of
from encyclo.storage.run_location import fetched, opened
from encyclo.storage.working_copy import WorkingCopy
from tests import fast_plugin
from tests.commands import one_sentence
from tests.object_store import DROP, SECRET, Proxy, once_each, served
from tests.patience import wait_until

pytest.importorskip("obstore")
LIMIT = 3


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("site")
    fast_plugin.install(folder)
    sys.path.append(str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def s3() -> Iterator[Proxy]:
    pytest.importorskip("moto")
    with served() as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCYCLO_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=["file", "memory", "s3"])
def url(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder of an object store that nothing else uses."""
    if request.param != "s3":
        return (
            f"{request.param}://{tmp_path}/bucket/run"
            if request.param == "file"
            else f"memory://{tmp_path.name}/run"
        )
    return on_s3(request.getfixturevalue("s3"), tmp_path, monkeypatch)


def on_s3(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in proxy.environment.items():
        monkeypatch.setenv(name, value)
    proxy.fault = lambda method, path: None
    proxy.requests.clear()
    return f"s3://bucket/{tmp_path.name}/run"


@pytest.fixture(scope="module")
def whole(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert go(out) == 0
    return out


def arguments(out: Path | str) -> list[str]:
    return [*fast_plugin.FLAGS, str(out), "--store", "zarr", "--limit", str(LIMIT)]


def go(out: Path | str) -> int:
    return run_command(arguments(out))


def manifest(run: Path | str) -> dict[str, object]:
    """Return what must not depend on where a run is: its units, and the encyclopedia's samples and figures."""
    folder = fetched(run, parts=True)
    units = {c.unit: (c.rows, c.checksum, c.crc32, c.columns, c.prompts) for c in Ledger(folder).ordered()}
    with encyclo.open(run) as book:
        samples = book.samples().checksum()
        signatures = book.book.signatures.mean.tobytes()
    accuracy = json.loads((folder / "metrics.json").read_text())["accuracy"]
    return {"units": units, "samples": samples, "signatures": signatures, "accuracy": accuracy}


def names(url: str) -> set[str]:
    return set(Objects(url).list())


def check_equal(url: str, whole: Path) -> None:
    """Nothing is lost, nothing is twice, and nothing but a run's own files is left."""
    assert manifest(url) == manifest(whole)
    assert verify(url).findings == []
    local = {path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file()} - {".lock"}
    assert {name for name in names(url) if not name.startswith("parts/")} == {
        name for name in local if not name.startswith("parts/")
    }
    assert len([name for name in names(url) if name.startswith("parts/")]) == LIMIT


def test_a_run_equals_a_local_one(url: str, whole: Path, capsys):
    assert go(url) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["out"] == url
    check_equal(url, whole)
    before = Objects(url).list()
    assert go(url) == 0  # it is finished
    assert Objects(url).list() == before


def test_every_command_takes_a_url(whole: Path, s3: Proxy, tmp_path: Path, monkeypatch, capsys):
    url = on_s3(s3, tmp_path, monkeypatch)
    assert go(url) == 0
    for command in (
        ["show", url, "name 1"],
        ["report", url],
        ["converge", url],
        ["evaluate", url],
    ):
        assert run_command(command) == 0, command
    assert "convergence.json" in names(url)
    assert run_command(["export", url, "--out", str(tmp_path / "vectors")]) == 0
    assert run_command(["convert", url, "--store", "hdf5", "--out", str(tmp_path / "copy")]) == 0
    assert run_command(["convert", str(tmp_path / "copy"), "--store", "zarr", "--out", f"{url}2"]) == 0
    assert run_command(["plan", *arguments(url)[1:]]) == 0
    assert verify(tmp_path / "copy").findings == verify(f"{url}2").findings == verify(url).findings == []
    assert manifest(f"{url}2")["samples"] == manifest(whole)["samples"]
    assert f"{url} is now in" in (said := capsys.readouterr().out) and f"in {url}2" in said
    assert str(tmp_path / "cache") not in said
    assert "; download it and open it in a browser" in said


def test_the_tiny_model_writes_and_reads(tiny_flags, s3: Proxy, tmp_path: Path, monkeypatch, capsys):
    url = on_s3(s3, tmp_path, monkeypatch)
    flags = [
        "run",
        "--sampler",
        "templates",
        "--limit",
        "6",
        "--per-concept",
        "4",
        "--store",
        "zarr",
        *tiny_flags,
    ]
    flags += ["--interpreter", "centroid", "--out"]
    assert run_command([*flags, str(tmp_path / "local")]) == 0
    s3.fault = once_each(503, lambda method, path: method == "PUT")
    assert run_command([*flags, url]) == 0
    assert manifest(url) == manifest(tmp_path / "local")
    capsys.readouterr()
    assert run_command(["read", url, "an otter", "--json", "--any-word"]) == 0
    remote = json.loads(capsys.readouterr().out)
    assert run_command(["read", str(tmp_path / "local"), "an otter", "--json", "--any-word"]) == 0
    assert remote["tokens"] == json.loads(capsys.readouterr().out)["tokens"]
    with encyclo.open(url) as book:
        assert len(book) == 6 and url in repr(book)


FAULTS = {
    "503": lambda: once_each(503, lambda method, path: True),
    "409": lambda: once_each(
        409, lambda method, path: method == "PUT" and ("/commits/" in path or "rounds" in path)
    ),
    "a lost answer": lambda: once_each(DROP, lambda method, path: True),
    "slow": lambda: lambda method, path: 0.02,
}


@pytest.mark.parametrize("kind", FAULTS)
def test_whatever_the_store_answers(kind: str, whole: Path, s3: Proxy, tmp_path: Path, monkeypatch):
    url = on_s3(s3, tmp_path, monkeypatch)
    s3.fault = FAULTS[kind]()
    assert go(url) == 0
    check_equal(url, whole)


def killed_at(proxy: Proxy, request: int, command: list[str], site: Path, most: int = 60) -> None:
    """Kill the command with SIGKILL when it makes its n-th write, before or after this is carried out.

    It makes at least `most` writes: a run makes some 70.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(site)])}
    log = site / f"{uuid.uuid4().hex}.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "encyclo", *command],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
    writes = iter(range(1, 1000))

    def fault(method: str, path: str) -> object:
        if method == "PUT" and "lease" not in path and next(writes) == request:
            process.send_signal(signal.SIGKILL)
            return DROP if request % 2 else 503
        return None

    proxy.fault = fault
    wait_until(
        lambda: process.poll() is not None,
        lambda: sum("lease" not in path for _, path in proxy.requests),  # that is renewed whatever happens
        log.read_text,
    )
    assert process.returncode == (-signal.SIGKILL if request < most else process.returncode), log.read_text()
    proxy.fault = lambda method, path: None


@pytest.mark.parametrize(
    "request_number", [3, 8, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 95, 5))]
)
def test_a_killed_run_goes_on(
    request_number: int, whole: Path, site: Path, s3: Proxy, tmp_path: Path, monkeypatch
):
    url = on_s3(s3, tmp_path, monkeypatch)
    killed_at(s3, request_number, arguments(url), site)
    assert go(url) == 0
    check_equal(url, whole)
    # Another machine has no copy of it.
    monkeypatch.setenv("ENCYCLO_CACHE", str(tmp_path / "elsewhere"))
    assert go(url) == 0
    check_equal(url, whole)


def test_a_killed_run_goes_on_elsewhere(whole: Path, site: Path, s3: Proxy, tmp_path: Path, monkeypatch):
    url = on_s3(s3, tmp_path, monkeypatch)
    killed_at(s3, 6, arguments(url), site)
    monkeypatch.setenv("ENCYCLO_CACHE", str(tmp_path / "elsewhere"))
    assert go(url) == 0
    check_equal(url, whole)


@pytest.mark.parametrize(
    "request_number", [1, 2, 9, *(pytest.param(n, marks=pytest.mark.slow) for n in range(3, 60, 3))]
)
def test_a_killed_convert_is_done_anew(
    request_number: int, whole: Path, site: Path, s3: Proxy, tmp_path: Path, monkeypatch, capsys
):
    url = on_s3(s3, tmp_path, monkeypatch)
    command = ["convert", str(whole), "--store", "zarr", "--out", url]
    killed_at(s3, request_number, command, site, most=20)
    if "run.json" not in names(url):
        monkeypatch.setenv("ENCYCLO_CACHE", str(tmp_path / "elsewhere"))  # as on another machine
        assert run_command(command) == 0, capsys.readouterr().err
    else:
        assert run_command(command) == 2  # it is whole
    check_equal(url, whole)


def test_what_a_killed_convert_did_not_write_is_left_alone(url: str, site: Path, capsys):
    objects = Objects(url)
    objects.put(".copying", json.dumps(["metrics.json", "../outside", "rounds/0/plan.json"]).encode())
    for name in ("metrics.json", "somebody/else"):
        objects.put(name, b"1")
    assert go(url) == 2
    assert "holds other files" in one_sentence(capsys.readouterr().err)
    assert names(url) == {"somebody/else"}


def test_commit_records_are_uploaded_once(site: Path, s3: Proxy, tmp_path: Path, monkeypatch):
    """Also those that workers in other processes wrote."""
    url = on_s3(s3, tmp_path, monkeypatch)
    assert run_command([*arguments(url), "-o", "local.workers=2"]) == 0
    puts = [path for method, path in s3.requests if method == "PUT" and "/commits/" in path]
    assert len(puts) == len(set(puts)) == LIMIT


def test_objects_are_deleted_together(s3: Proxy, tmp_path: Path, monkeypatch):
    url = on_s3(s3, tmp_path, monkeypatch)
    with opened(url) as folder:
        files.make_folder(folder / "interpreter")
        for number in range(5):
            files.write_text(folder / "interpreter" / f"{number}.json", "{}")
        files.write_text(folder / "run.json", "{}")
        s3.requests.clear()
        files.remove(folder / "interpreter")
        assert [method for method, path in s3.requests if "lease" not in path] == ["POST"]
    assert names(url) == {"run.json"}


def test_the_first_of_two_attempts_wins(url: str, whole: Path, tmp_path: Path):
    """Two workers commit one unit; the second one takes the first one's commit, and its own part is removed."""
    record, plugins = read_record(whole), Plugins()
    known = Ledger(whole).ordered()[0]
    part = reopen_store(whole, record, plugins).read_part(known.part)
    unit, commits = Unit(known.unit, known.stage, ()), []
    for worker in ("a", "b"):
        copy = WorkingCopy(Objects(url), tmp_path / worker)
        with files.using(copy):
            ledger = Ledger(copy.root)
            ledger.create()
            commits.append(ledger.store(reopen_store(copy.root, record, plugins), unit, part, 0.5, 1, 1))
            ledger.check_files(commits[-1])
    assert commits[0] == commits[1]
    other = WorkingCopy(Objects(url), tmp_path / "d")  # another machine, which waits for the unit
    other.fetch(other.root / "commits" / "unknown.json")
    other.fetch(other.root / "commits" / f"{unit.id}.json")
    Ledger(other.root).check_files(Ledger(other.root).commits()[unit.id])
    assert not list(other.root.rglob(".tmp-*"))
    assert names(url) == {f"commits/{unit.id}.json", *(f"parts/{name}" for name in commits[0].files)}
    # A process that lost its lease committed a part that has been removed since: the commit is void.
    Objects(url).delete(f"parts/{name}" for name in commits[0].files)
    copy = WorkingCopy(Objects(url), tmp_path / "c")
    with files.using(copy):
        ledger = Ledger(copy.root)
        ledger.create()
        again = ledger.store(reopen_store(copy.root, record, plugins), unit, part, 0.5, 1, 1)
    assert again.attempt != commits[0].attempt
    assert names(url) == {f"commits/{unit.id}.json", *(f"parts/{name}" for name in again.files)}


def test_a_record_that_another_process_copies_at_once_is_its_writer_s(tmp_path: Path):
    """Between the record's creation in the store and in the copy, another worker of the machine sees it."""

    class Seen(Objects):
        def create(self, name: str, content: bytes) -> str | None:
            created = super().create(name, content)
            WorkingCopy(Objects(self.url), folder).fetch(folder / name)
            return created

    url, folder = f"file://{tmp_path}/bucket/run", tmp_path / "copy" / "run"
    with files.using(WorkingCopy(Seen(url), folder)):
        files.make_folder(folder / "commits")
        assert files.create_json(folder / "commits" / "unit.json", {"by": "its writer"})
        assert not files.create_json(folder / "commits" / "unit.json", {"by": "another"})
    assert json.loads((folder / "commits" / "unit.json").read_text()) == {"by": "its writer"}


def test_a_record_comes_after_its_part(tmp_path: Path):
    """A process that dies between the two leaves no record without its part."""

    class Broken(Objects):
        def blocks(self, name: str) -> Iterator[bytes]:
            if name.startswith("parts/"):
                raise OSError("the network is gone")
            return super().blocks(name)

    objects = Broken(f"file://{tmp_path}/bucket/run")
    objects.put("parts/a.zarr.zip", b"1")
    objects.put("commits/unit.json", json.dumps({"files": {"a.zarr.zip": {}}}).encode())
    copy = WorkingCopy(objects, tmp_path / "copy" / "run")
    with pytest.raises(OSError, match="the network is gone"):
        copy.fetch(copy.root / "commits" / "unit.json")
    assert not (copy.root / "commits" / "unit.json").exists()


def test_a_run_may_take_the_place_of_one_that_was_removed(whole: Path, tmp_path: Path):
    url = f"file://{tmp_path}/bucket/run"
    assert go(url) == 0
    Objects(url).delete(names(url))
    assert go(url) == 0
    check_equal(url, whole)


def test_reading_run_json_alone_keeps_what_is_known_of_the_copy(tmp_path: Path):
    objects = Objects(f"file://{tmp_path}/bucket/run")
    objects.put("run.json", b"{}")
    objects.put("metrics.json", b"{}")
    before = (fetched(objects.url) / "metrics.json").stat()
    fetched(objects.url, record=True)
    after = (fetched(objects.url) / "metrics.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_one_process_at_a_time(url: str, tmp_path: Path, monkeypatch):
    with opened(url):
        with pytest.raises(RunDirectoryError, match="in use by another process of this machine"):
            with opened(url):
                pass
        monkeypatch.setenv("ENCYCLO_CACHE", str(tmp_path / "elsewhere"))
        if not url.startswith("memory"):
            with pytest.raises(RunDirectoryError, match=f"in use by process {os.getpid()} on"):
                with opened(url):
                    pass
    assert names(url) == set()
    with opened(url):
        pass


WORKER = """
import sys
import time
from pathlib import Path
from encyclo.storage import files
from encyclo.storage.run_location import join
folder = join(Path(sys.argv[1]), sys.argv[2], len(sys.argv) == 3)
files.make_folder(folder / "commits")
files.create_json(folder / "commits" / "unit.json", {"by": "the worker"})
if len(sys.argv) > 3:
    print(folder, flush=True)
    time.sleep(60)
"""


def test_a_worker_process_writes_into_the_store(tmp_path: Path):
    url = f"file://{tmp_path}/bucket/run"
    with opened(url) as folder:
        files.make_folder(folder / "commits")
        files.write_text(folder / "run.json", "{}")
        subprocess.run([sys.executable, "-c", WORKER, str(folder), url], check=True)
        assert {name for name in names(url) if not name.startswith(".")} == {"commits/unit.json", "run.json"}
        assert (folder / "commits" / "unit.json").is_file()
    (tmp_path / "plain" / "commits").mkdir(parents=True)
    subprocess.run([sys.executable, "-c", WORKER, str(tmp_path / "plain"), ""], check=True)
    assert [path.name for path in (tmp_path / "plain").rglob("*.json")] == ["unit.json"]


def test_a_killed_worker_s_own_copy_is_removed_by_the_next_one(tmp_path: Path):
    """Workers on another machine: each has a folder of its own, and an engine may give it no time to remove it."""
    url = f"file://{tmp_path}/bucket/run"
    Objects(url).put("run.json", b"{}")
    environment = {**os.environ, "TMPDIR": str(tmp_path)}

    def worker() -> tuple[subprocess.Popen[str], Path]:
        command = [sys.executable, "-c", WORKER, str(tmp_path / "unseen"), url, "elsewhere"]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip()).parent
        os.utime(folder, (1, 1))
        return process, folder

    (dead, left), (living, kept) = worker(), worker()
    dead.kill()
    dead.communicate()
    last, own = worker()
    assert (left.exists(), kept.exists(), own.exists()) == (False, True, True)
    for process in (living, last):
        process.kill()
        process.communicate()


def test_a_dead_lease_expires(url: str, monkeypatch):
    objects = Objects(url)
    there = {**OTHER, "until": time.time() + 60}
    objects.create(".lease/000004", json.dumps(there).encode())
    with pytest.raises(RunDirectoryError, match=r"in use by process 7 on elsewhere; .* expires in \d+ s"):
        with opened(url):
            pass
    objects.put(".lease/000004", json.dumps({**there, "until": time.time() - 1}).encode())
    with opened(url):
        assert names(url) == {".lease/000005"}
    assert names(url) == set()


class Between(Objects):
    """Lets another process act after an object was read, and before it is written in the version that was read."""

    def __init__(self, url: str, act: Callable[[], object]) -> None:
        super().__init__(url)
        self.act = act

    def replace(self, name: str, content: bytes, version: dict[str, str]) -> bool:
        self.act()
        return super().replace(name, content, version)


OTHER = {"owner": "x", "host": "elsewhere", "process": 7, "began": 1.0}


@pytest.mark.parametrize("url", ["memory", "s3"], indirect=True)
def test_a_lease_that_another_process_took_is_not_overwritten(url: str, monkeypatch):
    """It took over between this process's look at the lease and its renewal."""
    monkeypatch.setattr(lease, "RENEWED", 0.05)
    other = json.dumps({**OTHER, "until": time.time() + 60}).encode()
    held = lease.Lease(Between(url, lambda: Objects(url).put(".lease/000001", other)))
    wait_until(lambda: not held._thread.is_alive(), lambda: None, lambda: "it was renewed")
    with pytest.raises(StoreError, match="another process has taken over"):
        held.check()
    held.release()
    assert Objects(url).read(".lease/000001") == other


@pytest.mark.parametrize("url", ["memory", "s3"], indirect=True)
def test_an_expired_lease_that_is_renewed_is_not_taken(url: str):
    """Its process was cut off, and is back between another one's look at the lease and its own."""
    renewed = json.dumps({**OTHER, "until": time.time() + 60}).encode()
    Objects(url).put(".lease/000004", json.dumps({**OTHER, "until": time.time() - 1}).encode())
    with pytest.raises(RunDirectoryError, match="has just begun or renewed its lease"):
        lease.Lease(Between(url, lambda: Objects(url).put(".lease/000004", renewed)))
    assert Objects(url).read(".lease/000004") == renewed and names(url) == {".lease/000004"}


def test_an_object_is_replaced_only_in_the_version_that_was_read(s3: Proxy, tmp_path: Path, monkeypatch):
    objects = Objects(on_s3(s3, tmp_path, monkeypatch))
    objects.put("a", b"1")
    content, version = objects.read_version("a")
    assert content == b"1"
    s3.fault = once_each(DROP, lambda method, path: method == "PUT")
    assert objects.replace("a", b"2", version)  # obstore tries again, and is told that the object was changed
    assert not objects.replace("a", b"3", version) and objects.read("a") == b"2"
    objects.delete(["a"])
    assert not objects.replace("a", b"3", version) and not objects.has("a")


def until_the_lease_is_lost(take: Callable[[], object]) -> None:
    """Its thread ends then; on a disk, one that is just renewing it may write over what `take` wrote."""
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "encyclo lease"]
    for _ in range(30):
        take()
        thread.join(1)
        if not thread.is_alive():
            return
    pytest.fail("the lease was not lost")


def test_who_lost_the_lease_writes_nothing_more(url: str, monkeypatch):
    monkeypatch.setattr(lease, "RENEWED", 0.05)
    with pytest.raises(StoreError, match="another process has taken over; run the same command again"):
        with opened(url) as folder:
            folder.mkdir(exist_ok=True)
            until_the_lease_is_lost(lambda: Objects(url).create(".lease/000002", b"{}"))
            files.write_text(folder / "run.json", "{}")
    assert names(url) == {".lease/000002"}


def test_a_lease_of_the_same_number_is_another_one(url: str, monkeypatch):
    """A process that slept wakes up after others have taken its lease, released it and begun again."""
    monkeypatch.setattr(lease, "RENEWED", 0.05)
    objects = Objects(url)
    other = {**OTHER, "until": time.time() + 60}
    with pytest.raises(StoreError, match="another process has taken over"):
        with opened(url) as folder:
            folder.mkdir(exist_ok=True)
            until_the_lease_is_lost(lambda: objects.put(".lease/000001", json.dumps(other).encode()))
            files.write_text(folder / "run.json", "{}")
    assert json.loads(objects.read(".lease/000001")) == other


def test_a_store_that_can_not_be_a_file_by_file_copy_is_refused(url: str, site: Path, capsys):
    assert run_command([*fast_plugin.FLAGS, url]) == 2
    assert one_sentence(capsys.readouterr().err) == (
        f"A run with the store hdf5 can't be on an object store ({url}); use --store zarr."
    )
    assert names(url) == set()


def test_other_objects_are_left_alone(url: str, site: Path, capsys):
    Objects(url).put("somebody/else", b"1")
    assert go(url) == 2
    refused = one_sentence(capsys.readouterr().err)
    assert f"--out {url} holds other files and no run.json" in refused
    assert run_command(["plan", *fast_plugin.FLAGS[1:], url, "--store", "zarr"]) == 2
    assert one_sentence(capsys.readouterr().err) == refused
    with pytest.raises(RunDirectoryError, match="is not a run of encyclo"):
        encyclo.open(url)
    assert names(url) == {"somebody/else"}


@pytest.mark.parametrize(
    "given",
    [
        "s3://me:hunter2@bucket/run",
        "s3://bucket/run?token=hunter2",
        "s3://hunter2@bucket/run",
        "az://b/run#hunter2",
    ],
)
def test_a_url_with_a_secret_is_refused_without_it(
    given: str, site: Path, capsys, tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert go(given) == 2
    said = one_sentence(capsys.readouterr().err)
    assert "no user, password, query or fragment" in said and "hunter2" not in said
    assert list(tmp_path.iterdir()) == []


def test_which_paths_are_urls(tmp_path: Path):
    assert url_of(tmp_path) is None and url_of("run") is None and url_of(Path("C:/run")) is None
    assert url_of(Path("s3://bucket/a/run/")) == url_of("s3://bucket/a/run") == "s3://bucket/a/run"
    assert url_of(Path(f"file://{tmp_path}")) == f"file://{tmp_path}"
    for bad in ("s3://bucket", "s3://bucket/../run", "s3://"):
        with pytest.raises(UsageError, match="names no folder in a bucket"):
            url_of(bad)
    with pytest.raises(UsageError, match="no object store that encyclo knows"):
        url_of("ftp://host/run")


def test_a_reason_is_short_and_holds_no_credentials():
    text = (
        "Generic MicrosoftAzure error: Error performing PUT https://me:hunter2@host/b/run.json?sig=hunter2 in 1.1s, after 6 "
        "retries, max_retries: 6, retry_timeout: 120s  - HTTP error: error sending request\n\nDebug source: hunter2"
    )
    assert reason(OSError(text)) == (
        "the object store could not be used (Error performing PUT https://host/b/run.json - HTTP error: error sending request)"
    )


def test_reading_makes_no_folder(tmp_path: Path):
    with pytest.raises(StoreError, match=f"Can't read file://{tmp_path}/bucket/none: "):
        encyclo.open(f"file://{tmp_path}/bucket/none")
    assert not (tmp_path / "bucket").exists()


def test_plan_takes_a_folder_that_run_would_make(site: Path, tmp_path: Path, capsys):
    url = f"file://{tmp_path}/bucket/new/run"
    assert run_command(["plan", *arguments(url)[1:]]) == 0
    assert not (tmp_path / "bucket").exists()
    (tmp_path / "bucket").write_text("a file")
    assert run_command(["plan", *arguments(url)[1:]]) == 2
    assert f"--out {tmp_path}/bucket/new/run can't be made" in one_sentence(capsys.readouterr().err)


def test_plan_sees_the_run_that_is_there(site: Path, tmp_path: Path, capsys):
    url = f"file://{tmp_path}/bucket/run"
    assert go(url) == 0
    assert run_command(["plan", *arguments(url)[1:], "--seed", "7"]) == 2
    assert "seed" in one_sentence(capsys.readouterr().err)


def test_a_worker_s_own_copy_has_the_parts_that_it_needs(s3: Proxy, tmp_path: Path, monkeypatch):
    """They are copied at the same time: each answer waits for the other request."""
    url = on_s3(s3, tmp_path, monkeypatch)
    for name in ("run.json", "commits/a.json", "parts/a.zarr.zip", "parts/b.zarr.zip", "parts/c.zarr.zip"):
        Objects(url).put(name, b"{}")
    copy = WorkingCopy(Objects(url), tmp_path / "own" / "run", alone=True)
    copy.refresh()
    assert (copy.root / "commits" / "a.json").exists() and not (copy.root / "parts").exists()
    both = threading.Barrier(2)

    def together(method: str, path: str) -> object:
        if method == "GET" and "/parts/" in path:
            both.wait(60)
        return None

    s3.fault = together
    copy.fetch_parts(["a.zarr.zip", "c.zarr.zip"])
    assert sorted(path.name for path in (copy.root / "parts").iterdir()) == ["a.zarr.zip", "c.zarr.zip"]
    s3.fault = lambda method, path: 403
    copy.fetch_parts(["a.zarr.zip"])  # it is here


def test_without_the_extra(site: Path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    assert go("s3://bucket/run") == MissingDependencyError.exit_code
    assert "pip install 'encyclo[objects]'" in one_sentence(capsys.readouterr().err)


def test_credentials_are_in_no_message_and_no_file(
    s3: Proxy, site: Path, tmp_path: Path, monkeypatch, capsys
):
    url = on_s3(s3, tmp_path, monkeypatch)
    assert go(url) == 0
    for name in names(url):
        content = Objects(url).read(name)
        assert SECRET.encode() not in content and b"AKIA" not in content, name
    s3.fault = lambda method, path: 403
    capsys.readouterr()
    assert go(url) == 1
    said = one_sentence(capsys.readouterr().err)
    assert said.startswith(
        f"Can't use {url}: the object store answered 403 Forbidden; check AWS_ACCESS_KEY_ID"
    )
    assert "AKIA" not in said and SECRET not in said


def test_verify_lists_and_prune_removes_what_no_commit_names(whole: Path, tmp_path: Path, capsys):
    url = f"file://{tmp_path}/bucket/run"
    assert go(url) == 0
    Objects(url).put("parts/0-dead.zarr.zip", b"1")
    capsys.readouterr()
    assert run_command(["verify", url]) == 1
    assert (
        f"parts/0-dead.zarr.zip: no commit names this part: a killed process left it, or a running one is writing it; "
        f"`encyclo verify {url} --prune` removes it."
    ) in capsys.readouterr().out
    assert run_command(["verify", url, "--prune"]) == 0
    check_equal(url, whole)


def test_verify_reads_the_store_not_the_copy(site: Path, tmp_path: Path):
    url = f"file://{tmp_path}/bucket/run"
    assert go(url) == 0
    assert (
        verify(url).findings == verify(tmp_path / "bucket" / "run").findings == []
    )  # copied, it is a local run
    name = min(name for name in names(url) if name.startswith("parts/"))
    content = bytearray(Objects(url).read(name))
    content[len(content) // 2] ^= 1
    Objects(url).put(name, bytes(content))
    assert [finding.where for finding in verify(url).findings] == [f"part {name[6:].partition('.')[0]}"]


def test_names_that_lead_out_of_the_copy_are_not_followed(tmp_path: Path):
    copy = WorkingCopy(Objects("memory://strangers/run"), tmp_path / "copy")
    outside = Found(1, "x")
    copy.pull({"../../evil": outside, "/evil": outside, "a\\..\\evil": outside}, lambda name: True)
    assert not list(tmp_path.rglob("*evil*"))


def test_odd_names_come_back(url: str, tmp_path: Path):
    """A plugin may name its files as it likes."""
    odd = "plugins/x/a b%20ü#?+*[1]~.txt"
    with opened(url) as folder:
        (folder / odd).parent.mkdir(parents=True)
        (folder / odd).write_text("kept")
        files.write_text(folder / "run.json", "{}")
    assert (fetched(url) / odd).read_text() == "kept"
    with opened(url) as folder:
        assert (folder / odd).read_text() == "kept"
        (folder / odd).unlink()
    assert names(url) == {"run.json"}


def activations_of(url: str) -> list[str]:
    return sorted(name for name in names(url) if "/activations/c." in name)


def test_activations_come_when_they_are_read(url: str, whole: Path, capsys, monkeypatch):
    assert go(url) == 0
    (name,) = activations_of(url)
    content = Objects(url).read(name)
    here = fetched(url) / name
    assert here.stat().st_size == len(content) and here.read_bytes() != content
    with encyclo.open(url) as book, encyclo.open(whole) as local:
        assert here.read_bytes() != content and book.entry("name 1").signature.any()
        assert book.samples("name 1").checksum() == local.samples("name 1").checksum()
        assert here.read_bytes() == content
    before = here.stat()
    assert (fetched(url) / name).stat().st_ino == before.st_ino  # it stays
    Objects(url).delete([name])
    Objects(url).put(name, content[:-1])
    fetched(url)
    assert here.stat().st_size == len(content) - 1


def test_ranges_are_read_a_piece_at_a_time(tmp_path: Path, monkeypatch):
    """Also those of a file with many of them, which are close to each other."""
    monkeypatch.setattr("encyclo.storage.objects.PIECE", 100)
    objects, content = Objects(f"file://{tmp_path}/bucket/run"), os.urandom(1000)
    objects.put("a", content)
    ranges = [(3, 7), (8, 20), (90, 110), (150, 460), (999, 1000)]
    pieces = list(objects.ranges("a", ranges))
    assert all(content[start : start + len(piece)] == piece for start, piece in pieces)
    assert max(len(piece) for _, piece in pieces) == 100
    found = [at for start, piece in pieces for at in range(start, start + len(piece))]
    assert found == [at for start, end in ranges for at in range(start, end)]


def test_activations_that_can_not_be_brought(site: Path, s3: Proxy, tmp_path: Path, monkeypatch):
    url = on_s3(s3, tmp_path, monkeypatch)
    assert go(url) == 0
    with encyclo.open(url) as book:
        s3.fault = lambda method, path: 403
        with pytest.raises(
            StoreError, match=f"^Can't read {url}: the object store answered 403 Forbidden; check AWS_"
        ):
            book.samples()
        s3.fault = lambda method, path: None
        assert len(book.samples())
    assert verify(url).findings == []


def test_two_processes_share_a_copy_whose_activations_come_later(site: Path, tmp_path: Path):
    url = f"file://{tmp_path}/bucket/run"
    assert go(url) == 0
    with encyclo.open(url) as first:
        assert run_command(["export", url, "--out", str(tmp_path / "export")]) == 0
        with encyclo.open(url) as second:
            assert second.samples().checksum() == first.samples().checksum()
    assert manifest(url)["samples"]


def test_zarr_reads_the_encyclopedia_in_place(site: Path, s3: Proxy, tmp_path: Path, monkeypatch):
    url = on_s3(s3, tmp_path, monkeypatch)
    import zarr
    from zarr.storage import ObjectStore

    assert go(url) == 0
    objects = Objects(url)
    root = zarr.open_group(
        ObjectStore(objects._store, read_only=True), path=f"{objects._prefix}encyclopedia.zarr", mode="r"
    )
    with encyclo.open(url) as book:
        assert root["concepts/name"][...].tolist() == book.concepts
