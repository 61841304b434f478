"""`encyclo converge`: the figures over the number of samples, and the older protocol compared with this one."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from encyclo.evaluation.converge import OLDER_CONCEPTS, OLDER_SAMPLES, converge, measure_by_layer, older_rows
from encyclo.query.encyclopedia import open_run
from encyclo.statistics import convergence
from encyclo.statistics.signatures import estimate
from encyclo.storage import run_files
from encyclo.storage.sample_rows import sample_set
from encyclo.terminal import ConsoleProgress
from encyclo.types import SampleSet
from tests import stored_runs
from tests.commands import one_sentence
from tests.core.statistics.test_convergence import CONCEPTS, planted, same_counts
from tests.stored_runs import make_part, make_run

QUIET = ConsoleProgress(quiet=True)


def curve_of(samples: SampleSet, concepts: int = CONCEPTS, seed: int = 0) -> dict:
    signatures, contexts = estimate(samples, concepts)
    found = convergence.convergence_curve(samples, signatures, contexts, seed)
    assert found is not None and found.keys() == {"-2", "-1"}
    return found["-1"].as_json()


@pytest.fixture
def copied(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


# --- planted -----------------------------------------------------------------------------------------------------


def test_the_curve_falls_with_the_root_of_the_samples():
    noise = 0.2
    row = curve_of(planted(same_counts(300), noise=noise)[0])
    assert row["samples"] == [2, 4, 8, 16, 32, 64, 128, 256]
    assert row["concepts"] == [CONCEPTS] * 8
    # Halves of n/2 samples with this noise around signatures of size 1 differ by 2 noise / sqrt(n).
    expected = 2 * noise / np.sqrt(row["samples"])
    np.testing.assert_allclose(row["adjusted"], expected, rtol=0.06)
    np.testing.assert_allclose(row["centred"], expected, rtol=0.06)
    assert row["exponent"] == pytest.approx(-0.5, abs=0.02)
    assert row["cosine"] == sorted(row["cosine"]) and abs(np.mean(row["null"])) < 0.05


def test_contexts_keep_the_centred_figure_up_and_not_the_adjusted_one():
    samples, values = planted(same_counts(64), noise=0.2)
    generator = np.random.default_rng(5)
    family = generator.integers(0, 8, len(samples)).astype(np.int32)
    shift = generator.normal(size=(8, *values.shape[1:])) * np.array([1.0, 10.0])[:, None]
    shifted = (values + shift[family]).astype(np.float32)
    samples = dataclasses.replace(
        samples, family=family, families=tuple("abcdefgh"), fetch=lambda rows: shifted[rows]
    )
    row = curve_of(samples)
    assert all(a < c / 2 for a, c in zip(row["adjusted"], row["centred"], strict=True))
    np.testing.assert_allclose(row["adjusted"], 2 * 0.2 / np.sqrt(row["samples"]), rtol=0.15)


def test_points_are_of_the_same_concepts_up_to_where_half_of_them_reach():
    counts = np.array([1, 3] + [6] * 30 + [20] * 35 + [70] * 10)
    signatures, _ = estimate(planted(counts)[0], len(counts))
    points = convergence._points(signatures.count)
    assert [(take, len(chosen)) for take, chosen in points] == [
        (2, 45), (4, 45), (8, 45), (16, 45), (32, 10), (64, 10),
    ]  # fmt: skip
    assert all((counts[chosen] >= max(take, 16)).all() for take, chosen in points)


def test_a_point_takes_no_more_samples_than_it_says():
    samples, _ = planted(same_counts(200))
    signatures, contexts = estimate(samples, CONCEPTS)
    few = convergence.half_splits(samples, signatures, contexts, 0, take=8)
    assert few is not None and few.samples.tolist() == [8] * CONCEPTS
    alone, _ = planted(same_counts(8))
    own = convergence.half_splits(alone, *estimate(alone, CONCEPTS), 0)
    assert own is not None
    assert few.cosine.mean() == pytest.approx(own.cosine.mean(), abs=0.1)
    np.testing.assert_allclose(few.raw.mean(), own.raw.mean(), rtol=0.05)


def test_only_the_concepts_asked_for_are_compared():
    samples, _ = planted(same_counts(10))
    signatures, contexts = estimate(samples, CONCEPTS)
    found = convergence.half_splits(samples, signatures, contexts, 0, among=np.array([3, 7, 9]))
    assert found is not None and found.concepts.tolist() == [3, 7, 9] and found.raw.shape == (3, 2)


def test_too_few_samples_give_no_figures():
    for counts in ([3, 3, 3], [1, 9]):
        samples, _ = planted(np.array(counts))
        assert measure_by_layer(samples, len(counts), 0) == (None, None)
        assert len(older_rows(samples, list("abc")[: len(counts)], 0)) == 0
    samples, _ = planted(np.array([5, 5]), named_share=0.0)
    assert measure_by_layer(samples, 2, 0) == (None, None)


def test_the_older_protocol_takes_named_samples_of_so_many_concepts_and_no_more():
    samples, _ = planted(np.array([3] * 5 + [30] * 250), named_share=0.9)
    names = [f"n{i}" for i in range(255)]
    rows = older_rows(samples, names, 0)
    assert samples.named[rows].all() and (np.diff(rows) > 0).all()
    owner, count = np.unique(samples.concept[rows], return_counts=True)
    assert len(owner) == OLDER_CONCEPTS and owner.min() >= 5
    assert set(count) == {OLDER_SAMPLES}
    np.testing.assert_array_equal(rows, older_rows(samples, names, 0))
    assert set(rows) != set(older_rows(samples, names, 1))


# --- a run -------------------------------------------------------------------------------------------------------


def test_the_table_is_the_runs_own(encyclo, copied: Path):
    result = encyclo("converge", copied, "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["layers"] == json.loads((copied / "metrics.json").read_text())["convergence"]
    assert found["older"] is None and (found["concepts"], found["samples"], found["finished"]) == (
        40,
        400,
        True,
    )
    assert list(found["curve"]) == ["1", "-2", "-1"]
    row = found["curve"]["-2"]
    assert row["samples"] == [2, 4, 8] and row["concepts"] == [40, 40, 40]
    assert row["adjusted"] == sorted(row["adjusted"], reverse=True) and row["exponent"] < 0
    del found["out"]
    assert json.loads((copied / "convergence.json").read_text()) == found


def test_without_the_older_protocol_no_model_is_needed(
    encyclo, copied: Path, monkeypatch: pytest.MonkeyPatch
):
    from encyclo.runs import reopen as reopening

    def fail(*_: object) -> None:
        raise AssertionError("the model was asked for")

    monkeypatch.setattr(reopening, "prepare", fail)
    assert encyclo("converge", copied).returncode == 0
    assert encyclo("converge", copied, "--older").returncode == 1


def test_the_older_protocol_is_captured_anew(copied: Path):
    """Its figures are those of a direct computation: all tokens' mean, at the last layer, of the same prompts."""
    from encyclo_capture.model import TransformersModel

    found = converge(copied, QUIET, "cpu", older=True).as_json()
    older = found["older"]
    assert (older["pooling"], older["layer"], older["concepts"], older["samples"]) == (
        "mean-all",
        -1,
        40,
        400,
    )
    # All of a concept's prompts were taken, in the run's order: this run's pooling gives the run's figures.
    assert older["here"] == found["layers"]
    with open_run(copied) as book:
        part, record = book.samples(), book.record
        model = TransformersModel(record["config"]["model"], "cpu")
        states = model.forward(part.prompt, [model.depth])
        values = np.stack([tokens[:, 0].mean(axis=0) for tokens in states])[:, None]
        samples = dataclasses.replace(
            sample_set(book.source, book.layers), layers=(-1,), fetch=lambda rows: values[rows]
        )
    measured = convergence.measure(samples, 40, 0)
    assert measured is not None
    expected = measured["-1"].as_json()
    for name in ("raw_rel_diff", "centred_rel_diff", "cosine"):
        assert older["figures"][name] == pytest.approx(expected[name], rel=0.03, abs=0.02), name
    assert older["figures"]["raw_rel_diff"] != pytest.approx(found["layers"]["-1"]["raw_rel_diff"], rel=0.03)


