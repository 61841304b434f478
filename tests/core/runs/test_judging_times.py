"""`encyclo plan` expects the time of training, scoring and report that the user's own runs took."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from encyclo.runs.judging_times import FILE, MOST, SAMPLES_A_SECOND, Expected, expected, remember


def session(sampler: str = "templates", **more: Any) -> Any:
    """What the times depend on, of a session."""
    values = {
        "interpreter": "transformer",
        "baselines": ("centroid",),
        "scorer": "calibrated",
        "store": "hdf5",
    }
    return SimpleNamespace(
        config=SimpleNamespace(**{**values, **more}),
        schema=SimpleNamespace(layers=(1, 2), hidden_size=8),
        stages=[SimpleNamespace(sampler=sampler)],
        model=SimpleNamespace(device="cpu"),
    )


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ENCYCLO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_without_a_run_the_figure_is_another_machines():
    assert expected(session(), 570) == Expected(570 / SAMPLES_A_SECOND, measured=False)


def test_the_run_most_alike_in_size_counts():
    remember(session(), 100, 10.0)
    remember(session(), 10_000, 200.0)
    assert expected(session(), 200) == Expected(20.0, measured=True)
    assert expected(session(), 20_000) == Expected(400.0, measured=True)


def test_of_equal_runs_the_newest_counts():
    remember(session(), 100, 10.0)
    remember(session(), 100, 30.0)
    assert expected(session(), 100) == Expected(30.0, measured=True)


def test_other_plugins_have_times_of_their_own():
    remember(session(), 100, 10.0)
    assert not expected(session(interpreter="centroid"), 100).measured
    assert not expected(session(baselines=()), 100).measured
    assert not expected(session("raw"), 100).measured  # it trains no baseline


@pytest.mark.parametrize("content", [b"", b"{}", b'[{"samples": 1}]', b"\xff"])
def test_a_damaged_file_is_as_none_and_is_written_anew(cache: Path, content: bytes):
    cache.mkdir()
    (cache / FILE).write_bytes(content)
    assert not expected(session(), 100).measured
    remember(session(), 100, 10.0)
    assert expected(session(), 100).measured


def test_the_file_stays_small(cache: Path):
    for number in range(MOST + 5):
        remember(session(), number + 1, 1.0)
    assert len(json.loads((cache / FILE).read_text())) == MOST


def test_a_cache_that_can_not_be_written_is_no_error(cache: Path):
    cache.write_text("a file")
    remember(session(), 100, 10.0)
    assert not expected(session(), 100).measured


def test_a_run_is_remembered_and_plan_says_so(encyclo, tiny_flags: list[str], tmp_path: Path):
    flags = ["--sampler", "templates", "--limit", "12", *tiny_flags]
    before = encyclo("plan", *flags).stdout
    assert "as on another machine" in before and "most of it is " in before
    assert encyclo("run", *flags, "--out", tmp_path / "run").returncode == 0
    assert "as on another machine" not in encyclo("plan", *flags).stdout
