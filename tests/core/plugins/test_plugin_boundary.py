"""The boundary between the core and a third-party plugin: what passes in each direction, and what the core keeps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import encyclo as library
from tests.commands import one_sentence
from tests.third_party import ENGINE, Site


def counts(out: Path) -> np.ndarray:
    """Return how many samples each concept of a finished run has."""
    with library.open(out) as book:
        return np.array(book.book.concepts.n_samples)


SAMPLER = """
import itertools
from encyclo import hookimpl
from encyclo.types import Prompt

STAGE = 1

@hookimpl
def sample_prompts(concepts, context):
    for concept in concepts:
        wanted = context.prompts_for(concept.id)
        for number in NUMBERS:
            text = f"{number} {concept.name}"
            yield Prompt(concept.id, text, (len(text) - len(concept.name), len(text)), f"family {number % 8}")
"""
GENEROUS = SAMPLER.replace("NUMBERS", "range(wanted + 7)")
ENDLESS = SAMPLER.replace("NUMBERS", "itertools.count() if concept == concepts[-1] else range(wanted)")
LEFT_OUT = "gives more prompts than it was asked for"


@pytest.mark.parametrize("code", [GENEROUS, ENDLESS], ids=["generous", "endless"])
@pytest.mark.parametrize("budget", [24, 15])
def test_a_sampler_that_gives_more_than_it_was_asked_for_stays_in_the_budget(
    encyclo, site: Site, flags, tmp_path: Path, code: str, budget: int
):
    site.install("giving", code)
    more = ["--per-concept", "4", "--budget", str(budget), "--out", tmp_path / "run"]
    result = encyclo("run", *flags(sampler=["giving"]), *more)
    assert result.returncode == 0, result.stderr
    given = counts(tmp_path / "run")
    assert given.sum() == budget and given.min() >= 2
    assert result.stderr.count(LEFT_OUT) == 1 and "The sampler giving" in result.stderr


@pytest.mark.parametrize("code", [GENEROUS, ENDLESS], ids=["generous", "endless"])
def test_that_is_said_once_over_several_units(encyclo, site: Site, flags, tmp_path: Path, code: str):
    site.install("giving", code)
    chosen = flags(sampler=["giving"], limit=5, per_concept=900)
    result = encyclo("run", *chosen, "--budget", "4500", "--out", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "run" / "commits").glob("*.json"))) == 3
    assert counts(tmp_path / "run").tolist() == [900] * 5
    assert result.stderr.count(LEFT_OUT) == 1


def test_one_that_gives_what_it_was_asked_for_is_not_reported(encyclo, flags, tmp_path: Path):
    result = encyclo("run", *flags(), "--out", tmp_path / "run")
    assert result.returncode == 0 and LEFT_OUT not in result.stderr
    assert counts(tmp_path / "run").tolist() == [16] * 6


def test_an_endless_sampler_can_be_planned_with(encyclo, site: Site, flags):
    site.install("giving", ENDLESS)
    result = encyclo("plan", *flags(sampler=["giving"]), "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["prompts"] == 6 * 16


def test_a_family_of_two_samplers_is_on_one_side_of_the_split(encyclo, site: Site, flags, tmp_path: Path):
    from encyclo.runs.directory import read_record
    from encyclo.runs.reopen import reopen_run
    from encyclo.terminal import ConsoleProgress

    first = SAMPLER.replace("NUMBERS", "range(wanted)").replace("% 8", "% 16")
    site.install("first", first)
    site.install("second", first.replace("STAGE = 1", "STAGE = 2").replace('f"{number} ', 'f"the {number} '))
    out = tmp_path / "run"
    result = encyclo("run", *flags(sampler=["first", "second"]), "--targets", "0.9,0.9,0.9,0.9", "--out", out)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((out / "metrics.json").read_text())
    assert [row["samples"] for row in metrics["stages"]] == [96, 96]
    families = [family for names in metrics["splits"].values() for family in names]
    assert sorted(families) == sorted({f"family {i}" for i in range(16)}), "each once"
    run = reopen_run(out, read_record(out), ConsoleProgress(quiet=True))
    samples = run.load_samples(run.ledger.ordered())
    assert len(samples) == 192
    for family in range(16):
        assert len(set(samples.split[samples.family == family].tolist())) == 1, samples.families[family]


def test_a_units_id_covers_the_capture_plugins_version_and_fingerprint(site: Site, flags, tmp_path: Path):
    from encyclo.config import load_config
    from encyclo.pipeline.rounds import Plan
    from encyclo.pipeline.units import plan_units, recipe
    from encyclo.runs.session import prepare
    from encyclo.terminal import ConsoleProgress

    chosen = flags(sampler=["raw"], interpreter="centroid", scorer="calibrated")

    def identity() -> str:
        session = prepare(load_config({}, Path(chosen[1])), ConsoleProgress(quiet=True))
        plan = Plan(0, 0, (0, 1), (1, 1), (0, 0))
        (unit,) = plan_units(session.concepts, plan, recipe(session, session.stages[0], ()))
        return unit.id

    before = identity()
    assert identity() == before
    site.install("engine", ENGINE, version="1.1")
    newer = identity()
    site.module("engine").FINGERPRINT = "other data"
    assert len({before, newer, identity()}) == 3


@pytest.mark.parametrize("rounds", ["kept", "deleted"])
def test_a_run_that_goes_on_with_another_version_of_its_capture_captures_again(
    encyclo, site: Site, flags, tmp_path: Path, rounds: str
):
    """The other version's samples are no longer part of the run: no concept has samples twice."""
    out = tmp_path / "run"
    assert encyclo("run", *flags(), "--out", out).returncode == 0
    (before,) = (out / "commits").iterdir()
    (out / "metrics.json").unlink()
    if rounds == "deleted":
        shutil.rmtree(out / "rounds")
    site.install("engine", ENGINE, version="1.1")
    site.seen()
    result = encyclo("run", *flags(), "--out", out)
    assert result.returncode == 0, result.stderr
    assert "capture_layers" in site.seen()
    assert encyclo("verify", out).stdout.endswith("whole (a finished run, 1 unit, 96 samples)\n")
    assert not before.exists() and not list((out / "parts").glob(f"{before.stem}*"))


