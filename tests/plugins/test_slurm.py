"""The executor `slurm` with the commands of a cluster: array jobs, their flags, their states, their end."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from encyclo.testing.fixtures.folder_workplace import FolderWorkplace, tasks
from encyclo_executors import slurm_jobs
from encyclo_executors.file_pipes import FilePipe
from encyclo_executors.slurm_options import Options
from tests import small_slurm
from tests.commands import one_sentence
from tests.plugins.test_executors import assert_equals, expected, faults, is_alive, said, site, start, until

__all__ = ["expected", "faults", "site"]
FLAGS = ("--executor", "slurm", "-o", "slurm.partition=small")


@pytest.fixture
def cluster(site: dict[str, str], tmp_path: Path) -> tuple[dict[str, str], Path]:
    """The environment of a login node, and the folder of its Slurm."""
    folder = tmp_path / "slurm"
    small_slurm.install(folder)
    return {**site, "PATH": os.pathsep.join([str(folder), site["PATH"]])}, folder


def test_a_run_on_a_cluster_equals_one_on_a_machine(cluster, faults: Path, expected, tmp_path: Path):
    """A job that is killed costs its unit only: Slurm says that it failed, and another job is submitted."""
    environment, folder = cluster
    (faults / "c3").write_text("die")
    out = tmp_path / "run"
    flags = ["-o", "slurm.cpus=3", "-o", "slurm.memory=1.5", "-o", "slurm.time=7"]
    extra = ["-o", "slurm.extra=--account=physics --exclusive"]
    assert_equals(out, expected, start(environment, out, *FLAGS, *flags, *extra))
    assert sorted(small_slurm.states(folder).values()) == ["COMPLETED", "COMPLETED", "FAILED"]
    script = (folder / "100.sh").read_text().splitlines()
    for flag in (
        "array=0-1%2", "partition=small", "cpus-per-task=3", "mem=1536MB", "time=7", "account=physics", "exclusive",
        "no-requeue",
    ):  # fmt: skip
        assert f"#SBATCH --{flag}" in script


def test_ctrl_c_cancels_the_jobs(cluster, faults: Path, tmp_path: Path):
    environment, folder = cluster
    (faults / "c4").write_text("hold")
    out = tmp_path / "run"
    run = start(environment, out, *FLAGS)
    until((faults / "held").exists, run, out)
    run.send_signal(signal.SIGINT)
    assert run.wait(30) == 130
    assert said(out).rstrip().endswith("encyclo: stopped; run the same command to continue."), said(out)
    assert "RUNNING" not in small_slurm.states(folder).values()


def test_what_slurm_refuses_is_one_sentence(cluster, tmp_path: Path):
    environment, _ = cluster
    out = tmp_path / "run"
    run = start(environment, out, "--executor", "slurm", "-o", "slurm.partition=large")
    assert run.wait(60) == 2
    assert one_sentence(said(out)) == (
        "Slurm refused the jobs (sbatch: error: invalid partition specified); change the options -o slurm.*."
    )


def test_jobs_that_never_begin_end_the_run(cluster, tmp_path: Path):
    environment, folder = cluster
    (folder / "srun").write_text("#!/bin/sh\nexit 1\n")
    out = tmp_path / "run"
    run = start(environment, out, *FLAGS)
    assert run.wait(120) == 1
    assert "3 jobs in a row ended before they had begun (job 10" in one_sentence(said(out))


@pytest.mark.parametrize(
    ("flags", "end"),
    [
        ([], "or give -o slurm.cluster=local to try it without one."),
        (["-o", "slurm.cluster=local", "-o", "slurm.extra=account"], "separated by blanks."),
    ],
)
def test_what_is_missing_or_wrong_is_named_before_anything_is_written(
    encyclo, tiny_flags: list[str], tmp_path: Path, flags: list[str], end: str
):
    result = encyclo("run", "--executor", "slurm", *flags, *tiny_flags, "--out", tmp_path / "run")
    assert result.returncode == 2
    assert one_sentence(result.stderr).endswith(end)
    assert not (tmp_path / "run").exists()


def test_submitit_that_is_not_installed_is_named_before_anything_is_written(
    encyclo, monkeypatch: pytest.MonkeyPatch, tiny_flags: list[str], tmp_path: Path
):
    monkeypatch.setitem(sys.modules, "submitit", None)
    result = encyclo("run", "--executor", "slurm", *tiny_flags, "--out", tmp_path / "run")
    assert result.returncode == 2
    assert one_sentence(result.stderr).endswith("install it with: pip install 'encyclo[slurm]'")
    assert not (tmp_path / "run").exists()


def test_a_message_is_read_when_all_of_it_is_there(tmp_path: Path):
    path = tmp_path / "said"
    path.touch()
    there, here = FilePipe(path), FilePipe(path)
    there.send("first")
    there.send({"second": 2})
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert here.receive() == ["first"] and here.receive() == []
    path.write_bytes(whole)
    assert here.receive() == [{"second": 2}] and here.receive() == []


def test_only_a_job_that_really_says_nothing_is_taken_for_dead(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Not one that nobody listened to while the command trained; but one that hangs, if no cluster says so."""
    monkeypatch.setattr(slurm_jobs, "SECONDS_OF_SILENCE", 4.0)
    workplace = FolderWorkplace(tmp_path / "run").prepared()
    jobs = slurm_jobs.SlurmJobs(workplace, Options(cluster="local", workers=1), False)
    try:
        assert len(list(jobs.run(tasks(2), lambda said: None))) == 2
        first = workplace.processes()
        time.sleep(5)
        assert len(list(jobs.run(tasks(2, 1), lambda said: None))) == 2
        assert workplace.processes() == first
        os.kill(*first, signal.SIGSTOP)
        assert len(list(jobs.run(tasks(2, 2), lambda said: None))) == 2
        assert len(workplace.processes()) == 2
    finally:
        jobs.close()
    assert not any(is_alive(number) for number in workplace.processes())
