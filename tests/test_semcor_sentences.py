"""The converter of SemCor, on three made-up sentences, and what `encyclo evaluate --running-text` makes of its file."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from encyclo.evaluation.labelled_text import read_labelled_text
from encyclo.types import Concept

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "semcor_sentences.py"
SENTENCES = [
    {
        "doc": "x1", "split": "test", "all_words": True, "text": "Mary's ice cream ran out.",
        "senses": [[0, 4, "person", "00007846-n"], [7, 16, "ice cream", "07614500-n"], [17, 24, "run out", "01157517-v"]],
    },
    {"doc": "x2", "split": "train", "all_words": True, "text": "Dogs bark.", "senses": []},
    {"doc": "x3", "split": "test", "all_words": False, "text": "He ran.", "senses": [[3, 6, "run", "01926311-v"]]},
]  # fmt: skip


@pytest.fixture
def convert(tmp_path: Path):
    semcor, out = tmp_path / "semcor.jsonl.gz", tmp_path / "out.jsonl"
    with gzip.open(semcor, "wt", encoding="utf-8") as file:
        file.write("\n".join(map(json.dumps, SENTENCES)))

    def call(*flags: str) -> list[tuple[str, str, str]]:
        """Return (concept, marked words, source) of each line."""
        subprocess.run([sys.executable, SCRIPT, semcor, "--out", out, *flags], check=True)
        lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        assert all(line.keys() == {"concept", "sentence", "start", "end", "source"} for line in lines)
        return [(row["concept"], row["sentence"][row["start"] : row["end"]], row["source"]) for row in lines]

    call.out = out
    return call


def test_nouns_are_marked_names_are_not_judged_and_other_words_mean_nothing(convert):
    assert convert("--nouns") == [
        ("?", "Mary", "x1"), ("wordnet-3.0:07614500-n", "ice cream", "x1"), ("", "ran", "x1"), ("", "out", "x1"),
    ]  # fmt: skip
    entry = Concept("wordnet-3.0:07614500-n", "ice cream")
    (document,) = read_labelled_text(convert.out, [entry]).documents
    assert [(word.form, set(word.concepts)) for word in document.words] == [
        ("ice cream", {entry.id}), ("ran", set()), ("out", set()),
    ]  # fmt: skip


def test_every_part_of_speech_splits_and_documents(convert):
    assert convert()[2:] == [
        ("wordnet-3.0:01157517-v", "ran out", "x1"),
        ("wordnet-3.0:01926311-v", "ran", "x3"),
    ]
    assert {source for *_, source in convert("--documents", "1")} == {"x1"}
    assert convert("--split", "train", "--prefix", "wn") == [("", "Dogs", "x2"), ("", "bark", "x2")]
