"""`encyclo evaluate --running-text`: figures in metrics.json, the printed line, the page, and refused files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import encyclo as package
from encyclo.cli.views.running_text import running_text_line
from encyclo.entry_words import NamedWord
from encyclo.evaluation.labelled_text import LabelledWord, read_labelled_text
from encyclo.evaluation.running_text import Judge
from encyclo.evaluation.word_answers import WordAnswers, word_shares
from encyclo.runs.metrics import read_metrics
from encyclo.statistics.figures import RunningText
from encyclo.types import Concept
from tests.commands import one_sentence

CONCEPTS = [
    Concept("slope", "bank (slope)", part_of_speech="noun", aliases=("bank",)),
    Concept("lender", "bank (lender)", part_of_speech="noun", aliases=("bank",)),
    Concept("dog", "dog", part_of_speech="noun"),
    Concept("ampere", "A", part_of_speech="noun"),
]


def answered(read: tuple[int, float], entries: tuple[int, ...] = (), *scores: float) -> WordAnswers:
    nothing = (-1, 0.0)
    answers = {"read": read, "any_word": (2, 0.9), "shares": nothing}
    return WordAnswers(answers, entries, dict.fromkeys(("read", "interpreter", "shares"), scores))


def test_a_reader_of_known_readings_is_judged_by_sense_and_by_word():
    words = [
        ("bank", {"slope"}, answered((0, 0.8), (0, 1), 0.8, 0.1)),  # right
        ("banks", {"slope"}, answered((1, 0.6), (0, 1), 0.3, 0.6)),  # the other sense
        ("bank", {"bank-3"}, answered((0, 0.7), (0, 1), 0.7, 0.2)),  # a sense that is no entry: it stands
        ("puppy", {"dog"}, answered((-1, 0.0))),  # another word for an entry
        ("bank", set(), answered((0, 0.9), (0, 1), 0.9, 0.0)),  # not marked: none of the entries
        ("cat", {"cat-1"}, answered((2, 0.9))),  # marked, but no entry's word
        ("dog", {"dog"}, answered((2, 0.4), (2,), 0.4)),  # below 50%
        ("a", set(), answered((3, 0.9))),  # not the ampere
    ]  # fmt: skip
    labelled = [LabelledWord(form, 0, frozenset(marks)) for form, marks, _ in words]
    judge = Judge(CONCEPTS, labelled, np.zeros(8, int), seed=0)
    read = [answers for *_, answers in words]
    sense = judge.by_sense(read)
    assert (sense.mentions, sense.read.readings) == (4, 6)
    assert sense.read.recall == 1 / 4 and sense.read.precision == 1 / 6
    assert sense.read.others_per_1000 == 1000 * 3 / 8  # the unmarked bank, the cat, the a
    assert sense.baselines["any_word"].recall == 2 / 4  # puppy and dog
    assert sense.baselines["shares"].readings == 0
    word = judge.by_word(read)
    assert word.mentions == 5  # four banks, a dog
    assert word.read.recall == 4 / 5 and word.read.precision == 4 / 6
    assert word.read.others_per_1000 == 1000 * 2 / 8
    found = judge.senses(read, "transformer")
    assert found.keys() == {"transformer", "interpreter", "shares"}
    assert (found["transformer"].n, found["transformer"].top1) == (2, 1 / 2)
    assert (found["transformer"].all.n, found["transformer"].all.top1) == (4, 2 / 4)
    assert judge.senses([answered((-1, 0.0))] * 8, "transformer") is None


def test_entries_of_unknown_share_divide_what_is_left():
    for entries, shares in (
        ({}, {}),
        ({3: None}, {3: 1.0}),
        ({3: 0.6, 1: None, 2: None}, {3: 0.6, 1: pytest.approx(0.2), 2: pytest.approx(0.2)}),
        ({3: 0.6, 1: 0.1}, {3: 0.6, 1: 0.1}),
    ):
        assert word_shares(NamedWord("word", entries)) == shares


@pytest.fixture
def copied(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def write_text(folder: Path) -> Path:
    lines = [
        ("animal", "The animal sat by Animal Jones.", 4, 10, "one"),
        ("?", "The animal sat by Animal Jones.", 18, 30, "one"),
        ("", "Nobody saw the food or the inhuman arts.", 0, 6, "one"),
        ("food", "Nobody saw the food or the inhuman arts.", 15, 19, "one"),
        ("art", "Nobody saw the food or the inhuman arts.", 35, 39, "one"),
        ("a unicorn", "It was a unicorn.", 7, 16, "two"),
        ("mammal", "The beast roared.", 4, 9, "two"),
    ]
    path = folder / "own.jsonl"
    keys = ("concept", "sentence", "start", "end", "source")
    path.write_text("\n".join(json.dumps(dict(zip(keys, line, strict=True))) for line in lines))
    return path


def test_a_labelled_text_is_measured_written_and_printed(encyclo, copied: Path, tmp_path: Path):
    text = write_text(tmp_path)
    result = encyclo("evaluate", copied, "--running-text", text, "--limit", "20")
    assert result.returncode == 0, result.stderr
    metrics = read_metrics(copied)
    found = metrics.running_text
    assert (found.source.file, found.documents, found.words, found.mentions) == ("own.jsonl", 2, 18, 4)
    assert found.at_least == 0.5 and found.by_word.mentions == 3
    assert found.baselines.keys() == found.by_word.baselines.keys() == {"any_word", "shares"}
    # `book.read` says the same at the words' last tokens.
    with package.open(copied) as book:
        documents = read_labelled_text(text, book_concepts(copied)).documents
        right = readings = 0
        for document in documents:
            at_end = {token.end: token.concepts[0] for token in book.read(document.text, top=1, device="cpu")}
            for word in document.words:
                first = at_end.get(word.end)
                if first and (first.confidence or 0) >= 0.5:
                    readings += 1
                    right += first.id in word.concepts
    assert readings == found.read.readings and right / 4 == found.read.recall
    shares = found.baselines["shares"]
    assert (shares.readings, shares.recall, shares.precision) == (3, 3 / 4, 1.0)
    assert (
        metrics.accuracy.senses is None
        and "senses" in json.loads((copied / "metrics.json").read_text())["accuracy"]
    )
    printed = " ".join(result.stdout.split())
    assert f"Running text: {running_text_line(found)}" in printed
    page = (copied / "report.html").read_text(encoding="utf-8")
    assert "What is read in running text?" in page and "By sense: 4 mentions" in page
    # Without the file the earlier figures stay; they are in the JSON output.
    again = json.loads(encyclo("evaluate", copied, "--limit", "20", "--json").stdout)
    assert again["running_text"] == found.as_json()


def book_concepts(path: Path) -> list[Concept]:
    from encyclo.plugins.manager import Plugins
    from encyclo.runs.directory import read_record
    from encyclo.runs.reopen import reopen_concepts

    return reopen_concepts(path, read_record(path), Plugins())


def test_a_run_without_the_file_leaves_the_keys_out(encyclo, copied: Path, tiny_run: Path):
    content = json.loads((tiny_run / "metrics.json").read_text())
    assert "running_text" not in content and not content["accuracy"].get("senses")
    result = encyclo("evaluate", copied, "--limit", "20", "--json")
    assert json.loads(result.stdout)["running_text"] is None
    assert "running_text" not in json.loads((copied / "metrics.json").read_text())


def test_senses_are_measured_where_entries_share_a_word(encyclo, tiny_flags, tmp_path: Path):
    names = ["bank (slope)", "bank (lender)", *(f"{a}{b}" for a in "bdgkl" for b in ("aro", "ilt", "umph"))]
    listed = tmp_path / "list.csv"
    listed.write_text("name,aliases\n" + "\n".join(f"{n},{'bank' if '(' in n else ''}" for n in names))
    out = tmp_path / "run"
    flags = ["--sampler", "templates", "--concepts", "file", "-o", f"file.path={listed}"]
    assert encyclo("run", *flags, "--out", out, *tiny_flags).returncode == 0
    text = tmp_path / "own.csv"
    text.write_text(
        "concept,sentence,start,end\nbank (slope),The bank of the river.,4,8\nbank (lender),His bank failed.,4,8\n"
    )
    result = encyclo("evaluate", out, "--running-text", text)
    assert result.returncode == 0, result.stderr
    senses = read_metrics(out).accuracy.senses
    assert list(senses) == ["transformer", "interpreter", "shares"]
    assert all(row.n == 2 and row.candidates == 2 and row.all.n == 2 for row in senses.values())
    assert senses["shares"].top1 == 0, "equal shares are a tie, which counts against"
    assert "senses" in result.stdout and "Running text: " in result.stdout


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("animal,It ran.,,,", "text.csv line 2: its sentence doesn't mention 'animal'"),
        ("?,Mary ran.,,,", "text.csv line 2: its concept is ?"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_and_changes_nothing(
    encyclo, copied: Path, tmp_path: Path, line: str, message: str
):
    text, before = tmp_path / "text.csv", (copied / "metrics.json").read_bytes()
    text.write_text(f"concept,sentence,start,end,source\n{line}\n")
    result = encyclo("evaluate", copied, "--running-text", text)
    assert result.returncode == 2 and message in one_sentence(result.stderr)
    assert (copied / "metrics.json").read_bytes() == before


def figures(**changes) -> RunningText:
    read = {
        "readings": 9602,
        "recall": 0.731,
        "precision": 0.842,
        "others_per_1000": 4.6,
        "ece": 0.0312,
        "n": 11049,
    }
    readers = {"mentions": 11049, "read": read, "baselines": {}}
    source = {"file": "semcor.jsonl", "sha256": "0" * 64}
    more = {"source": source, "documents": 30, "words": 56340, "at_least": 0.5, "by_word": readers}
    return RunningText.model_validate({**readers, **more, **changes})


def test_the_line_about_running_text():
    assert running_text_line(figures()) == (
        "73% of 11,049 mentions read, 84% of readings right, 5 others per 1,000 words, calibration error 0.03 "
        "(docs/evaluation.md)"
    )
    assert running_text_line(None) == "not measured; `encyclo evaluate DIR --running-text FILE` does"
    none = {"readings": 0, "recall": None, "precision": None, "others_per_1000": 0.0, "ece": None, "n": 0}
    by_word = figures(mentions=0, read=none)
    assert running_text_line(by_word).startswith("73% of 11,049 words of an entry read, 84%")
    without = {"mentions": 0, "read": none, "baselines": {}}
    assert (
        running_text_line(figures(**without, by_word=without))
        == "not measured; no word of 56,340 is an entry's"
    )
    silent = {"mentions": 3, "read": {**none, "recall": 0.0, "n": 3}, "baselines": {}}
    assert running_text_line(figures(**silent)) == "0% of 3 mentions read, no reading (docs/evaluation.md)"
