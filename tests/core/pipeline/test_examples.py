"""Sentences by other authors test the interpreter: no sampler ever sees them, so they are never used for training."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import pytest

from encyclo import Concept, Prompt, hookimpl
from encyclo.config import load_config
from encyclo.runs.session import prepare
from encyclo.storage.files import sha256_of
from encyclo.terminal import ConsoleProgress
from tests.commands import one_sentence
from tests.small_wordnet import Line, write_database

SENTENCES = ("An owl called from the barn.", "Owls see at night.")


@pytest.fixture
def flags(tmp_path: Path, tiny_flags: list[str]) -> list[str]:
    path = tmp_path / "birds.csv"
    path.write_text(f"name,examples\nowl,{'|'.join(SENTENCES)}\nwren,A wren sang.\n")
    return ["--concepts", "file", "-o", f"file.path={path}", "--sampler", "raw", *tiny_flags]


@pytest.fixture
def cheat(monkeypatch: pytest.MonkeyPatch) -> list[Concept]:
    """Replace the sampler `raw` by one that looks for examples everywhere; return the concepts it saw."""
    from encyclo_samplers import raw

    seen: list[Concept] = []

    @hookimpl
    def sample_prompts(concepts, context):
        reachable = [value for value in vars(context).values() if isinstance(value, list | tuple)]
        seen.extend(concept for values in reachable for concept in values if isinstance(concept, Concept))
        for concept in concepts:
            seen.append(concept)
            for text in concept.examples or [concept.name]:
                yield Prompt(concept.id, text, (0, len(concept.name)), family="cheat")

    monkeypatch.setattr(raw, "sample_prompts", sample_prompts)
    return seen


def test_a_sampler_that_tries_to_use_them_finds_none(encyclo, flags, cheat: list[Concept], tmp_path: Path):
    result = encyclo("run", *flags, "--out", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    assert {concept.name for concept in cheat} == {"owl", "wren"}
    assert all(concept.examples == () for concept in cheat)
    with h5py.File(tmp_path / "run" / "encyclopedia.h5") as file:
        assert set(file["samples/prompt"].asstr()[...]) == {"owl", "wren"}


def test_planning_hands_out_none_either(encyclo, flags, cheat: list[Concept], tmp_path: Path):
    assert encyclo("plan", *flags, "--out", tmp_path / "run").returncode == 0
    assert cheat and all(concept.examples == () for concept in cheat)


def test_evaluation_still_has_them(flags, tmp_path: Path):
    given = {"concepts": "file", "sampler": ("raw",), "model": flags[-5], "layers": (1,), "device": "cpu"}
    session = prepare(load_config(given, None, [flags[3]]), ConsoleProgress(quiet=True))
    assert session.concepts[0].examples == SENTENCES
    assert [c.id for c in session.trainable] == [c.id for c in session.concepts]
    changed = tmp_path / "birds.csv"
    record = session.resolved()["concepts_sha256"]
    changed.write_text(changed.read_text().replace("sang", "sings"))
    again = prepare(load_config(given, None, [flags[3]]), ConsoleProgress(quiet=True))
    assert again.resolved()["concepts_sha256"] != record


OWN = "concept,sentence,start,end\nwren,The little thing sang again.,4,16\nowl,Two owls flew.,,\n"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.csv"
    path.write_text(OWN)
    return path


def test_a_file_tests_beside_the_lists_own(encyclo, flags, own: Path, tmp_path: Path):
    out = tmp_path / "run"
    result = encyclo("run", *flags, "--examples", own, "--out", out)
    assert result.returncode == 0, result.stderr
    record, metrics = (json.loads((out / name).read_text()) for name in ("run.json", "metrics.json"))
    assert metrics["accuracy"]["natural"]["transformer"]["n"] == 5
    assert record["config"]["examples"] == str(own)
    assert record["provenance"]["concept_files"][str(own)] == sha256_of(own)
    with h5py.File(out / "encyclopedia.h5") as file:
        assert set(file["samples/prompt"].asstr()[...]) == {"owl", "wren"}
    assert encyclo("evaluate", out).returncode == 0

    moved = tmp_path / "moved.csv"
    own.rename(moved)
    gone = encyclo("evaluate", out)
    assert gone.returncode == 2 and str(own) in one_sentence(gone.stderr)
    again = encyclo("run", *flags, "--examples", moved, "--out", out)
    assert again.returncode == 0, again.stderr
    assert encyclo("evaluate", out).returncode == 0

    moved.write_text(OWN.replace("4,16", "4,10"))
    changed = encyclo("evaluate", out)
    assert changed.returncode == 2 and str(moved) in one_sentence(changed.stderr)
    resumed = encyclo("run", *flags, "--examples", moved, "--out", out)
    assert resumed.returncode == 2 and "other concepts" in one_sentence(resumed.stderr)


@pytest.mark.parametrize("concepts", ["core", "wordnet"])
def test_a_file_tests_with_every_list(tmp_path: Path, tiny_gemma: Path, monkeypatch, concepts: str):
    line = Line("n", ["dog", "hound"], 'a barker; "the dog barked"', 5, ids=[0, 0])
    write_database(tmp_path / "dict", {"dog": line}, {"dog%1:05:00::": 42})
    monkeypatch.setenv("WNSEARCHDIR", str(tmp_path / "dict"))
    (tmp_path / "own.jsonl").write_text(
        '{"concept": "dog", "sentence": "The beast sat.", "start": 4, "end": 9}\n'
    )
    given = {"concepts": concepts, "sampler": ("raw",), "model": str(tiny_gemma), "layers": (1,)}
    config = load_config({**given, "examples": tmp_path / "own.jsonl"})
    session = prepare(config, ConsoleProgress(quiet=True))
    dog = next(concept for concept in session.concepts if concept.name == "dog")
    assert (dog.examples[-1], dog.example_spans[-1]) == ("The beast sat.", (4, 9))
    assert len(dog.examples) == len(dog.example_spans) == (2 if concepts == "wordnet" else 1)
    assert not any(concept.examples or concept.example_spans for concept in session.trainable)
