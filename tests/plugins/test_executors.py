"""Runs with several workers equal a run with one, unit for unit, whatever dies, waits or comes twice."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from encyclo.maintenance.verify import verify
from encyclo.runs.directory import check_same, read_record
from encyclo.storage.ledger import Ledger
from encyclo.storage.run_location import fetched
from encyclo_executors.shares import cores_each
from tests import unit_faults
from tests.commands import one_sentence
from tests.object_store import served
from tests.patience import wait_until

KINDS = ("local", "ray", "slurm")
RUNS = [
    pytest.param(kind, number, marks=[pytest.mark.slow] if number >= (1 if kind == "slurm" else 2) else [])
    for number in range(20)
    for kind in KINDS
]
TIMES = [*range(2), *(pytest.param(number, marks=pytest.mark.slow) for number in range(2, 20))]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which the plugins of `unit_faults` are installed."""
    folder = tmp_path_factory.mktemp("site")
    unit_faults.install(folder)
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([str(folder), root, os.environ.get("PYTHONPATH", "")])
    faults = tmp_path_factory.mktemp("faults")
    ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return {**os.environ, **ray, "PYTHONPATH": path, "UNIT_FAULTS": str(faults), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def cluster(site: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Ray on this machine, which the tests of this module share."""
    pytest.importorskip("ray")
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--port=0", "--num-cpus=4",
        "--node-ip-address=127.0.0.1",
        "--include-dashboard=false", "--object-store-memory=100000000", "--disable-usage-stats",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="ray") as folder:  # its sockets' paths must be short
        log = tmp_path_factory.mktemp("log") / "ray"
        with log.open("w") as output:
            head = subprocess.Popen(
                [*command, f"--temp-dir={folder}"], stdout=output, stderr=output, env=site
            )
        until = time.monotonic() + 60
        while not (found := re.search(r"--address='([^']+)'", log.read_text())):
            assert head.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        yield found[1]
        family = psutil.Process(head.pid).children(recursive=True)
        head.terminate()
        head.wait(30)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.fixture
def faults(site: dict[str, str]) -> Iterator[Path]:
    """The folder that says which units go wrong; empty at the start and at the end."""
    folder = Path(site["UNIT_FAULTS"])
    yield folder
    for path in folder.iterdir():
        path.unlink()


@pytest.fixture(params=KINDS)
def workers(request: pytest.FixtureRequest) -> list[str]:
    """The flags of a run with two workers of each kind."""
    if request.param == "local":
        return ["-o", "local.workers=2"]
    if request.param == "slurm":
        return ["--executor", "slurm", "-o", "slurm.cluster=local"]
    address = request.getfixturevalue("cluster")
    return ["--executor", "ray", "-o", "ray.workers=2", "-o", f"ray.address={address}"]


@pytest.fixture(scope="module")
def expected(site: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[object, ...]]:
    """The manifest of a run with one worker."""
    out = tmp_path_factory.mktemp("alone") / "run"
    assert ended(start(site, out), out) == 0, said(out)
    found = manifest(out)
    assert len(found) == 24 and sum(rows for rows, *_ in found.values()) > 100
    return found


def start(site: dict[str, str], out: Path, *flags: str, url: str | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "encyclo", *unit_faults.FLAGS, url or str(out), *flags]
    with out.with_suffix(".log").open("a") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, text=True, env=site)


def said(out: Path) -> str:
    return out.with_suffix(".log").read_text()


def manifest(out: Path) -> dict[str, tuple[object, ...]]:
    """Return what each committed unit holds; assert that nothing else lies there."""
    commits = Ledger(out).commits()
    parts = sorted(path.name.split(".")[0] for path in (out / "parts").iterdir())
    assert parts == sorted(commit.part for commit in commits.values() if commit.rows)
    assert not (out / ".workers").exists()
    return {
        unit: (c.rows, c.checksum, c.prompts, c.columns, c.stage, c.sampler) for unit, c in commits.items()
    }


def assert_equals(out: Path, expected: dict[str, tuple[object, ...]], run: subprocess.Popen[str]) -> None:
    assert ended(run, out) == 0, said(out)
    assert manifest(out) == expected
    assert (out / "metrics.json").exists()


def progress(out: Path) -> tuple[int, int]:
    """Return what grows while a run gets on: its messages, and the files of the run or of its copies."""
    return len(said(out)), sum(len(names) for _, _, names in os.walk(out.parent))


def ended(run: subprocess.Popen[str], out: Path) -> int | None:
    """Wait for a command's end, as long as it gets on; return its exit code."""
    wait_until(lambda: run.poll() is not None, lambda: progress(out), lambda: said(out))
    return run.returncode


def until(condition: Callable[[], object], process: subprocess.Popen[str], out: Path) -> None:
    """Wait for a condition, as long as the run gets on and has not ended."""

    def reached() -> object:
        found = condition()
        assert found or process.poll() is None, said(out)
        return found

    wait_until(reached, lambda: progress(out), lambda: said(out))


def is_alive(number: int) -> bool:
    return psutil.pid_exists(number) and psutil.Process(number).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(("workers", "time_"), RUNS, indirect=["workers"])
def test_a_worker_killed_and_a_commit_delayed_change_nothing(
    site, faults: Path, workers, expected, tmp_path: Path, time_: int
):
    """The first unit commits after the others; another unit's worker is killed in the middle of it."""
    (faults / "c0").write_text("wait")
    (faults / f"c{3 + time_ % 6}").write_text("die")
    out = tmp_path / "run"
    assert_equals(out, expected, start(site, out, *workers))
    assert [path.name for path in faults.iterdir()] == ["c0"]
    assert "Sampling and capturing: 24,000 of 24,000" not in said(
        out
    )  # what was captured, not what was wanted


@pytest.mark.parametrize(("workers", "time_"), RUNS, indirect=["workers"])
def test_the_same_command_goes_on_after_the_driver_was_killed(
    site, faults: Path, workers, expected, tmp_path: Path, time_: int
):
    """A worker is in the middle of a unit then; it ends before the next command touches what it writes."""
    (faults / f"c{2 + time_ % 8}").write_text("hold")
    out = tmp_path / "run"
    first = start(site, out, *workers)
    until((faults / "held").exists, first, out)
    until(lambda: len(list((out / "commits").glob("[!.]*.json"))) >= 2, first, out)
    worker = int((faults / "held").read_text())
    first.send_signal(signal.SIGKILL)
    first.wait()
    for path in faults.iterdir():
        path.unlink()
    assert_equals(out, expected, start(site, out, *workers))
    assert not is_alive(worker)


@pytest.mark.parametrize(("kind", "time_"), RUNS)
def test_two_attempts_at_every_unit_count_once(
    site, request, expected, tmp_path: Path, kind: str, time_: int
):
    if kind == "ray":
        site = {**site, "RAY_CLUSTER": request.getfixturevalue("cluster")}
    out = tmp_path / "run"
    assert_equals(out, expected, start(site, out, "--executor", "twice", "-o", f"twice.kind={kind}"))


@pytest.mark.parametrize("time_", TIMES)
def test_a_raylet_that_was_killed_is_replaced(site, faults: Path, expected, tmp_path: Path, time_: int):
    """The Ray that the command started itself ends in the middle of a unit."""
    pytest.importorskip("ray")
    (faults / f"c{1 + time_ % 8}").write_text("hold")
    out = tmp_path / "run"
    run = start(site, out, "--executor", "ray", "-o", "ray.workers=2")
    until((faults / "held").exists, run, out)
    (faults / f"c{1 + time_ % 8}").unlink()
    family = psutil.Process(run.pid).children(recursive=True)
    worker = psutil.Process(int((faults / "held").read_text()))
    assert worker.nice() == psutil.Process(run.pid).nice()  # it has its share of a busy machine
    (raylet,) = [process for process in family if process.name() == "raylet"]
    raylet.kill()
    assert_equals(out, expected, run)
    assert not any(is_alive(process.pid) for process in family)


def test_a_worker_s_sentence_reaches_the_terminal(site, faults: Path, workers, expected, tmp_path: Path):
    """The same words and exit code as from one worker; afterwards the same command goes on."""
    (faults / "c5").write_text("fail")
    out = tmp_path / "run"
    run = start(site, out, *workers)
    assert ended(run, out) == 1
    assert one_sentence(said(out)) == unit_faults.SENTENCE
    (faults / "c5").unlink()
    out.with_suffix(".log").unlink()
    assert_equals(out, expected, start(site, out))  # with one worker: the executor is no part of a run


def test_ctrl_c_ends_everything(site, faults: Path, workers, tmp_path: Path):
    (faults / "c4").write_text("hold")
    out = tmp_path / "run"
    run = start(site, out, *workers)
    until((faults / "held").exists, run, out)
    worker = int((faults / "held").read_text())
    run.send_signal(signal.SIGINT)
    assert ended(run, out) == 130
    assert said(out).rstrip().endswith("encyclo: stopped; run the same command to continue."), said(out)
    wait_until(lambda: not is_alive(worker), lambda: None, lambda: said(out))


ELSEWHERE = """
from encyclo.runs import worker_locks
worker_locks.admits = lambda run, token: False
"""


@pytest.fixture
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The URL of a run that nobody has begun, and what the environment has for it."""
    pytest.importorskip("obstore")
    if request.param == "file":
        (tmp_path / "bucket").mkdir()
        yield f"file://{tmp_path}/bucket/run", {}
    else:
        pytest.importorskip("moto")
        with served() as server:
            yield "s3://bucket/run", server.environment


@pytest.fixture
def copies() -> Iterator[Path]:
    """Where workers have copies of their own; Ray makes sockets there, whose paths must be short."""
    with tempfile.TemporaryDirectory(prefix="copies") as folder:
        yield Path(folder)


@pytest.mark.parametrize(
    ("flags", "machines", "bucket"),
    [
        (["-o", "local.workers=2"], 1, "file"),
        (["-o", "local.workers=2"], 2, "file"),
        (["--executor", "ray", "-o", "ray.workers=2"], 2, "s3"),
        pytest.param(
            ["--executor", "slurm", "-o", "slurm.cluster=local"], 2, "s3", marks=pytest.mark.slow, id="slurm"
        ),
    ],
    indirect=["bucket"],
)
def test_a_run_on_an_object_store_with_several_workers(
    site,
    faults: Path,
    expected,
    tmp_path: Path,
    monkeypatch,
    copies: Path,
    flags: list[str],
    machines: int,
    bucket,
):
    """On another machine a worker has a copy of its own. One unit's worker is killed; one unit's commit comes late.

    A worker that ends without a unit removes its copy; that of the killed one waits for the next on its machine.
    """
    url, variables = bucket
    (faults / "c0").write_text("wait")
    (faults / "c4").write_text("die")
    (tmp_path / "sitecustomize.py").write_text(ELSEWHERE if machines > 1 else "")
    path = os.pathsep.join([str(tmp_path), site["PYTHONPATH"]])
    environment = {**site, **variables, "PYTHONPATH": path, "TMPDIR": str(copies)}
    environment["ENCYCLO_CACHE"] = str(tmp_path / "cache")
    out = tmp_path / "run"
    run = start(environment, out, "--store", "zarr", *flags, url=url)
    assert ended(run, out) == 0, said(out)
    for name, value in {**variables, "ENCYCLO_CACHE": str(tmp_path / "reader")}.items():
        monkeypatch.setenv(name, value)
    assert verify(url).findings == []
    assert manifest(fetched(url, parts=True)) == expected
    assert len(list(copies.glob("encyclo-worker-*"))) == (machines > 1)


def test_ray_that_is_not_installed_is_named_before_anything_is_written(
    encyclo, monkeypatch: pytest.MonkeyPatch, tiny_flags: list[str], tmp_path: Path
):
    monkeypatch.setitem(sys.modules, "ray", None)
    result = encyclo("run", "--executor", "ray", *tiny_flags, "--out", tmp_path / "run")
    assert result.returncode == 2
    assert one_sentence(result.stderr).endswith("install it with: pip install 'encyclo[ray]'")
    assert not (tmp_path / "run").exists()


def test_the_executor_is_no_part_of_a_run_s_configuration(tiny_run: Path):
    config = read_record(tiny_run)["config"]
    assert "executor" not in config and "local" not in config["options"]
    check_same(tiny_run, config)


def test_every_worker_has_its_share_of_cores():
    assert cores_each(2, [8]) == 4 and cores_each(3, [8, 8]) == 4 and cores_each(1, [2, 16]) == 16
    assert cores_each(5, [2, 2]) == 0 and cores_each(1, []) == 0


def test_a_worker_whose_run_ends_before_it_has_work_ends_too():
    code = "from encyclo_executors.processes import serve; serve()"
    ended = subprocess.run([sys.executable, "-c", code], stdin=subprocess.DEVNULL, timeout=60, check=False)
    assert ended.returncode == 0
