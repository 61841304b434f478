"""Which baselines a run trains in addition to its interpreter, and what happens if there are too many concepts for one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from encyclo.config import load_config
from encyclo.errors import UsageError
from encyclo.pipeline.run import run
from encyclo.pipeline.train import train_and_score, with_few_held_out
from encyclo.runs.reopen import finished_run
from encyclo.runs.session import Session, prepare
from encyclo.statistics import confidence
from encyclo.statistics.signatures import estimate_signatures
from encyclo.terminal import ConsoleProgress
from encyclo.types import Split
from encyclo_interpreters import logistic


class Spoken:
    """A progress that records its messages."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def stage(self, title: str) -> None:
        self.said.append(title)

    @contextmanager
    def track(self, title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        yield lambda _: None


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """Let `logistic` take three concepts."""
    monkeypatch.setattr(logistic, "MOST_CONCEPTS", 3)
    return 3


def session_of(tiny_flags: list[str], limit: int, tmp_path: Path, **more) -> tuple[Session, list[str]]:
    flags = {"model": tiny_flags[tiny_flags.index("--model") + 1], "layers": (1,), "device": "cpu"}
    file = tmp_path / "given.toml"
    file.write_text("".join(f"{key} = {value}\n" for key, value in more.pop("file", {}).items()))
    progress = Spoken()
    session = prepare(load_config({**flags, "limit": limit, **more}, file), progress)  # type: ignore[arg-type]
    return session, progress.said


def test_centroid_and_logistic_are_the_baselines(tiny_flags, tmp_path, few):
    session, said = session_of(tiny_flags, few, tmp_path)
    assert session.config.baselines == ("centroid", "logistic")
    assert session.options.keys() >= {"centroid", "logistic"}
    assert said == []


def test_a_default_baseline_that_takes_too_few_is_left_out_aloud(tiny_flags, tmp_path, few):
    session, said = session_of(tiny_flags, few + 1, tmp_path)
    assert session.config.baselines == ("centroid",)
    assert "logistic" not in session.options
    assert session.resolved()["baselines"] == ["centroid"]
    assert said == ["The baseline logistic is left out: it takes at most 3 concepts and this run has 4"]


@pytest.mark.parametrize(
    ("more", "where"),
    [({"file": {"baselines": '["logistic"]'}}, "baselines"), ({"interpreter": "logistic"}, "--interpreter")],
)
def test_one_that_was_asked_for_is_refused_before_anything_runs(tiny_flags, tmp_path, few, more, where):
    with pytest.raises(UsageError, match=f"'logistic' can't be trained: it takes at most 3 .* as {where}"):
        session_of(tiny_flags, few + 1, tmp_path, **more)


def test_a_baseline_is_scored_on_fewer_readings_with_the_same_calibration(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(confidence, "MOST_READINGS", 40)
    copy = shutil.copytree(tiny_run, tmp_path / "run")
    with finished_run(copy, ConsoleProgress(quiet=True)) as run:
        samples = run.load_samples(run.ledger.ordered())
        signatures = estimate_signatures(samples, len(run.session.concepts))
        held = samples.named_rows(Split.CALIBRATION, Split.TEST)
        assert len(samples.named_rows(Split.TEST)) > 40
        whole, few = (
            train_and_score(run, "centroid", samples, signatures, None, baseline=baseline)
            for baseline in (False, True)
        )
        fewer = with_few_held_out(samples)
    assert len(samples) - len(fewer) == len(held) - 40
    assert len(fewer.named_rows(Split.CALIBRATION, Split.TEST)) == 40
    assert whole.heldout == few.heldout and few.heldout is not None and few.heldout.n == 40
    assert whole.scores.calibration == few.scores.calibration
    assert (whole.scores.high - whole.scores.low).mean() < (few.scores.high - few.scores.low).mean()


def test_a_run_that_holds_nothing_out_trains_no_baselines(tiny_flags, tmp_path):
    session, said = session_of(tiny_flags, 4, tmp_path, sampler=("raw",))
    metrics = run(session, tmp_path / "run").metrics
    assert metrics.accuracy.heldout_prompts == {"transformer": None, "centroid": None, "logistic": None}
    assert metrics.calibration is None
    assert [line for line in said if "Training" in line] == [
        "Training the transformer interpreter on 4 samples"
    ]


def test_baselines_are_trained_after_the_weights_were_freed(tiny_flags, tmp_path):
    session, said = session_of(tiny_flags, 20, tmp_path, sampler=("templates",))
    model = session.model._object
    run(session, tmp_path / "run")
    assert any("Training the centroid interpreter" in line for line in said)
    assert "support" in vars(model) and not vars(model).keys() & {"_original", "network", "replicas", "head"}