def test_the_interpreter_is_loaded_and_hashed_once(
    encyclo, site: Site, flags, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from encyclo.storage import files

    assert encyclo("run", *flags(), "--out", tmp_path / "run").returncode == 0
    site.seen()
    hashed: list[str] = []
    sha256_of = files.sha256_of
    monkeypatch.setattr(
        files, "sha256_of", lambda path, *more: hashed.append(path.name) or sha256_of(path, *more)
    )
    with library.open(tmp_path / "run") as book:
        for _ in range(2):
            for entry in book:
                assert len(book.confused_with(entry.name)) == 5
        book.read("3 word1")
    assert len(site.seen()["load_interpreter"]) == 1
    assert hashed.count("means.npy") == 1


def test_every_hook_of_a_run_gets_its_folder_its_options_and_the_device(
    encyclo, site: Site, flags, tmp_path: Path
):
    """Plugins get the user's device, here `auto`; the capture gets the one that the model chose, here `chip`."""
    out = tmp_path / "run"
    assert encyclo("run", *flags(), "--out", out).returncode == 0
    seen = site.seen()
    assert seen.keys() == {
        "load_model", "sample_prompts", "capture_layers", "train_interpreter", "score_confidence",
    }  # fmt: skip
    for hook, calls in seen.items():
        device = "chip" if hook == "capture_layers" else "auto"
        for folder, given, options in calls:
            assert (folder, given, options.sharpness) == (out / "plugins" / "engine", device, 2.5), hook


@pytest.mark.parametrize("command", ["show", "show again", "read", "evaluate", "run"])
def test_whoever_opens_a_run_again_gets_the_same(encyclo, site: Site, flags, tmp_path: Path, command: str):
    out = tmp_path / "run"
    assert encyclo("run", *flags(), "--out", out).returncode == 0
    if command == "run":  # what finishing does again: the last round's interpreter is recalled
        (out / "metrics.json").unlink()
    if command == "show again":  # what the run has kept of the interpreter is gone
        (out / "details.json").unlink()
    site.seen()
    arguments = {
        "show": ["show", out, "word1"],
        "show again": ["show", out, "word1"],
        "read": ["read", out, "3 word1"],
        "evaluate": ["evaluate", out],
        "run": ["run", *flags(), "--out", out],
    }[command]
    result = encyclo(*arguments)
    assert result.returncode == 0, result.stderr
    seen = site.seen()
    # What `show` says of the interpreter, the run has kept.
    assert len(seen.get("load_interpreter", ())) == (command != "show")
    assert ("load_model" in seen) == (not command.startswith("show"))
    for hook in ("load_interpreter", "load_model"):
        for folder, _, options in seen.get(hook, ()):
            assert (folder, options.sharpness) == (out / "plugins" / "engine", 2.5), hook
    if command in ("evaluate", "run"):
        assert {device for _, device, _ in seen["load_interpreter"]} == {"auto"}


def test_an_interpreter_may_save_folders_in_its_folder(encyclo, flags, tmp_path: Path):
    out, copy, exported = tmp_path / "run", tmp_path / "copy", tmp_path / "exported"
    assert encyclo("run", *flags(), "--out", out).returncode == 0
    kept = Path("interpreter") / "arrays" / "first" / "means.npy"
    assert encyclo("verify", out).returncode == 0
    assert encyclo("convert", out, "--store", "zarr", "--out", copy).returncode == 0
    assert encyclo("export", out, "--out", exported, "--no-parquet").returncode == 0
    shown = [encyclo("show", run, "word1", "--json") for run in (out, copy)]
    assert [result.returncode for result in shown] == [0, 0], shown[0].stderr
    assert shown[0].stdout == shown[1].stdout
    assert encyclo("verify", copy).returncode == 0
    assert (out / kept).read_bytes() == (copy / kept).read_bytes() == (exported / kept).read_bytes()
    written = json.loads((exported / "metadata.json").read_text())["files"]
    assert kept.as_posix() in written
    damaged = bytearray((out / kept).read_bytes())
    damaged[-1] ^= 1
    (out / kept).write_bytes(damaged)
    found = encyclo("verify", out)
    assert found.returncode == 1 and "means.npy: it is not what the run wrote" in found.stdout
    (out / "details.json").unlink()  # so that `show` reads the interpreter again
    for refused in (encyclo("read", out, "3 word1"), encyclo("show", out, "word1")):
        assert refused.returncode == 1 and "means.npy" in one_sentence(refused.stderr)


@pytest.mark.parametrize("way", ["up", "absolute", "link", "linked folder", "list", "none"])
def test_checksums_of_what_is_not_the_interpreters_are_refused(tmp_path: Path, way: str):
    from encyclo.errors import DamagedError
    from encyclo.runs.interpreter_folder import check_sums
    from encyclo.storage import files

    outside, folder = tmp_path / "outside", tmp_path / "interpreter"
    outside.mkdir()
    (folder / "arrays").mkdir(parents=True)
    for place in (outside, folder / "arrays"):
        (place / "means.npy").write_bytes(b"means")
    name = "arrays/means.npy"
    sums: Any = {name: files.sha256_of(folder / name)}
    (folder / "sha256.json").write_text(json.dumps(sums))
    assert check_sums(folder) == [folder / name]
    if way == "up":
        sums = {"../outside/means.npy": sums[name]}
    elif way == "absolute":
        sums = {str(outside / "means.npy"): sums[name]}
    elif way == "link":
        (folder / name).unlink()
        (folder / name).symlink_to(outside / "means.npy")
    elif way == "linked folder":
        shutil.rmtree(folder / "arrays")
        (folder / "arrays").symlink_to(outside)
    else:
        sums = [name] if way == "list" else None
    (folder / "sha256.json").write_text(json.dumps(sums))
    with pytest.raises(DamagedError) as refused:
        check_sums(folder)
    assert "\n" not in str(refused.value)


def test_run_json_lists_what_the_plugins_packages_need(encyclo, site: Site, flags, tmp_path: Path):
    for name in ("tensors", "spare"):
        info = site.path / f"{name}-3.7.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 3.7\n")
    needs = 'tensors[fast]>=3; python_version >= "3"\nspare; extra == "all"\nnot-there\nno requirement at all'
    site.install("engine", ENGINE, needs=needs)
    site.install("bystander", SAMPLER, needs="spare")
    assert encyclo("run", *flags(), "--out", tmp_path / "run").returncode == 0
    versions = json.loads((tmp_path / "run" / "run.json").read_text())["versions"]
    assert versions["engine-package"] == "1.0" and versions["tensors"] == "3.7"
    assert versions.keys() >= {"encyclo", "numpy", "torch"}
    assert not versions.keys() & {"spare", "not-there", "bystander-package"}


