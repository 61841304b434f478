"""Sentences by other authors test the interpreter: no sampler ever sees them, so they are never used for training."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest

from encyclo import Concept, Prompt, hookimpl

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
    from encyclo.config import load_config
    from encyclo.runs.session import prepare
    from encyclo.terminal import ConsoleProgress

    given = {"concepts": "file", "sampler": ("raw",), "model": flags[-5], "layers": (1,), "device": "cpu"}
    session = prepare(load_config(given, None, [flags[3]]), ConsoleProgress(quiet=True))
    assert session.concepts[0].examples == SENTENCES
    assert [c.id for c in session.trainable] == [c.id for c in session.concepts]
    changed = tmp_path / "birds.csv"
    record = session.resolved()["concepts_sha256"]
    changed.write_text(changed.read_text().replace("sang", "sings"))
    again = prepare(load_config(given, None, [flags[3]]), ConsoleProgress(quiet=True))
    assert again.resolved()["concepts_sha256"] != record
