"""`encyclo plan` divides what workers do by those that don't share their hardware, and says what it doesn't divide."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from encyclo.executors import Workers
from encyclo_executors import local, ray_actors, slurm_options
from tests import small_slurm


@pytest.fixture
def plan(encyclo, tiny_flags: list[str]):
    def call(*flags: str) -> dict:
        return json.loads(
            encyclo("plan", "--sampler", "raw", "--limit", "20", *tiny_flags, *flags, "--json").stdout
        )

    return call


def test_workers_that_share_the_cores_divide_nothing(plan, encyclo, tiny_flags: list[str]):
    one, three = plan(), plan("-o", "local.workers=3")
    assert three["memory_bytes"] > one["memory_bytes"] + 2 * 100 * 2**20 and three["worker_bytes"] == 0
    assert three["workers"] == {"number": 3, "at_once": 1, "elsewhere": False}
    said = encyclo("plan", "--sampler", "raw", "--limit", "20", *tiny_flags, "-o", "local.workers=3").stdout
    assert "not divided by the 3 workers: they share this machine's cores\n" in said


def test_jobs_of_a_cluster_divide_sampling_and_capture(
    plan, encyclo, tiny_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    small_slurm.install(tmp_path / "slurm")
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "slurm"), os.environ["PATH"]]))
    flags = ["--executor", "slurm", "-o", "slurm.workers=50"]
    one, fifty = plan(), plan(*flags)
    assert fifty["workers"] == {"number": 50, "at_once": 50, "elsewhere": True}
    assert fifty["seconds_by_step"]["capture"] < one["seconds_by_step"]["capture"] / 5
    assert fifty["seconds_by_step"]["judging"] == one["seconds_by_step"]["judging"]
    assert fifty["seconds"] == pytest.approx(sum(fifty["seconds_by_step"].values()))
    assert 0 < fifty["worker_bytes"] < fifty["memory_bytes"] < 2 * one["memory_bytes"]
    monkeypatch.setenv("ENCYCLO_CACHE", str(tmp_path / "cache"))
    url = ["--store", "zarr", "--out", "memory://bucket/run"]
    said = encyclo("plan", "--sampler", "raw", "--limit", "20", *tiny_flags, *flags, *url)
    assert said.returncode == 0, said.stderr
    lines = said.stdout.splitlines()
    assert lines[2].endswith(" s with workers like this machine")
    assert lines[4].strip() == "sampling and capture are divided by 50 workers, judging is not"
    assert lines[-2].endswith(" GB for each worker")
    assert lines[-1].endswith(f" MB in {url[-1]}, and as much for the copy in {tmp_path / 'cache'}")


def test_each_gpu_counts_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert local.Options(workers=4).planned("cuda") == Workers(4, 2)
    assert local.Options(workers=4).planned("cpu") == Workers(4, 1)
    assert slurm_options.Options(workers=3, cluster="local").planned("cuda") == Workers(3, 2)
    pytest.importorskip("ray")
    assert ray_actors.Options(workers=8, address="auto").planned("cuda") == Workers(8, 8, elsewhere=True)
    assert ray_actors.Options(workers=2).planned("cpu") == Workers(2, 1)