def test_the_same_run_gives_the_same_figures(copied: Path):
    first = converge(copied, QUIET, "cpu", older=True).as_json()
    before = (copied / "convergence.json").read_bytes()
    assert converge(copied, QUIET, "cpu", older=True).as_json() == first
    assert (copied / "convergence.json").read_bytes() == before


def test_figures_of_the_older_protocol_stay_while_the_samples_are_the_same(encyclo, copied: Path):
    file = copied / "convergence.json"
    converge(copied, QUIET, "cpu", older=True)
    before = file.read_bytes()
    assert "The older protocol" in encyclo("converge", copied).stdout
    assert file.read_bytes() == before
    known = json.loads(before)
    for other in ({**known, "samples": 399}, {**known, "run_id": "another"}, {**known, "older": "?"}):
        run_files.write_json(copied, "convergence.json", other)
        assert converge(copied, QUIET).older is None, other
    run_files.write_text(copied, "convergence.json", "{")
    assert converge(copied, QUIET).older is None
    assert json.loads(file.read_text()) == {**known, "older": None}


def test_the_run_stays_whole(encyclo, copied: Path):
    assert encyclo("converge", copied, "--older", "--device", "cpu").returncode == 0
    assert encyclo("verify", copied).returncode == 0
    with open_run(copied) as book:
        assert book.record["config"]["pooling"] == "span"


