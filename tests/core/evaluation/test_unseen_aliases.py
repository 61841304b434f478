"""The rung `aliases`: the words that it reads stood in no training sample of their concepts."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from encyclo.english import find_mention
from encyclo.evaluation.evaluate import evaluate
from encyclo.evaluation.unseen_aliases import capture_aliases, families_that_test, sentences, unseen_aliases
from encyclo.held_out_aliases import held_out, named
from encyclo.pipeline.natural_sentences import prompts_of
from encyclo.runs.directory import read_record
from encyclo.runs.open_run import OpenRun
from encyclo.runs.reopen import reopen_run
from encyclo.storage.ledger import read_committed
from encyclo.terminal import ConsoleProgress
from encyclo.types import Concept

NAMES = [
    "apple",
    "bread",
    "chair",
    "dog",
    "engine",
    "forest",
    "garden",
    "hammer",
    "island",
    "jacket",
    "kitchen",
    "ladder",
    "market",
    "needle",
    "ocean",
    "pencil",
    "queen",
    "river",
    "spoon",
    "table",
    "umbrella",
    "village",
    "window",
    "yard",
]


def made_up(number: int) -> list[str]:
    letters = "bdfgklmnprst"
    return [f"{a}{letters[number % 12]}u{letters[number // 12]}ix" for a in ("vo", "ze")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_flags: list[str]) -> Path:
    """A finished run of a list whose concepts have two made-up aliases each."""
    from encyclo.cli import run_command

    folder = tmp_path_factory.mktemp("aliases")
    path, out = folder / "list.jsonl", folder / "run"
    lines = []
    for number, name in enumerate(NAMES):
        aliases = made_up(number)
        examples = [f"They sold {a} at noon." for a in aliases] + [f"A {a} is a {name}." for a in aliases]
        aliases += [f"old {name}"] * (number == 3) + ["wrox"] * (number in (5, 6))
        lines.append(json.dumps({"name": name, "aliases": aliases, "examples": examples, "countable": True}))
    path.write_text("\n".join(lines), encoding="utf-8")
    flags = ["--sampler", "raw", "--sampler", "templates", "--concepts", "file", "-o", f"file.path={path}"]
    assert run_command(["run", *flags, "--out", str(out), *tiny_flags]) == 0
    return out


@pytest.fixture(scope="module")
def run(finished: Path) -> OpenRun:
    return reopen_run(finished, read_record(finished), ConsoleProgress(quiet=True))


def test_no_training_sample_has_a_held_out_alias(run: OpenRun):
    texts = list(prompts_of(run.store, run.ledger.ordered()))
    concepts = run.session.concepts
    out = [named(c, a) for c in concepts for a in held_out(c, 0) if a != "wrox"]
    kept = [named(c, a) for c in concepts for a in c.aliases if a not in held_out(c, 0)]
    assert len(out) >= len(NAMES)
    assert not any(find_mention(text, alias) for text in texts for alias in out)
    assert sum(any(find_mention(text, alias) for alias in kept) for text in texts) > 0.15 * len(texts)


def test_it_reads_held_out_aliases_in_families_that_test(run: OpenRun):
    commits, session = run.ledger.ordered(), run.session
    samples = run.load_samples(commits)
    rung = capture_aliases(run, samples, commits, 1000)
    assert rung is not None
    families = {rung.samples.families[f] for f in rung.samples.family[rung.rows]}
    assert "natural" in families and families <= {"natural", *families_that_test(samples)}
    assert len(families) > 2
    aliases, left_out = unseen_aliases(run, commits)
    assert {session.concepts[a.place].id for a in aliases} == {
        session.concepts[c].id for c in rung.samples.concept
    }
    assert rung.left_out == left_out
    assert len(aliases) + left_out == sum(len(held_out(c, 0)) for c in session.concepts)
    assert not {a.word for a in aliases} & {"wrox", "old dog"}


def test_a_word_that_stood_in_a_sample_is_left_out(run: OpenRun):
    """Such as one that a model wrote into a sentence about the concept."""
    session, commits = run.session, run.ledger.ordered()
    part = read_committed(run.store, commits[-1])
    place = int(part.concept[0])
    name = session.concepts[place].name
    stood = next(w for w in re.findall(r"[a-z]{5,}", part.prompt[0].lower()) if w not in name)
    for word, expected in ((stood, False), ("brofix", True)):
        concepts = list(session.concepts)
        concepts[place] = dataclasses.replace(concepts[place], aliases=(), held_out_aliases=(word,))
        changed = OpenRun(dataclasses.replace(session, concepts=concepts), run.directory, run.store)
        found, _ = unseen_aliases(changed, commits)
        assert any((a.place, a.word) == (place, word) for a in found) == expected


def test_a_sentence_that_has_another_name_too_is_not_read(run: OpenRun):
    (alias, *_), _ = unseen_aliases(run, run.ledger.ordered())
    assert [p.text for p in sentences(run.session, alias)] == [f"They sold {alias.word} at noon."]


def test_evaluate_measures_it_with_interval_null_and_baseline(finished: Path):
    rung = evaluate(finished, ConsoleProgress(quiet=True)).as_json()["accuracy"]["aliases"]
    assert rung.keys() == {"transformer", "centroid", "logistic"}
    for figures in rung.values():
        assert figures["n"] > len(NAMES) and figures["candidates"] == len(NAMES)
        assert figures["top1_low"] <= figures["top1"] <= figures["top1_high"]
        assert figures["null"]["n"] == figures["n"] == figures["calibration"]["n"]
    assert "mentions of the concept by a word" in (finished / "report.html").read_text()


def test_without_aliases_there_is_no_such_rung(run: OpenRun):
    session, commits = run.session, run.ledger.ordered()
    concepts: list[Concept] = [dataclasses.replace(c, aliases=()) for c in session.concepts]
    plain = OpenRun(dataclasses.replace(session, concepts=concepts), run.directory, run.store)
    assert capture_aliases(plain, run.load_samples(commits), commits, 1000) is None