CALIBRATING = ENGINE.replace(
    "    return Scores(half, half - np.float32(0.1), half + np.float32(0.1), {})",
    """    from encyclo.statistics.confidence import collect_readings, fit, training_distribution
    from dataclasses import replace
    known = training_distribution(samples)
    rows = samples.named_rows(Split.CALIBRATION)
    own = replace(fit(collect_readings(interpreter, samples, rows, known), known), temperature=7.5)
    return Scores(half, half - np.float32(0.1), half + np.float32(0.1), {"temperature": own.temperature}, own)""",
)


def calibrator(out: Path) -> dict[str, Any]:
    return json.loads((out / "calibration.json").read_text())["calibrator"]


def confidences(encyclo, out: Path) -> list[float | None]:
    read = json.loads(encyclo("read", out, "3 word1 word2 word29", "--any-word", "--json").stdout)
    assert read["calibrated"] == ((out / "calibration.json").exists())
    return [token["concepts"][0]["confidence"] for token in read["tokens"]]


def test_a_scorer_without_a_calibrator_gets_the_cores(encyclo, flags, tmp_path: Path):
    out = tmp_path / "run"
    assert encyclo("run", *flags(), "--out", out).returncode == 0
    assert json.loads((out / "calibration.json").read_text())["fitted_on"] == "heldout_prompts"
    assert all(0 <= value <= 1 for value in confidences(encyclo, out))
    with library.open(out) as book:
        assert book.reader().calibrator.temperature == calibrator(out)["temperature"] != 7.5


def test_a_scorers_own_calibrator_is_what_reads(encyclo, site: Site, flags, tmp_path: Path):
    plain, own, again = tmp_path / "plain", tmp_path / "own", tmp_path / "again"
    assert encyclo("run", *flags(), "--out", plain).returncode == 0
    site.install("calibrating", CALIBRATING)
    chosen = flags(scorer="calibrating")
    assert encyclo("run", *chosen, "--out", own).returncode == 0
    assert calibrator(own)["temperature"] == 7.5
    assert json.loads((own / "metrics.json").read_text())["calibration"]["temperature"] == 7.5
    assert confidences(encyclo, own) != confidences(encyclo, plain)
    assert encyclo("evaluate", own).returncode == 0
    assert calibrator(own)["temperature"] == 7.5
    with library.open(own) as book:
        assert book.reader().calibrator.temperature == 7.5
    shutil.copytree(own, again)  # its last round was judged by another process
    for name in ("metrics.json", "calibration.json"):
        (again / name).unlink()
    assert encyclo("run", *chosen, "--out", again).returncode == 0
    assert (again / "calibration.json").read_bytes() == (own / "calibration.json").read_bytes()
