"""`encyclo run` on a tiny model: what it writes, that it resumes, that the same seed gives the same result."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.commands import one_sentence, start

THREE_UNITS = ["run", "--sampler", "templates", "--limit", "201", "--per-concept", "20"]
"""A unit has at most 2,000 prompts."""


def datasets(path: Path) -> dict[str, np.ndarray]:
    """Return every dataset of an HDF5 file, strings included."""
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: item[...]}) if isinstance(item, h5py.Dataset) else None
        )
    return found


def assert_same_encyclopedia(a: Path, b: Path) -> None:
    ours, theirs = (datasets(path / "encyclopedia.h5") for path in (a, b))
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    sums = [json.loads((path / "interpreter" / "sha256.json").read_text()) for path in (a, b)]
    assert sums[0]["model.safetensors"] == sums[1]["model.safetensors"]


def test_a_run_directory_holds_what_the_design_says(tiny_run: Path):
    names = {path.name for path in tiny_run.iterdir()}
    assert {
        "run.json",
        "commits",
        "parts",
        "encyclopedia.h5",
        "interpreter",
        "metrics.json",
        "report.html",
    } <= names
    assert {"model.safetensors", "config.json"} <= {p.name for p in (tiny_run / "interpreter").iterdir()}
    metrics = json.loads((tiny_run / "metrics.json").read_text())
    assert metrics.keys() >= {"capture", "accuracy", "calibration", "convergence", "stages"}
    assert metrics["capture"]["prompts"] == 400
    assert metrics["capture"]["tokens_computed"] < metrics["capture"]["tokens"]
    assert metrics["stages"] == [
        {"stage": 1, "sampler": "templates", "concepts": 40, "samples": 400}
        | {
            key: metrics["stages"][0][key]
            for key in (
                "settled",
                "seconds",
                "heldout_top1",
                "heldout_n",
                "natural_top1",
                "natural_n",
                "confidence",
                "ece",
                "converged",
                "convergence",
            )
        }
    ]
    assert metrics["stages"][0]["convergence"] == metrics["convergence"]
    assert metrics["stages"][0]["heldout_n"] > 0 and metrics["stages"][0]["natural_n"] == 0
    for figures in metrics["accuracy"]["heldout_prompts"].values():
        assert figures["n"] > 0 and figures["candidates"] == 40
    assert metrics["accuracy"]["natural"] is None
    assert metrics["calibration"]["n"] > 0 and metrics["calibration"]["centroid"]["n"] > 0


def test_run_json_records_the_self_test(tiny_run: Path):
    found = json.loads((tiny_run / "run.json").read_text())["self_test"]
    assert found.keys() == {"mentions", "finite", "layers", "batch", "padding", "sdpa"}
    assert found["finite"] > 0 and max(found["layers"], found["batch"], found["padding"], found["sdpa"]) < 0.1


def test_a_capture_that_fails_its_self_test_stops_the_run(
    encyclo, tmp_path: Path, tiny_gemma: Path, monkeypatch: pytest.MonkeyPatch
):
    from encyclo_capture import capture as module

    run_tree = module.run_tree
    monkeypatch.setattr(module, "run_tree", lambda *given: run_tree(*given).roll(1, dims=1))  # wrong layers
    flags = [
        "--model",
        tiny_gemma,
        "--layers",
        "1,2,3",
        "--device",
        "cpu",
        "-o",
        "transformers.dtype=float32",
    ]
    result = encyclo("run", "--sampler", "templates", "--limit", "4", "--out", tmp_path / "run", *flags)
    assert result.returncode == 1
    assert "self-test's check 'layers' failed" in one_sentence(result.stderr)
    assert not list((tmp_path / "run" / "commits").iterdir())


def test_no_family_is_on_two_sides_of_the_split(tiny_run: Path):
    splits = json.loads((tiny_run / "metrics.json").read_text())["splits"]
    assert all(splits.values())
    families = [family for names in splits.values() for family in names]
    assert len(families) == len(set(families))
    stored = set(datasets(tiny_run / "encyclopedia.h5")["samples/family"].astype(str))
    assert set(families) == stored


def test_the_model_reads_better_than_chance(tiny_run: Path):
    """Even a random model's activations at a mention differ by the mention."""
    rung = json.loads((tiny_run / "metrics.json").read_text())["accuracy"]["heldout_prompts"]
    assert rung["transformer"]["top1"] > 0.5
    assert rung["centroid"]["top1"] > 0.2


