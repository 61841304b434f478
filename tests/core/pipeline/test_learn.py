"""`encyclo learn`: which lines say what of which word, and what a run reads after it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import encyclo as package
from encyclo.pipeline.learn import documents, labelled_mentions, last_word, learn
from encyclo.runs.calibration_file import load_calibration
from encyclo.terminal import ConsoleProgress
from encyclo.types import Concept, Prompt
from tests.commands import one_sentence

DOG = Concept("d", "dog", aliases=("guide dog",))
TEXT = "The guide dog's bowl, and a dog."


def written(folder: Path, lines: list[tuple]) -> Path:
    path = folder / "mentions.jsonl"
    keys = ("concept", "sentence", "start", "end", "source")
    path.write_text(
        "\n".join(json.dumps(dict(zip(keys, line, strict=True))) for line in lines), encoding="utf-8"
    )
    return path


def test_a_mention_is_its_last_word():
    assert last_word(TEXT, (4, 13)) == last_word(TEXT, (10, 15)) == (10, 13)
    assert last_word(TEXT, (4, 12)) is None and last_word(TEXT, (20, 22)) is None


def test_lines_say_which_entry_a_word_means_or_none(tmp_path: Path):
    path = written(
        tmp_path,
        [
            ("d", TEXT, 4, 13, "a"), ("", TEXT, 28, 31, "a"), ("cat", TEXT, 16, 20, "a"), ("?", TEXT, 22, 25, "a"),
            ("dog", "A dog slept.", "", "", "b"), ("", "A dog slept.", 2, 5, "b"),
        ],
    )  # fmt: skip
    found = [(p.concept, p.text, p.span, p.family) for p in labelled_mentions([DOG], path)]
    assert found == [
        ("d", TEXT, (10, 13), "a"),
        ("", TEXT, (28, 31), "a"),
        ("", TEXT, (16, 20), "a"),
        ("d", "A dog slept.", (2, 5), "b"),
    ]


def test_a_source_is_read_as_one_text():
    prompts = [
        Prompt("d", TEXT, (28, 31), "a"),
        Prompt("d", "A dog.", (2, 5), "b"),
        Prompt("", "Dog!", (0, 3), "a"),
    ]
    assert list(documents(prompts)) == [(f"{TEXT} Dog!", {31: 0, len(TEXT) + 4: 2}), ("A dog.", {5: 1})]


@pytest.fixture(scope="module")
def learned(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("mentions")
    run = Path(shutil.copytree(tiny_run, folder / "run"))
    with package.open(run) as book:
        names = [entry.name for entry in book if entry.name.isalpha()][:8]
    lines = []
    for number in range(60):
        for name in names:
            yes, no = (
                f"We all saw the {name} in town on day {number}.",
                f"Mr. {name.title()} came {number} times.",
            )
            lines.append((name, yes, yes.index(name), yes.index(name) + len(name), f"book{number % 5}"))
            lines.append(("", no, 4, 4 + len(name), f"book{number % 5}"))
    path = written(folder, lines)
    learn(run, path, ConsoleProgress(quiet=True))
    return run, path


def test_a_run_reads_what_it_learned(learned, encyclo):
    run, _ = learned
    assert load_calibration(run).word_reader.n == 960
    with package.open(run) as book:
        name = next(entry.name for entry in book if entry.name.isalpha())
        texts = (f"We all saw the {name} in town.", f"Mr. {name.title()} came.")
        yes, no = (
            next(
                token.concepts[0].confidence
                for token in book.read(text, device="cpu")
                if token.end == text.lower().index(name) + len(name)
            )
            for text in texts
        )
    assert yes > 0.8 and no < 0.2
    assert encyclo("verify", run).returncode == 0
    said = encyclo("read", run, "Mr. Smith came.").stderr
    assert "and none of them, learned from 960 labelled mentions" in said


def test_what_was_learned_stays(learned, encyclo):
    run, _ = learned
    before = load_calibration(run).word_reader
    assert encyclo("evaluate", run, "--limit", "20").returncode == 0
    assert load_calibration(run).word_reader.means.place == before.means.place


def test_the_command_says_what_it_learned_from(learned, encyclo):
    run, path = learned
    assert "Learned from 960 mentions of 8 words" in encyclo("learn", run, path).stdout
    assert json.loads(encyclo("learn", run, path, "--json").stdout)["mentions"] == 960


def test_too_few_mentions_are_refused(learned, tmp_path: Path, encyclo):
    run, _ = learned
    path = written(tmp_path, [("animal", "The animal slept.", 4, 10, "a")])
    result = encyclo("learn", run, path)
    assert result.returncode == 2
    assert "it needs at least 200 of both, and 2 sources" in one_sentence(result.stderr)
