"""`encyclo evaluate`: every rung on a tiny model, and that nothing leaks from tests into training."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from encyclo.cli.views.ladder import print_ladder
from encyclo.english import find_mention
from encyclo.errors import EncycloError
from encyclo.evaluation.absent import mentions
from encyclo.evaluation.evaluate import evaluate, write
from encyclo.evaluation.rungs import capture_definitions, check_apart, described_prompts
from encyclo.evaluation.unseen_concepts import take_out_concepts
from encyclo.pipeline.natural_sentences import NaturalSentences, RungSamples, natural_prompts, prompts_of
from encyclo.runs.directory import read_record
from encyclo.runs.metrics import Metrics, read_metrics, write_metrics
from encyclo.runs.open_run import OpenRun
from encyclo.runs.reopen import reopen_run
from encyclo.statistics.splits import unseen_concepts
from encyclo.storage import checksums
from encyclo.terminal import ConsoleProgress
from encyclo.types import Concept, SampleSet, Split
from tests.commands import one_sentence

NAMED = 60


def write_list(folder: Path) -> Path:
    """A user's list: core's first concepts, with a sentence that mentions each and one that doesn't."""
    from encyclo_concepts.core import Options, load_concepts

    path = folder / "list.jsonl"
    lines = []
    for concept, _ in zip(load_concepts(Options()), range(NAMED), strict=False):
        lines.append(
            {
                "name": concept.name,
                "part_of_speech": concept.part_of_speech,
                "category": concept.category,
                "definition": concept.definition,
                "examples": [f"Nobody there had any {concept.name} left to give.", "It rained all day."],
            }
        )
    lines[3]["definition"] = f"what every {lines[3]['name']} is"
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory, tiny_flags: list[str]) -> tuple[Path, Path]:
    """(a finished run of a user's list, the list)."""
    from encyclo.cli import run_command

    folder = tmp_path_factory.mktemp("evaluate")
    path, out = write_list(folder), folder / "run"
    flags = ["--sampler", "templates", "--concepts", "file", "-o", f"file.path={path}"]
    assert run_command(["run", *flags, "--out", str(out), *tiny_flags]) == 0
    return out, path