def test_a_person_sees_tables_of_80_columns(encyclo, copied: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = encyclo("converge", copied, "--older", "--device", "cpu")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    headings = [line.split() for line in lines if "Centred" in line]
    assert headings[0] == ["Layer", "Raw", "In", "5%", "Centred", "Adjusted", "Cosine", "Null", "To", "5%"]
    assert headings[1] == [
        "Layer",
        "95%",
        "in",
        "5%,",
        "raw",
        "Centred",
        "10%",
        "Adjusted",
        "10%",
        "Adjusted",
        "5%",
    ]
    assert headings[2][0] == "Pooling," and any(line.startswith("mean-all -1") for line in lines)
    assert [line.split()[0] for line in lines if line.split()[1:2] == ["40"]] == ["2", "4", "8"]
    assert any(line.startswith("Exponent") for line in lines)


def test_an_unfinished_run_is_measured_on_what_it_has(encyclo, tmp_path: Path):
    run = make_run(tmp_path / "run", "hdf5", finish=False)
    found = json.loads(encyclo("converge", run, "--json").stdout)
    assert (found["finished"], found["layers"].keys()) == (False, {"-2", "-1"})
    with open_run(run) as book:
        named = book.source.columns.span[:, 0] >= 0
        assert found["samples"] == int(named.sum())
        assert found["concepts"] == len(set(book.source.columns.concept[named]))


def test_concepts_without_samples_are_not_counted(encyclo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stored_runs, "parts", lambda: [make_part(20, 0)])
    run = make_run(tmp_path / "run", "hdf5", finish=False)
    found = json.loads(encyclo("converge", run, "--json").stdout)
    with open_run(run) as book:
        named = book.source.columns.span[:, 0] >= 0
        assert 0 < found["concepts"] == len(set(book.source.columns.concept[named])) < len(book)


def test_a_run_of_one_sample_each_says_that_nothing_was_measured(encyclo, tiny_flags, tmp_path: Path):
    flags = ["--limit", "4", "--interpreter", "centroid", *tiny_flags]
    assert encyclo("run", "--sampler", "raw", *flags, "--out", tmp_path / "run").returncode == 0
    result = encyclo("converge", tmp_path / "run", "--older")
    assert result.returncode == 0 and "Not measured" in result.stdout
    assert json.loads((tmp_path / "run" / "convergence.json").read_text())["older"] is None


def test_what_is_no_run_and_a_model_that_changed_are_refused(
    encyclo, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    result = encyclo("converge", tmp_path)
    assert result.returncode == 2 and "run.json" in one_sentence(result.stderr)
    from encyclo_capture.model import TransformersModel

    monkeypatch.setattr(TransformersModel, "weights_sha256", "f" * 64)
    result = encyclo("converge", copied, "--older")
    assert result.returncode == 2 and "ffffffffffff" in one_sentence(result.stderr)
    assert not (copied / "convergence.json").exists()
