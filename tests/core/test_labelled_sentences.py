"""A file of sentences by other authors: background lines, and sentences that test."""

from __future__ import annotations

from pathlib import Path

import pytest

from encyclo.errors import UsageError
from encyclo.labelled_sentences import BACKGROUND, file_hash, read_sentences, with_examples
from encyclo.pipeline.natural_sentences import natural_prompts
from encyclo.types import Concept
from tests.commands import one_sentence

FLAG = "--examples FILE"
CONCEPTS = [
    Concept("dog", "dog", aliases=("hound",), examples=("A dog ran.",)),
    Concept("slope", "bank (slope)", aliases=("bank",)),
    Concept("lender", "bank (lender)", aliases=("bank",)),
]


def write(folder: Path, *lines: str) -> Path:
    path = folder / "own.csv"
    path.write_text("\n".join(["concept,sentence,start,end", *lines, ""]))
    return path


def read(path: Path):
    return read_sentences(path, FLAG, file_hash(path, FLAG))


def test_background_lines_are_apart_and_keep_each_place(tmp_path: Path):
    path = write(
        tmp_path, "dog,A dog sat.,,", ",He was at home.,7,9", ",He was at home.,0,2", ",He was at home.,7,9"
    )
    found = read(path)
    assert [(s.line, s.text, s.span) for s in found[BACKGROUND]] == [
        (3, "He was at home.", (7, 9)), (4, "He was at home.", (0, 2)),
    ]  # fmt: skip
    assert [s.text for s in found["dog"]] == ["A dog sat."]
    assert with_examples(CONCEPTS, path, FLAG)[0].examples == ("A dog ran.", "A dog sat.")


def test_sentences_are_read_where_the_line_says(tmp_path: Path):
    path = write(
        tmp_path,
        "dog,The beast barked.,4,9",
        "hound,The hounds slept.,,",
        "dog,A dog ran.,2,5",
        "slope,The bank of the bank.,16,20",
        "unicorn,A unicorn ran.,,",
    )
    concepts = with_examples(CONCEPTS, path, FLAG)
    assert concepts[0].examples == ("A dog ran.", "The beast barked.", "The hounds slept.")
    assert concepts[0].example_spans == ((2, 5), (4, 9), (4, 10))
    assert concepts[2] == CONCEPTS[2]
    prompts = natural_prompts(concepts, 0, 10)
    assert sorted(p.text[slice(*p.span)] for p in prompts if p.span) == ["bank", "beast", "dog", "hounds"]
    assert next(p.span for p in prompts if p.concept == "slope") == (16, 20)


def test_a_lists_own_examples_stay_where_the_name_is_found(tmp_path: Path):
    concepts = with_examples(CONCEPTS, write(tmp_path, "dog,The beast barked.,4,9"), FLAG)
    assert concepts[0].example_spans == (None, (4, 9))
    assert {p.text: p.span for p in natural_prompts(concepts, 0, 10)} == {
        "A dog ran.": (2, 5), "The beast barked.": (4, 9),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("dog,It barked.,,", "line 2: its sentence doesn't mention 'dog'"),
        ("bank,The bank was steep.,,", "line 2: 'bank' names several concepts; give an id: lender, slope"),
        ("dog,A dog ran.,5,2", "no mention"),
        ("dog,,,", "column sentence is empty"),
        ("unicorn,A unicorn ran.,,", "has no sentence of the 3 concepts"),
        (",He was at home.,7,9", "has no sentence of the 3 concepts"),
    ],
)
def test_a_file_that_can_not_test_is_refused(tmp_path: Path, line: str, words: str):
    with pytest.raises(UsageError) as error:
        with_examples(CONCEPTS, write(tmp_path, line), FLAG)
    said = one_sentence(f"encyclo: {error.value}")
    assert "own.csv" in said and words in said


def test_a_file_that_is_no_table_is_refused(tmp_path: Path):
    (tmp_path / "own.txt").write_text("A dog.\n")
    for name in ("own.txt", "nowhere.csv"):
        with pytest.raises(UsageError, match="--examples FILE"):
            with_examples(CONCEPTS, tmp_path / name, FLAG)
