"""Stages on a tiny model: which concepts enter the next stage, with how many samples; raising targets, resuming."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from encyclo.errors import DamagedError
from encyclo.pipeline.attacks import CaptureOnce
from encyclo.pipeline.rounds import Plan, Result, Rounds
from encyclo.query.encyclopedia import open_run
from encyclo.runs.directory import read_record
from encyclo.runs.metrics import StageFigures
from encyclo.runs.open_run import Captured
from encyclo.storage import checksums
from encyclo.types import Prompt, Scores
from tests.commands import in_own_process, one_sentence, start
from tests.core.pipeline.test_run import assert_same_encyclopedia

STAGED = ["--sampler", "raw", "--sampler", "templates", "--limit", "30", "--per-concept", "6"]


@pytest.fixture(scope="module")
def staged_run(tmp_path_factory: pytest.TempPathFactory, tiny_flags: list[str]) -> Path:
    from encyclo.cli import run_command

    out = tmp_path_factory.mktemp("staged") / "run"
    assert run_command(["run", *STAGED, "--out", str(out), *tiny_flags]) == 0
    return out


def plans(out: Path) -> list[Plan]:
    rounds = Rounds(out, read_record(out)["run_id"])
    found = []
    while (plan := rounds.plan(len(found))) is not None:
        found.append(plan)
    return found


def counts(out: Path) -> np.ndarray:
    with open_run(out) as book:
        return np.array(book.book.concepts.n_samples)


def test_every_stage_leaves_a_row_with_its_figures(staged_run: Path):
    rows = json.loads((staged_run / "metrics.json").read_text())["stages"]
    assert [(row["stage"], row["concepts"], row["samples"]) for row in rows] == [(0, 30, 30), (1, 30, 180)]
    assert (
        rows[0]["heldout_top1"] is None and rows[0]["confidence"] is None
    )  # one family: nothing to hold out
    assert rows[0]["convergence"] is None and rows[1]["convergence"].keys() == {"1", "-2", "-1"}
    assert 0 < rows[1]["heldout_top1"] <= 1 and 0 < rows[1]["confidence"] <= 1 and rows[1]["ece"] >= 0


@pytest.mark.parametrize(("samplers", "trainings"), [(["raw"], [1]), (["raw", "templates"], [0, 1])])
def test_the_weights_are_freed_before_the_last_training(
    tiny_flags, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samplers: list[str], trainings: list[int]
):
    """`trainings`: how often the weights were freed before each training."""
    from encyclo.cli import run_command
    from encyclo_capture.model import TransformersModel
    from encyclo_interpreters import centroid

    freed, found = [], []
    release, train = TransformersModel.release, centroid.train_interpreter
    monkeypatch.setattr(TransformersModel, "release", lambda model: freed.append(release(model)))

    def noting(samples, concepts, context):
        found.append(len(freed))
        return train(samples, concepts, context)

    monkeypatch.setattr(centroid, "train_interpreter", centroid.hookimpl(noting))
    config = tmp_path / "encyclo.toml"
    config.write_text('interpreter = "centroid"\nbaselines = []\n')
    chosen = [word for name in samplers for word in ("--sampler", name)]
    flags = [*chosen, "--limit", "20", "--per-concept", "6", "--config", str(config), *tiny_flags]
    assert run_command(["run", *flags, "--out", str(tmp_path / "run")]) == 0
    assert found == trainings


def test_raised_targets_and_budget_go_on_with_the_unsettled_only(
    encyclo, staged_run: Path, tiny_flags, tmp_path: Path
):
    out = tmp_path / "raised"
    shutil.copytree(staged_run, out)
    before = counts(out)
    with open_run(out) as book:
        samples = {name: book.samples(name).prompt for name in book.book.concepts.name}
    raised = ["--targets", "0.5,0.8,0.9,0.99", "--budget", "260"]
    result = encyclo("run", *STAGED, "--out", out, *tiny_flags, *raised)
    assert result.returncode == 0, result.stderr
    assert [plan.effort for plan in plans(out)] == [0, 0, 1]
    further = plans(out)[-1]
    assert further.stage == 1 and sum(further.wanted) <= 260 - 180
    after = counts(out)
    chosen = np.zeros(30, bool)
    chosen[list(further.concepts)] = True
    assert (after[~chosen] == before[~chosen]).all() and (after[chosen] > before[chosen]).all()
    with open_run(out) as book:
        for name, old in samples.items():
            new = book.samples(name).prompt
            assert new[: len(old)] == old and len(set(new)) == len(new)  # what was there stays; nothing twice
    again = encyclo("run", *STAGED, "--out", out, *tiny_flags, *raised)
    assert "already finished" in again.stdout and len(plans(out)) == 3


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--targets", "0.3,0.7,0.85,0.95"], "higher targets"),
        (["--budget", "100"], "higher budget"),
    ],
)
def test_targets_and_budget_are_never_lowered(
    encyclo, staged_run: Path, tiny_flags, tmp_path: Path, flags, words
):
    out = tmp_path / "lowered"
    shutil.copytree(staged_run, out)
    assert encyclo("run", *STAGED, "--out", out, *tiny_flags, "--budget", "200").returncode == 0
    result = encyclo(
        "run", *STAGED, "--out", out, *tiny_flags, *({"--budget": "200"} | dict([flags])).popitem()
    )
    assert result.returncode == 2 and words in one_sentence(result.stderr)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--targets", "0.4,0.3,0.85,0.95"], "must not fall"),
        (["--targets", "0.4,0.7"], "4 numbers"),
        (["--targets", "0,0.7,0.8,0.9"], "above 0"),
        (["--targets", "high"], "four numbers"),
        (["--budget", "0"], "--budget"),
    ],
)
def test_targets_and_budgets_that_can_not_be(encyclo, tiny_flags, tmp_path: Path, flags, words):
    result = encyclo("run", "--out", tmp_path / "no", *tiny_flags, *flags)
    assert result.returncode == 2 and words in one_sentence(result.stderr)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("samplers", [["adversarial"], ["adversarial", "templates"]])
def test_a_sampler_that_needs_an_interpreter_can_not_be_the_first(
    encyclo, tiny_flags, tmp_path: Path, samplers
):
    flags = [flag for name in samplers for flag in ("--sampler", name)]
    result = encyclo("run", "--out", tmp_path / "no", *tiny_flags, *flags)
    said = one_sentence(result.stderr)
    assert result.returncode == 2 and ("before it" in said or "in ascending order" in said)
    assert not (tmp_path / "no").exists()


def test_a_stage_in_which_nothing_is_unsettled_says_so(encyclo, tiny_flags, tmp_path: Path, monkeypatch):
    from encyclo import hookimpl
    from encyclo.pipeline import judge as judging
    from encyclo_scorers import calibrated

    @hookimpl
    def certain(interpreter):
        sure = np.ones(len(interpreter.concepts), np.float32)
        return Scores(sure, sure, sure, {})

    monkeypatch.setattr(calibrated, "score_confidence", certain)
    monkeypatch.setattr(judging, "relative_standard_error", lambda s: np.zeros(len(s.count)))
    result = encyclo("run", *STAGED, "--out", tmp_path / "run", *tiny_flags)
    assert result.returncode == 0, result.stderr
    assert "Stage 1 (templates): nothing is unsettled" in result.stderr + result.stdout
    rows = json.loads((tmp_path / "run" / "metrics.json").read_text())["stages"]
    assert [(row["stage"], row["settled"]) for row in rows] == [(0, 30)]


@pytest.mark.parametrize("moment", ["plan.json", "result.json", "model.safetensors"])
def test_a_kill_in_any_round_changes_nothing(encyclo, staged_run: Path, tiny_flags, tmp_path: Path, moment):
    """Killed as soon as a file of the second round is there; the resumed run equals the uninterrupted one."""
    out = tmp_path / "killed"
    where = out / "rounds" / "1" / ("interpreter/" if moment == "model.safetensors" else "") / moment
    process = start("run", *STAGED, "--out", out, *tiny_flags)
    while not where.exists() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    resumed = encyclo("run", *STAGED, "--out", out, *tiny_flags)
    assert resumed.returncode == 0, resumed.stderr
    assert_same_encyclopedia(out, staged_run)
    rows = [json.loads((path / "metrics.json").read_text())["stages"] for path in (out, staged_run)]
    for ours, theirs in zip(*rows, strict=True):
        assert {k: v for k, v in ours.items() if k != "seconds"} == {
            k: v for k, v in theirs.items() if k != "seconds"
        }


def test_what_a_round_found_survives_its_file(tmp_path: Path):
    rounds = Rounds(tmp_path, "run")
    plan = Plan(1, 0, (0, 2), (3, 4), (0, 0))
    rounds.begin(0, plan)
    scores = Scores(
        np.array([0.5, np.nan], np.float32), np.array([0.1, np.nan], np.float32),
        np.array([0.9, np.nan], np.float32), {"ece": 0.25},
    )  # fmt: skip
    rounds.end(
        0, Result(StageFigures(stage=1), scores, None, None, np.array([True, False]), np.array([False, True]))
    )
    found = rounds.result(0)
    assert rounds.plan(0) == plan and rounds.plan(1) is None and rounds.result(1) is None
    assert (
        found is not None
        and found.row.as_json() == {"stage": 1}
        and found.scores.calibration == {"ece": 0.25}
    )
    for name in ("confidence", "low", "high"):
        np.testing.assert_array_equal(getattr(found.scores, name), getattr(scores, name))
    assert found.converged.tolist() == [True, False] and found.settled.tolist() == [False, True]


def test_attacks_are_captured_once_each_and_come_back_in_order():
    class Counting:
        captured: list[Prompt] = []  # noqa: RUF012

        def capture(self, prompts):
            self.captured += prompts
            return Captured(np.array([[[float(prompt.text)]] for prompt in prompts], np.float32), 6, 6)

    capture, prompts = CaptureOnce(Counting()), [Prompt("c", str(n), None, "f") for n in range(6)]
    assert capture(prompts[:4]).ravel().tolist() == [0, 1, 2, 3]
    again = [prompts[n] for n in (5, 1, 5, 0, 4)]
    assert capture(again).ravel().tolist() == [5, 1, 5, 0, 4]
    assert sorted(prompt.text for prompt in Counting.captured) == list("012345")


def test_a_damaged_plan_says_how_to_go_on(tmp_path: Path):
    rounds = Rounds(tmp_path, "run")
    rounds.begin(0, Plan(1, 0, (0,), (3,), (0,)))
    (tmp_path / "rounds" / "0" / "plan.json").write_text('{"stage": 1,')
    with pytest.raises(DamagedError, match="delete the folder"):
        rounds.plan(0)


@pytest.mark.parametrize(
    ("file", "where", "value"),
    [
        ("plan.json", "owner", "me"),
        ("plan.json", "stage", "first"),
        ("plan.json", "concepts", [0, "b"]),
        ("plan.json", "wanted", 3),
        ("plan.json", "done", None),
        ("result.json", "owner", "me"),
        ("result.json", "row", [1]),
        ("result.json", "accuracy", {"top1": "high"}),
        ("result.json", "settled", ["yes"]),
        ("result.json", "scores", {}),
        ("result.json", "scores.owner", "me"),
        ("result.json", "scores.low", ["x"]),
        ("result.json", "row.confidence", "high"),
    ],
)
def test_a_round_that_can_not_be_is_refused_although_its_checksum_is_right(
    staged_run: Path, tmp_path: Path, file: str, where: str, value: object
):
    shutil.copytree(staged_run / "rounds", tmp_path / "rounds")
    path = tmp_path / "rounds" / "1" / file
    run_id = read_record(staged_run)["run_id"]
    rounds = Rounds(tmp_path, run_id)
    content = checksums.read_sealed(path, at_most=2**20, within=tmp_path)
    read = rounds.plan if file == "plan.json" else rounds.result
    assert read(1) is not None
    *outer, key = where.split(".")
    (content[outer[0]] if outer else content)[key] = value
    path.write_text(json.dumps(checksums.sealed(content)))
    with pytest.raises(DamagedError) as refused:
        read(1)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


ALL = ["--limit", "8", "--per-concept", "4"]
STEPS = [
    "Stage 0", "Stage 0 Training", "Stage 1", "Stage 1 Training", "Stage 2", "Stage 2 Training",
    "Stage 2 Attacking", "Stage 3", "Stage 3 Training", "Stage 3 Attacking", "Stage 3 Writing",
]  # fmt: skip
"""What a run says that it is at: capture and generation under the stage alone."""


def steps(process: subprocess.Popen[str]) -> Iterator[str]:
    """Yield the steps of a run, from its messages."""
    stage = ""
    assert process.stderr is not None
    for line in process.stderr:
        first = line.split(" ")[0]
        if line.startswith("Stage "):
            stage = line[: len("Stage 0")]
            yield stage
        elif f"{stage} {first}" in STEPS:
            yield f"{stage} {first}"


@pytest.mark.slow
def test_kills_in_every_step_of_all_four_stages_change_nothing(roomy_flags, tmp_path: Path):
    """Killed during sampling, generation, capture, training or attacks, a resumed run ends the same."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    with start("run", *ALL, "--out", whole, *roomy_flags) as process:
        moments = [(step, time.monotonic()) for step in steps(process)]
        ends = [moment for _, moment in moments[1:]] + [time.monotonic()]
    assert process.returncode == 0
    lasts = {step: end - begun for (step, begun), end in zip(moments, ends, strict=True)}
    assert lasts.keys() == set(STEPS)
    chance, fell = np.random.default_rng(0), []
    for step in STEPS:
        with start("run", *ALL, "--out", killed, *roomy_flags) as process:
            for now in steps(process):
                if now == step:
                    time.sleep(chance.uniform(0, 0.8) * lasts[step])
                    break
            process.send_signal(signal.SIGKILL)
        fell.append(step if process.returncode == -signal.SIGKILL else "")
    assert fell == STEPS
    resumed = in_own_process("run", *ALL, "--out", killed, *roomy_flags)
    assert resumed.returncode == 0, resumed.stderr
    assert_same_encyclopedia(killed, whole)
    assert plans(killed) == plans(whole)
