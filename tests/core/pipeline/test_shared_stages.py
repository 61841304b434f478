"""Samplers that share a stage, set their own stage and number, or have no prompt for some concepts."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import pytest
from pydantic import BaseModel

from encyclo.config import RunConfig, load_config
from encyclo.errors import UsageError
from encyclo.pipeline.rounds import Plan
from encyclo.pipeline.units import plan_units
from encyclo.plugins.manager import Plugins
from encyclo.query.encyclopedia import open_run
from encyclo.runs.session import Stage, concepts_hash, prepare, read_stages
from encyclo.storage import checksums
from encyclo.terminal import ConsoleProgress
from encyclo.types import Concept
from tests.commands import one_sentence, start
from tests.core.pipeline.test_refine import counts, plans
from tests.core.pipeline.test_run import assert_same_encyclopedia

NAMES = [
    "animal", "dog", "organ", "tree", "river", "stone", "house", "road", "king", "water", "bread", "chair",
]  # fmt: skip
LABELLED = NAMES[3:8]
"""The concepts that have sentences."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lists")
    (folder / "list.csv").write_text(
        "\n".join(["name,part_of_speech", *(f"{name},noun" for name in NAMES), ""])
    )
    lines = [f"{name},The {name} of number {i} was there.,s{i % 5}" for name in LABELLED for i in range(15)]
    lines.append(",He was nowhere at all.,s0")
    (folder / "own.csv").write_text("\n".join(["concept,sentence,source", *lines, ""]))
    return folder


@pytest.fixture(scope="module")
def plain(folder: Path, tiny_flags: list[str]) -> list[str]:
    return ["--concepts", "file", "-o", f"file.path={folder / 'list.csv'}", "--per-concept", "5", *tiny_flags]


@pytest.fixture(scope="module")
def flags(folder: Path, plain: list[str]) -> list[str]:
    return ["-o", f"sentences.path={folder / 'own.csv'}", "-o", "sentences.stage=1", *plain]


def samplers(*names: str) -> list[str]:
    return [flag for name in names for flag in ("--sampler", name)]


SHARED = samplers("raw", "templates", "sentences")


@pytest.fixture(scope="module")
def shared_run(tmp_path_factory: pytest.TempPathFactory, flags: list[str]) -> Path:
    from encyclo.cli import run_command

    out = tmp_path_factory.mktemp("shared") / "run"
    assert run_command(["run", *SHARED, *flags, "--out", str(out)]) == 0
    return out


def rows(out: Path) -> list[dict]:
    return json.loads((out / "metrics.json").read_text())["stages"]


def test_each_sampler_has_its_round_and_its_row(shared_run: Path):
    assert [(row["stage"], row["sampler"], row["concepts"]) for row in rows(shared_run)] == [
        (0, "raw", 12), (1, "templates", 12), (1, "sentences", 12),
    ]  # fmt: skip
    first, second, third = plans(shared_run)
    assert (first.sampler, second.sampler, third.sampler) == ("", "templates", "sentences")
    assert second.concepts == third.concepts and second.wanted == third.wanted  # the same need, before both
    with open_run(shared_run) as book:
        written = {name: book.samples(name).family for name in NAMES}
    own = {name: sum(family.startswith("sentences.") for family in found) for name, found in written.items()}
    wanted = dict(zip(NAMES, third.wanted, strict=True))
    assert own == {name: wanted[name] if name in LABELLED else 0 for name in NAMES}


def test_each_sampler_has_families_that_test(shared_run: Path):
    splits = json.loads((shared_run / "metrics.json").read_text())["splits"]
    for split in ("train", "test"):
        assert len({family.startswith("sentences.") for family in splits[split]}) == 2


def test_only_a_shared_stage_records_its_samplers(shared_run: Path):
    plan = checksums.read_sealed(shared_run / "rounds/0/plan.json", at_most=2**20, within=shared_run)
    assert plan.keys() == {"run", "stage", "effort", "concepts", "wanted", "done"}
    records = [json.loads(path.read_text()) for path in (shared_run / "commits").glob("*.json")]
    assert {record.get("sampler") for record in records if record["stage"] == 1} == {"templates", "sentences"}
    assert not any("sampler" in record for record in records if record["stage"] == 0)


def test_ids_of_units_and_lists_are_those_of_earlier_runs():
    concepts = [Concept("dog", "dog", examples=("A dog ran.",)), Concept("cat", "cat")]
    (unit,) = plan_units(concepts, Plan(1, 0, (0, 1), (3, 4), (0, 0)), {"seed": 0})
    assert unit.id == "60c80ed37dda4c28132b90f3b42bd0b7"
    assert concepts_hash(concepts) == "43ec35d4f444f6d5d6cee830614e9bdb7035f2da5108d65512b0fa888eb6e27d"


@pytest.mark.parametrize("moment", ["rounds/1/result.json", "rounds/2/plan.json"])
def test_a_kill_between_two_samplers_changes_nothing(
    encyclo, shared_run: Path, flags, tmp_path: Path, moment: str
):
    out = tmp_path / "killed"
    process = start("run", *SHARED, *flags, "--out", out)
    while not (out / moment).exists() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if moment == "rounds/1/result.json":  # it may have got further before the signal came
        shutil.rmtree(out / "rounds" / "2", ignore_errors=True)
    assert not (out / "metrics.json").exists()
    resumed = encyclo("run", *SHARED, *flags, "--out", out)
    assert resumed.returncode == 0, resumed.stderr
    assert plans(out) == plans(shared_run)
    assert_same_encyclopedia(out, shared_run)
    without_seconds = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in rows(path)] for path in (out, shared_run)
    ]
    assert without_seconds[0] == without_seconds[1]


