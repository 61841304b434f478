"""The wrapper `timing`: seconds by stage and hook, counted inside iteration, with a clock that the test sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from encyclo.plugins.manager import Plugins
from encyclo.types import Context
from encyclo_wrappers import timing
from encyclo_wrappers.timing import REST, Timing, table


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", clock)
    return clock


def wrapped(hook, result, *arguments):
    """Run a wrapper of Timing around `result`, a function that makes what the plugin returns."""
    generator = hook(*arguments)
    next(generator)
    try:
        generator.send(result())
    except StopIteration as end:
        return end.value
    raise AssertionError("it did not end")


def seconds_of(found: Timing) -> dict:
    return {key: (row.calls, row.seconds) for key, row in found.rows.items()}


def test_iteration_counts_and_what_is_done_between_does_not(clock: Clock):
    found = Timing()

    def prompts():
        for number in range(3):
            clock.pass_(2.0)
            yield number
        clock.pass_(0.5)

    given = wrapped(found.sample_prompts, prompts, 1)
    assert seconds_of(found)[1, "sample_prompts"] == (1, 0.0), "a generator has done nothing yet"
    for _ in given:
        clock.pass_(100.0)
    assert seconds_of(found) == {(1, "sample_prompts"): (1, 6.5)}


def test_a_list_is_counted_where_it_is_made(clock: Clock):
    found = Timing()
    assert list(wrapped(found.load_concepts, lambda: (clock.pass_(3.0), ["a"])[1])) == ["a"]
    assert seconds_of(found) == {(None, "load_concepts"): (1, 3.0)}


def test_what_follows_a_stages_sampling_belongs_to_it(clock: Clock):
    found = Timing()
    for stage in (0, 1):
        list(wrapped(found.sample_prompts, list, stage))
        list(wrapped(found.capture_layers, lambda: (clock.pass_(1.0 + stage), [])[1]))  # noqa: B023
    assert seconds_of(found)[0, "capture_layers"] == (1, 1.0)
    assert seconds_of(found)[1, "capture_layers"] == (1, 2.0)


def test_a_stores_methods_count_and_what_it_has_is_handed_on(clock: Clock):
    class Store:
        location = "here"

        def write_part(self, name, *, part):
            clock.pass_(4.0)
            return name, part

        def fail(self):
            clock.pass_(1.0)
            raise OSError("full")

    found = Timing()
    store = wrapped(found.store_activations, Store)
    assert store.write_part("a", part=1) == ("a", 1) and store.location == "here"
    with pytest.raises(OSError, match="full"):
        store.fail()
    with pytest.raises(AttributeError):
        store.gone  # noqa: B018
    rows = seconds_of(found)
    assert rows[None, "store_activations: write_part"] == (1, 4.0)
    assert rows[None, "store_activations: fail"] == (1, 1.0), "what fails took time too"


def test_the_end_says_where_the_time_went_and_records_it(clock: Clock, tmp_path: Path):
    found = Timing()
    list(wrapped(found.capture_layers, lambda: (clock.pass_(30.0), [])[1]))
    clock.pass_(10.0)
    said = found.end_run(Context(0, "cpu", None, tmp_path / "plugins" / "timing"))
    assert said.splitlines()[0] == "Where the time went: 40.0 s in this process"
    assert said.splitlines()[2].split() == ["-", "capture_layers", "1", "30.0", "75%"]
    assert said.splitlines()[-1].split() == ["-", "everything", "else", "1", "10.0", "25%"]
    kept = json.loads((tmp_path / "plugins" / "timing" / "timing.json").read_text())
    assert kept["seconds"] == 40.0
    assert kept["rows"][0] == {"stage": None, "hook": "capture_layers", "calls": 1, "seconds": 30.0}
    assert kept["rows"][-1]["hook"] == REST


def test_a_table_of_no_time_divides_by_nothing():
    assert "0%" in table([timing.Row(None, "x", 0, 0.0)], 0.0)


def test_it_wraps_the_chosen_plugins(tmp_path: Path):
    plugins = Plugins()
    plugins.opt_in(["timing"])
    concepts = list(plugins.call("load_concepts", "core", options=plugins.options("core", {})))
    assert len(concepts) == 1000
    context = Context(0, "cpu", None, tmp_path)
    said = plugins.call("end_run", "timing", metrics={}, context=context)
    assert "load_concepts" in said


def test_a_run_shows_it_and_records_it(encyclo, tmp_path: Path, tiny_flags: list[str]):
    out = tmp_path / "run"
    flags = ["--sampler", "templates", "--limit", "20", "--per-concept", "6", "--with", "timing"]
    result = encyclo("run", *flags, "--out", out, *tiny_flags)
    assert result.returncode == 0, result.stderr
    assert "Where the time went" in result.stdout
    rows = json.loads((out / "plugins" / "timing" / "timing.json").read_text())["rows"]
    kept = {(row["stage"], row["hook"]): row for row in rows}
    assert {(None, "load_concepts"), (None, "load_model"), (1, "capture_layers"), (1, "train_interpreter"),
            (1, "score_confidence"), (1, "store_activations: write_part"), (None, REST)} <= kept.keys()  # fmt: skip
    assert kept[1, "train_interpreter"]["calls"] == 3, "the chosen interpreter and two baselines"
    again = encyclo("run", *flags, "--out", out, *tiny_flags)
    assert again.returncode == 0 and "Where the time went" not in again.stdout, "nothing was computed"