def test_signatures_are_the_means_of_their_samples(tiny_run: Path):
    data = datasets(tiny_run / "encyclopedia.h5")
    values = data["samples/activations"].astype(np.float64) * data["samples/scale"][..., None]
    for concept in (0, 17, 39):
        own = values[data["samples/concept"] == concept]
        assert len(own) == data["signatures/count"][concept] == 10
        np.testing.assert_allclose(data["signatures/mean"][concept], own.mean(axis=0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            data["signatures/variance"][concept], own.var(axis=0), rtol=1e-3, atol=1e-5
        )


def test_reading_is_calibrated_as_the_entries_are(tiny_run: Path):
    """Without natural sentences: the temperature that the scorer fitted is the one that `read` uses."""
    calibration = json.loads((tiny_run / "calibration.json").read_text())
    metrics = json.loads((tiny_run / "metrics.json").read_text())
    assert metrics["accuracy"]["natural"] is None and calibration["fitted_on"] == "heldout_prompts"
    assert calibration["calibrator"]["temperature"] == metrics["calibration"]["temperature"]


def test_a_run_whose_last_round_another_process_judged_is_calibrated_the_same(
    encyclo, tmp_path: Path, tiny_run: Path, tiny_flags: list[str]
):
    out = tmp_path / "run"
    shutil.copytree(tiny_run, out)
    for name in ("metrics.json", "calibration.json"):
        (out / name).unlink()
    result = encyclo("run", "--sampler", "templates", "--limit", "40", "--out", out, *tiny_flags)
    assert result.returncode == 0, result.stderr
    assert "Training the transformer" not in result.stderr, "its interpreter is loaded"
    assert (out / "calibration.json").read_bytes() == (tiny_run / "calibration.json").read_bytes()


def test_metrics_read_and_written_again_are_the_same_json(tiny_run: Path, tmp_path: Path):
    from encyclo.runs.metrics import read_metrics, write_metrics

    write_metrics(tmp_path, read_metrics(tiny_run))
    assert (tmp_path / "metrics.json").read_text() == (tiny_run / "metrics.json").read_text()


def test_the_same_command_again_computes_nothing(encyclo, tiny_run: Path, tiny_flags: list[str]):
    before = {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*") if path.is_file()}
    result = encyclo("run", "--sampler", "templates", "--limit", "40", "--out", tiny_run, *tiny_flags)
    assert result.returncode == 0, result.stderr
    assert "already finished" in result.stdout
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_the_summary_names_what_a_person_wants(
    encyclo, tiny_run: Path, tiny_flags: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "60")
    result = encyclo("run", "--sampler", "templates", "--limit", "40", "--out", tiny_run, *tiny_flags)
    said = " ".join(result.stdout.split())  # behind a long path a line may end anywhere
    for word in ("Concepts", "40", "Samples", "400", "prompts/s", "Held-out top-1", "centroid", "Calibration error",
                 "Nearest concepts", "report.html", "encyclo show"):  # fmt: skip
        assert word in said


def test_json_prints_one_object_and_nothing_else(encyclo, tiny_run: Path, tiny_flags: list[str]):
    result = encyclo(
        "run", "--sampler", "templates", "--limit", "40", "--out", tiny_run, "--json", *tiny_flags
    )
    assert json.loads(result.stdout)["metrics"]["capture"]["prompts"] == 400


def test_show_prints_one_entry(encyclo, tiny_run: Path):
    plain = encyclo("show", tiny_run, "animal").stdout
    for word in ("animal", "Confidence", "Nearest", "Most confused", "Prompts"):
        assert word in plain
    entry = json.loads(encyclo("show", tiny_run, "animal", "--json").stdout)
    assert entry["samples"] == len(entry["prompts"]) == 10
    assert entry["confidence_low"] <= entry["confidence"] <= entry["confidence_high"]
    assert entry["nearest"][0]["cosine"] >= entry["nearest"][1]["cosine"]


def test_an_uninterrupted_run_equals_one_killed_and_resumed(encyclo, tmp_path: Path, tiny_flags: list[str]):
    """kill -9 after the first commit; the same command ends in the same encyclopedia."""
    flags = [*THREE_UNITS, *tiny_flags, "--out"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert encyclo(*flags, whole).returncode == 0
    process = start(*flags, broken)
    _wait_for_commits(broken, 1)
    process.kill()
    process.communicate()
    kept = sorted((broken / "commits").glob("[0-9a-f]*.json"))
    assert kept and not (broken / "metrics.json").exists()
    result = encyclo(*flags, broken)
    assert result.returncode == 0, result.stderr
    assert f"{len(kept)} of 3 units already committed" in result.stderr
    assert_same_encyclopedia(whole, broken)


def test_interrupting_stops_cleanly_and_resumes(encyclo, tmp_path: Path, tiny_flags: list[str]):
    flags = [*THREE_UNITS, "--interpreter", "centroid", *tiny_flags, "--out", tmp_path / "run"]
    process = start(*flags)
    _wait_for_commits(tmp_path / "run", 1)
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - begun < 10
    assert "run the same command to continue" in one_sentence(stderr)
    assert encyclo(*flags).returncode == 0


def test_a_second_process_is_refused_naming_the_first(encyclo, tmp_path: Path, tiny_flags: list[str]):
    flags = [*THREE_UNITS, *tiny_flags, "--out", tmp_path / "run"]
    process = start(*flags)
    _wait_for_commits(tmp_path / "run", 1)
    process.send_signal(signal.SIGSTOP)
    try:
        result = encyclo(*flags)
        assert result.returncode == 2
        assert str(process.pid) in one_sentence(result.stderr)
    finally:
        process.kill()
        process.communicate()


def test_stages_without_a_sampler_named(encyclo, tmp_path: Path, roomy_flags: list[str]):
    result = encyclo("run", "--limit", "12", "--per-concept", "5", "--out", tmp_path / "run", *roomy_flags)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    names = ["raw", "templates", "diverse", "adversarial"]
    assert [(s["stage"], s["sampler"]) for s in metrics["stages"]] == list(enumerate(names))
    assert metrics["stages"][0]["samples"] == 12


def test_a_run_that_can_measure_nothing_says_so(encyclo, tmp_path: Path, tiny_flags: list[str]):
    result = encyclo("run", "--sampler", "raw", "--limit", "12", "--out", tmp_path / "run", *tiny_flags)
    assert result.returncode == 0, result.stderr
    assert "not measured" in result.stdout
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["accuracy"]["heldout_prompts"] == dict.fromkeys(("transformer", "centroid", "logistic"))
    assert metrics["calibration"] is None and metrics["convergence"] is None
    assert metrics["natural_sentences"] == 0
    confidence = datasets(tmp_path / "run" / "encyclopedia.h5")["concepts/confidence"]
    assert np.isnan(confidence).all()


@pytest.mark.parametrize("preset", ["default", "seed-shape"])
def test_presets_train(encyclo, tmp_path: Path, tiny_flags: list[str], preset: str):
    flags = ["-o", f"transformer.preset={preset}", "-o", "transformer.epochs=1", *tiny_flags]
    result = encyclo("run", "--sampler", "templates", "--limit", "12", "--out", tmp_path / "run", *flags)
    assert result.returncode == 0, result.stderr
    shape = json.loads((tmp_path / "run" / "interpreter" / "config.json").read_text())["shape"]
    expected = {"default": (128, 4, 2), "seed-shape": (512, 8, 4)}[preset]
    assert (shape["width"], shape["heads"], shape["depth"]) == expected


def test_plan_predicts_and_writes_nothing(encyclo, tmp_path: Path, tiny_run: Path, tiny_flags: list[str]):
    result = encyclo(
        "plan", "--sampler", "templates", "--limit", "40", "--json", "--out", tmp_path / "out", *tiny_flags
    )
    plan = json.loads(result.stdout)
    assert plan["concepts"] == 40 and plan["prompts"] == 400
    figures = {
        "concepts",
        "prompts",
        "tokens",
        "seconds",
        "workers",
        "memory_bytes",
        "worker_bytes",
        "disk_bytes",
    }
    assert plan.keys() == figures | {"seconds_by_step", "judging_measured", "bottleneck"}
    assert plan["seconds_by_step"].keys() == {"sampling", "capture", "judging"}
    assert plan["seconds"] == pytest.approx(sum(plan["seconds_by_step"].values()))
    assert plan["seconds_by_step"][plan["bottleneck"]] == max(plan["seconds_by_step"].values())
    tokens = json.loads((tiny_run / "metrics.json").read_text())["capture"]["tokens"]
    assert abs(plan["tokens"] - tokens) <= 0.05 * tokens
    assert not (tmp_path / "out").exists()
    within = ["plan", "--sampler", "templates", "--limit", "40", "--budget", "123", "--json", *tiny_flags]
    assert json.loads(encyclo(*within).stdout)["prompts"] == 123


def test_plan_asks_a_slow_sampler_for_few_concepts(
    encyclo, tiny_flags: list[str], monkeypatch: pytest.MonkeyPatch
):
    from encyclo.pipeline import cost_estimate
    from encyclo.pipeline.collect import UnitSampler

    asked: list[int] = []
    sample = UnitSampler.sample

    def counting(self, unit):
        asked.append(len(unit.concepts))
        return sample(self, unit)

    monkeypatch.setattr(UnitSampler, "sample", counting)
    command = ["plan", "--sampler", "templates", "--limit", "40", "--json", *tiny_flags]
    assert json.loads(encyclo(*command).stdout)["prompts"] == 400
    assert asked == [1, 4, 8, 16, 12]  # warm-up, then groups up to all concepts
    asked.clear()
    monkeypatch.setattr(cost_estimate, "SAMPLING_SECONDS", 0.0)
    assert json.loads(encyclo(*command).stdout)["prompts"] == 400
    assert asked == [1, 4]


PLAN = ["plan", "--sampler", "templates", "--limit"]


def test_plan_accepts_the_runs_own_directory_and_changes_nothing_there(
    encyclo, tiny_run: Path, tiny_flags: list[str]
):
    before = {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*")}
    result = encyclo(*PLAN, "40", "--out", tiny_run, *tiny_flags)
    assert result.returncode == 0, result.stderr
    assert before == {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*")}


@pytest.mark.parametrize("what", ["file", "other files", "another run"])
def test_plan_refuses_an_out_that_run_would_refuse(
    encyclo, tmp_path: Path, tiny_run: Path, tiny_flags: list[str], what: str
):
    out = tmp_path / "out"
    if what == "file":
        out.write_text("a file")
    elif what == "other files":
        out.mkdir()
        (out / "notes.txt").write_text("notes")
    else:
        out = tiny_run
    said = []
    for command in ("plan", "run"):
        result = encyclo(command, *PLAN[1:], "39", "--out", out, *tiny_flags)
        assert result.returncode == 2 and not result.stdout
        said.append(one_sentence(result.stderr))
    assert said[0] == said[1]
    assert {
        "file": "is a file",
        "other files": "holds other files",
        "another run": "limit: 40 there, 39 now",
    }[what] in said[0]


def test_plan_without_an_out_looks_at_no_directory(
    encyclo, tmp_path: Path, tiny_flags: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "encyclopedia").write_text("a file where the default --out would be")
    result = encyclo(*PLAN, "4", *tiny_flags)
    assert result.returncode == 0, result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["encyclopedia"]


def test_a_configuration_file_means_the_same_as_flags(
    encyclo, tmp_path: Path, tiny_run: Path, tiny_gemma: Path
):
    file = tmp_path / "run.toml"
    file.write_text(
        f'sampler = ["templates"]\nlimit = 40\nmodel = "{tiny_gemma}"\nlayers = [1, -2, -1]\ndevice = "cpu"\n'
        "[transformer]\npreset = 'default'\n"
    )
    result = encyclo("run", "--config", file, "--out", tiny_run)
    assert result.returncode == 0, result.stderr
    assert "already finished" in result.stdout


def _wait_for_commits(out: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(list((out / "commits").glob("[0-9a-f]*.json"))) < count:
        assert time.monotonic() < deadline, "no unit was committed in time"
        time.sleep(0.02)