def test_raised_targets_ask_every_sampler_of_the_stage_again(encyclo, shared_run, flags, tmp_path: Path):
    out = tmp_path / "raised"
    shutil.copytree(shared_run, out)
    before = counts(out)
    raised = ["--targets", "0.9,0.95,0.99,1", "--budget", "170"]
    result = encyclo("run", *SHARED, *flags, *raised, "--out", out)
    assert result.returncode == 0, result.stderr
    made = plans(out)
    spent = {
        name: sum(sum(p.wanted) for p in made if p.sampler == name) for name in ("templates", "sentences")
    }
    assert all(number <= 170 for number in spent.values())  # the budget is each sampler's
    further = [plan for plan in made if plan.effort == 1]
    assert [plan.sampler for plan in further] == ["templates", "sentences"]
    assert further[0].concepts == further[1].concepts and further[0].wanted == further[1].wanted
    done = [dict(zip(plan.concepts, plan.wanted, strict=True)) for plan in made[1:3]]
    assert all(p.done == tuple(d[c] for c in p.concepts) for p, d in zip(further, done, strict=True))
    assert (counts(out) >= before).all() and counts(out).sum() > before.sum()
    with open_run(out) as book:
        for name in NAMES:
            prompts = book.samples(name).prompt
            assert len(set(prompts)) == len(prompts)
    (out / "metrics.json").unlink()
    shutil.rmtree(out / "rounds" / "4")  # as if it had stopped between the two
    assert encyclo("run", *SHARED, *flags, *raised, "--out", out).returncode == 0
    assert plans(out) == made


def test_a_stage_shared_with_attacks_still_tests(encyclo, flags, tmp_path: Path):
    """Attacks only train; the sentences beside them are held out as anywhere."""
    chosen = samplers("templates", "sentences", "adversarial")
    out = tmp_path / "run"
    result = encyclo("run", *chosen, *flags, "-o", "sentences.stage=3", "--out", out)
    assert result.returncode == 0, result.stderr
    assert [(row["stage"], row["sampler"]) for row in rows(out)][1:] == [(3, "sentences"), (3, "adversarial")]
    splits = json.loads((out / "metrics.json").read_text())["splits"]
    assert any(family.startswith("sentences.") for family in splits["test"])


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("templates", "raw"), "ascending order"),
        (("templates", "templates"), "names templates twice"),
        (("adversarial",), "before it"),
    ],
)
def test_orders_that_can_not_be(encyclo, plain, tmp_path: Path, names, words):
    result = encyclo("run", *samplers(*names), *plain, "--out", tmp_path / "no")
    assert result.returncode == 2 and words in one_sentence(result.stderr)
    assert not (tmp_path / "no").exists()


def test_options_set_stage_and_number(flags: list[str]):
    options = [flags[place + 1] for place, flag in enumerate(flags) if flag == "-o"]
    given = {
        "concepts": "file",
        "model": flags[flags.index("--model") + 1],
        "layers": (1,),
        "device": "cpu",
        "per_concept": 7,
    }
    config = load_config(
        {**given, "sampler": ("raw", "templates", "sentences")}, None, [*options, "sentences.per_concept=3"]
    )
    stages = prepare(config, ConsoleProgress(quiet=True)).stages
    assert stages == (Stage(0, "raw", 1), Stage(1, "templates", 7, True), Stage(1, "sentences", 3, True))


@pytest.mark.parametrize("value", ["late", 128, -1, True, 1.0])
def test_an_option_that_is_no_stage_is_named(value: object):
    class Options(BaseModel):
        stage: object = value

    with pytest.raises(UsageError, match=r"Option templates\.stage can't be"):
        read_stages(RunConfig(sampler=("templates",)), Plugins(), {"templates": Options()})


@pytest.mark.parametrize("command", ["run", "plan"])
def test_concepts_without_any_prompt_stop_the_run_before_it_begins(encyclo, flags, tmp_path: Path, command):
    result = encyclo(command, *samplers("sentences"), *flags, "--out", tmp_path / "no")
    said = one_sentence(result.stderr)
    assert result.returncode == 2 and "7 of 12 concepts" in said and "'animal'" in said
    assert not (tmp_path / "no").exists()


def test_a_first_sampler_without_any_prompt_stops_the_run(encyclo, flags, tmp_path: Path):
    (tmp_path / "other.csv").write_text("concept,sentence\ncat,A cat sat.\n")
    more = ["-o", f"sentences.path={tmp_path / 'other.csv'}", "--out", tmp_path / "no"]
    result = encyclo("run", *samplers("sentences", "templates"), *flags, *more)
    assert result.returncode == 2 and "12 of 12 concepts" in one_sentence(result.stderr)
    assert not (tmp_path / "no").exists()


def test_a_partial_sampler_may_come_first_in_its_stage(encyclo, flags, tmp_path: Path):
    result = encyclo("run", *samplers("sentences", "templates"), *flags, "--out", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    assert [(row["sampler"], row["samples"]) for row in rows(tmp_path / "run")] == [
        ("sentences", 25), ("templates", 60),
    ]  # fmt: skip


def test_planning_where_the_concepts_tried_have_no_sentence(encyclo, flags, tmp_path: Path):
    (tmp_path / "other.csv").write_text("concept,sentence\ncat,A cat sat.\n")
    more = ["-o", f"sentences.path={tmp_path / 'other.csv'}", "--json"]
    whole = encyclo("plan", *samplers("templates", "sentences"), *flags, *more)
    assert whole.returncode == 0, whole.stderr
    assert json.loads(whole.stdout)["prompts"] == 60