@pytest.fixture(scope="module")
def climbed(listed: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A copy of the run, evaluated, and its metrics."""
    out = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(listed[0], out)
    return out, evaluate(out, ConsoleProgress(quiet=True)).as_json()


@pytest.fixture(scope="module")
def opened(listed: tuple[Path, Path]):
    """(run, samples, definitions) of the run, open again."""
    run = reopen_run(listed[0], read_record(listed[0]), ConsoleProgress(quiet=True))
    return run, run.load_samples(run.ledger.ordered()), capture_definitions(run, 1000)


def test_a_run_measures_natural_sentences_by_itself(listed: tuple[Path, Path]):
    metrics = json.loads((listed[0] / "metrics.json").read_text())
    natural = metrics["accuracy"]["natural"]
    assert natural["transformer"]["n"] == natural["centroid"]["n"] == NAMED
    assert metrics["accuracy"]["unseen"] is None
    assert (listed[0] / "calibration.json").exists()


def test_its_metrics_read_and_written_again_are_the_same_json(climbed: tuple[Path, dict], tmp_path: Path):
    write_metrics(tmp_path, read_metrics(climbed[0]))
    assert (tmp_path / "metrics.json").read_text() == (climbed[0] / "metrics.json").read_text()


def test_every_rung_stands_beside_the_baseline_with_interval_and_null(climbed: tuple[Path, dict]):
    accuracy = climbed[1]["accuracy"]
    assert accuracy["adversarial"] is None
    for rung in ("heldout_prompts", "natural", "described", "unseen"):
        assert accuracy[rung].keys() == {"transformer", "centroid", "logistic"}
        for figures in accuracy[rung].values():
            assert figures["candidates"] == NAMED and figures["n"] > 0
            assert figures["top1_low"] <= figures["top1"] <= figures["top1_high"]
            assert figures["top1"] <= figures["top10"] <= figures["top100"] == 1
            assert figures["null"]["n"] == figures["n"] and figures["null"]["top1"] < 0.2
            assert sum(row["n"] for row in figures["by_category"].values()) == figures["n"]
            wrong = round((1 - figures["top1"]) * figures["n"])
            assert sum(times for *_, times in figures["confused"]) <= wrong
    calibration = accuracy["heldout_prompts"]["transformer"]["calibration"]
    assert calibration["n"] > accuracy["heldout_prompts"]["transformer"]["n"]
    assert 0.8 < calibration["conformal"]["coverage"] <= 1


def test_definitions_that_name_their_concept_are_left_out(climbed: tuple[Path, dict], opened):
    run, _, definitions = opened
    session = run.session
    read = {session.concepts[c].name for c in definitions.samples.concept}
    assert definitions.left_out == NAMED - len(read) >= 1
    assert session.concepts[3].name not in read
    assert climbed[1]["accuracy"]["described"]["transformer"]["left_out"] >= 1


def test_a_random_model_still_knows_what_it_has_seen(climbed: tuple[Path, dict]):
    for kinds in climbed[1]["unfamiliar"].values():
        assert kinds["noise"]["median"] < kinds["known"]["median"]
        assert all(0 <= row["median"] <= 1 and row["n"] > 0 for row in kinds.values())


def test_absent_concepts_are_read_as_by_encyclo_read(climbed: tuple[Path, dict]):
    """No concept's name is another's word: where one is absent, nothing is read, and no known sample is lost."""
    metrics = climbed[1]
    for name, row in metrics["absent"].items():
        kinds = metrics["unfamiliar"][name]
        assert row["interpreter_alone"] == kinds["absent"] and row["known"] == kinds["known"]["n"]
        assert row["read"]["above_half"] == row["read"]["median"] == 0 and row["read"]["n"] > 0
        assert row["known_lost"] < 0.05


def test_samples_are_read_with_their_own_texts(opened):
    run, samples, _ = opened
    rows = samples.named_rows(Split.TEST)[::7]
    found = mentions(run, run.ledger.ordered(), samples, rows)
    assert np.array_equal(found.activations, samples.read(rows))
    for concept, text in zip(found.concept, found.upto, strict=True):
        assert find_mention(text, run.session.concepts[concept])[1] == len(text)


def test_the_trial_trains_on_nothing_of_an_unseen_concept(opened):
    """Rows are identified by their activations: no sample of a held-out concept is among the trial's."""
    run, samples, definitions = opened
    session = run.session
    found = take_out_concepts(session, samples, definitions)
    held = set(unseen_concepts(session.concepts, session.config.seed))
    assert len(found.joining) == len(held) == NAMED // 5
    candidates = [concept.id for concept in found.candidates]
    assert set(candidates[found.trained :]) == {session.concepts[c].id for c in held}
    assert found.training.concept.min() == 0 and found.training.concept.max() < found.trained
    trained = {row.tobytes() for row in found.training.read(np.arange(len(found.training)))}
    for rows, source in ((np.arange(len(samples)), samples), (definitions.rows, definitions.samples)):
        secret = rows[np.isin(source.concept[rows], list(held))]
        assert len(secret) and not trained & {row.tobytes() for row in source.read(secret)}
    # What joins and what is read come from other families.
    unseen = {samples.families[f] for f in samples.family[found.unseen.rows]}
    assert unseen.isdisjoint({samples.families[f] for f in samples.family[samples.rows(Split.TRAIN)]})


def test_the_trials_rows_are_those_of_their_concepts(opened):
    run, samples, definitions = opened
    session = run.session
    found = take_out_concepts(session, samples, definitions)
    place = {concept.id: index for index, concept in enumerate(session.concepts)}
    values = found.training.read(np.arange(len(found.training)))
    for row in (0, 17, len(values) - 1):
        concept = place[found.candidates[found.training.concept[row]].id]
        source = samples if found.training.named[row] else definitions.samples
        own = source.read(np.flatnonzero(source.concept == concept))
        assert any((values[row] == other).all() for other in own)
    training = found.training.rows(Split.TRAIN)
    assert not found.training.named[training].all(), "definitions of trained concepts train"
    # Means are taken over training rows only.
    first = place[found.candidates[found.trained].id]
    rows = samples.rows(Split.TRAIN)
    mean = samples.read(rows[samples.concept[rows] == first]).mean(axis=0)
    np.testing.assert_allclose(found.joining[0], mean, rtol=1e-4, atol=1e-5)


def test_a_definition_that_a_trained_concept_has_too_judges_nothing(opened):
    run, samples, definitions = opened
    session = run.session
    held = unseen_concepts(session.concepts, session.config.seed)
    other = next(c for c in range(NAMED) if c not in held and c in definitions.samples.concept)
    concepts = list(session.concepts)
    secret = next(c for c in held if c in definitions.samples.concept)
    concepts[secret] = dataclasses.replace(concepts[secret], definition=concepts[other].definition.upper())
    before = take_out_concepts(session, samples, definitions).described
    after = take_out_concepts(dataclasses.replace(session, concepts=concepts), samples, definitions).described
    assert len(after.rows) == len(before.rows) - 1 and after.left_out == before.left_out + 1


def test_a_sentence_that_was_trained_on_is_left_out(opened):
    run, _, _ = opened
    session, commits = run.session, run.ledger.ordered()
    trained = next(iter(prompts_of(run.store, commits)))
    name = next(c for c in session.concepts if find_mention(trained, c))
    planted = dataclasses.replace(name, examples=(trained.upper(), *name.examples))
    concepts = [planted if c.id == name.id else c for c in session.concepts]
    changed = OpenRun(dataclasses.replace(session, concepts=concepts), run.directory, run.store)
    found = NaturalSentences(changed).rung(commits)
    assert (len(found.rows), found.left_out) == (NAMED, 1)
    assert len(found.samples) == NAMED + 1


def test_a_rung_is_thinned_over_concepts_first():
    concepts = [Concept(id=f"{i}", name="dog", examples=("a dog", "the dog", "my dog")) for i in range(5)]
    kept = natural_prompts(concepts, 0, limit=7)
    assert sorted({p.concept for p in kept}) == ["0", "1", "2", "3", "4"]
    assert len(kept) == 7 and kept == natural_prompts(concepts, 0, limit=7)
    assert [p.concept for p in kept] == sorted(p.concept for p in kept)
    assert all(p.text[slice(*p.span)] == "dog" for p in kept)


def test_a_second_evaluation_gives_the_same_figures(encyclo, climbed: tuple[Path, dict]):
    out, _ = climbed
    before = json.loads((out / "metrics.json").read_text())
    result = encyclo("evaluate", out, "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["accuracy"] == before["accuracy"] and found["unfamiliar"] == before["unfamiliar"]
    assert json.loads((out / "metrics.json").read_text()) == before
    assert not list(out.glob(".tmp-*")) and not (out / "evaluation").exists()


def test_the_table_and_the_page_show_every_rung(
    climbed: tuple[Path, dict], capsys: pytest.CaptureFixture[str]
):
    out, metrics = climbed
    print_ladder(Metrics.model_validate(metrics), Console(width=160))
    printed = capsys.readouterr().out
    for word in (
        "heldout_prompts",
        "natural",
        "described",
        "unseen",
        "not measured",
        "absent",
        "noise",
        "Absent concepts",
        "ECE",
    ):
        assert word in printed
    assert f"{metrics['accuracy']['natural']['transformer']['top1']:.1%}" in printed
    page = (out / "report.html").read_text()
    for reason in (
        "aliases is not measured: no concept has an alias",
        "adversarial is not measured: the run had no",
    ):
        assert reason in " ".join(printed.split())
        assert reason.partition(": ")[2] in page


def test_concepts_without_examples_have_no_natural_sentences():
    assert natural_prompts([Concept(id="dog", name="dog")], 0, 10) == []


def test_a_definition_is_read_after_examples_that_do_not_name_its_concept():
    shown = Concept(id="dog", name="dog", definition="a beast that guards the house")
    named = Concept(id="lamp", name="lamp", definition="a lamp that stands on a table")
    fit = Concept(id="owl", name="owl", definition="a bird that flies at night")
    prompts, left_out = described_prompts([shown, named, fit], 0, 10)
    assert [prompt.concept for prompt in prompts] == ["owl"] and left_out == 2
    assert (
        prompts[0].text.endswith("Definition: a bird that flies at night\nWord:") and prompts[0].span is None
    )


def test_another_concept_list_is_refused(encyclo, listed: tuple[Path, Path], tmp_path: Path):
    out, path = tmp_path / "run", listed[1]
    shutil.copytree(listed[0], out)
    text, before = path.read_text(), (out / "metrics.json").read_bytes()
    path.write_text(text.replace("It rained all day.", "It snowed all day."))
    try:
        result = encyclo("evaluate", out)
    finally:
        path.write_text(text)
    assert result.returncode == 2
    assert "no longer gives the concepts" in one_sentence(result.stderr)
    assert (out / "metrics.json").read_bytes() == before


def test_another_models_weights_are_refused(encyclo, listed: tuple[Path, Path], tmp_path: Path):
    out = tmp_path / "run"
    shutil.copytree(listed[0], out)
    record = checksums.read_sealed(out / "run.json", at_most=2**20, within=out)
    record["config"]["weights_sha256"] = "0" * 64
    (out / "run.json").write_text(json.dumps(checksums.sealed(record)))
    message = one_sentence(encyclo("evaluate", out).stderr)
    assert "weights 000000000000" in message


def test_an_unfinished_run_is_refused(encyclo, listed: tuple[Path, Path], tmp_path: Path):
    out = tmp_path / "run"
    shutil.copytree(listed[0], out)
    (out / "metrics.json").unlink()
    result = encyclo("evaluate", out)
    assert result.returncode == 2 and "not finished" in one_sentence(result.stderr)
    assert "no run.json" in one_sentence(encyclo("evaluate", tmp_path).stderr)


def test_a_crash_while_writing_leaves_the_old_figures(
    listed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "run"
    shutil.copytree(listed[0], out)
    before = (out / "metrics.json").read_bytes()
    metrics = read_metrics(out).model_copy(update={"unfamiliar": {}})

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("encyclo.storage.files.os.replace", crash)
        with pytest.raises(KeyboardInterrupt):
            write(out, metrics)
    assert (out / "metrics.json").read_bytes() == before
    write(out, metrics)
    assert json.loads((out / "metrics.json").read_text())["unfamiliar"] == {}


def test_a_family_on_both_sides_of_a_rung_is_refused():
    def some(split: Split) -> SampleSet:
        return SampleSet(
            np.zeros(1, np.int32), np.ones(1, bool), np.zeros(1, np.int32), ("natural",),
            np.array([split], np.int8), (1,), fetch=lambda rows: np.zeros((len(rows), 1, 1), np.float32),
        )  # fmt: skip

    with pytest.raises(EncycloError, match="family 'natural'"):
        check_apart(some(Split.TRAIN), RungSamples(some(Split.TEST), np.arange(1)), "natural")
    check_apart(some(Split.TEST), RungSamples(some(Split.TEST), np.arange(1)), "natural")
