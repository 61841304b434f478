"""A labelled text: documents, judged words, the limit, and lines that can't be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from encyclo.errors import UsageError
from encyclo.evaluation.labelled_text import read_labelled_text
from encyclo.types import Concept

CONCEPTS = [
    Concept("dog", "dog", aliases=("hound",)),
    Concept("slope", "bank (slope)", aliases=("bank",)),
    Concept("lender", "bank (lender)", aliases=("bank",)),
    Concept("ice", "ice cream"),
]


def read(folder: Path, *lines: str, words: int = 1000, name: str = "text.csv"):
    path = folder / name
    path.write_text("\n".join(["concept,sentence,start,end,source", *lines, ""]))
    return read_labelled_text(path, CONCEPTS, words)


def words(document) -> list[tuple[str, set[str]]]:
    assert all(document.text[: word.end].lower().endswith(word.form) for word in document.words)
    return [(word.form, set(word.concepts)) for word in document.words]


def test_a_sources_different_sentences_are_one_document_in_the_files_order(tmp_path: Path):
    found = read(
        tmp_path,
        "slope,The bank fell.,4,8,b",
        "hound,Hounds ran.,,,a",
        ",It rained.,0,2,b",
        "?,The bank fell.,9,13,b",
        ",Hounds ran.,7,10,a",
        "dog,The dog by the dog.,4,7,b",
        "dog,The dog by the dog.,15,18,b",
    )
    assert [document.text for document in found.documents] == [
        "The bank fell. It rained. The dog by the dog.",
        "Hounds ran.",
    ]
    assert words(found.documents[0]) == [
        ("the", set()), ("bank", {"slope"}), ("it", set()), ("rained", set()),
        ("the", set()), ("dog", {"dog"}), ("by", set()), ("the", set()), ("dog", {"dog"}),
    ]  # fmt: skip
    assert words(found.documents[1]) == [("hounds", {"dog"}), ("ran", set())]
    assert found.file == "text.csv" and len(found.sha256) == 64


def test_a_phrase_is_one_word_and_other_concepts_mark_none_of_the_entries(tmp_path: Path):
    found = read(
        tmp_path,
        "ice cream,She ate ice cream in New York.,,,",
        "?,She ate ice cream in New York.,21,29,",
        "sherbet,A sherbet and an unknown.,,,",
        "wordnet:1-n,A sherbet and an unknown.,17,24,",
        "spoon,A sherbet and an unknown.,,,",
    )
    assert words(found.documents[0]) == [
        ("she", set()), ("ate", set()), ("ice cream", {"ice"}), ("in", set()), ("a", set()),
        ("sherbet", {"sherbet"}), ("and", set()), ("an", set()), ("unknown", {"wordnet:1-n"}),
    ]  # fmt: skip


def test_marks_inside_a_phrase_and_inside_a_word_count(tmp_path: Path):
    found = read(
        tmp_path,
        "dog,The hot dog's well-known bank.,4,13,",
        "?,The hot dog's well-known bank.,8,11,",
        "slope,The hot dog's well-known bank.,14,18,",
        "lender,The hot dog's well-known bank.,25,29,",
        "slope,The hot dog's well-known bank.,25,29,",
        "hot,The hot dog's well-known bank.,4,7,",
    )
    assert words(found.documents[0]) == [
        ("the", set()), ("hot", {"hot"}), ("hot dog", {"dog"}), ("well-known", {"slope"}),
        ("bank", {"slope", "lender"}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("most", "expected"), [(1, [2]), (3, [2]), (4, [4]), (5, [4]), (9, [4, 2]), (10, [4, 2, 4])]
)
def test_whole_sources_are_read_up_to_the_limit_and_at_least_a_sentence(
    tmp_path: Path, most: int, expected: list[int]
):
    lines = (",A dog.,,,a", ",It ran.,,,a", ",I sat.,,,b", ",No one saw it.,,,c", ",He.,,,d")
    found = read(tmp_path, *lines, words=most)
    assert [len(document.words) for document in found.documents] == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("dog,It barked.,,,", "line 2: its sentence doesn't mention 'dog'"),
        ("bank,The bank fell.,4,8,", "line 2: 'bank' names several concepts; give an id: lender, slope"),
        ("?,Mary sat.,,,", "line 2: its concept is ?, but no words are marked; give their start and end"),
        ("dog,A dog -- ran.,6,8,", "line 2: start 6 and end 8 mark no word"),
        ("dog,A dog.,2,99,", "line 2: start 2 and end 99 are no mention"),
        ("dog,,,,", "line 2: its column sentence is empty"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, line: str, message: str):
    with pytest.raises(UsageError) as error:
        read(tmp_path, line)
    assert message in str(error.value) and "text.csv" in str(error.value)


def test_other_files_are_refused(tmp_path: Path):
    with pytest.raises(UsageError, match=r"text.txt is not a .csv, .tsv or .jsonl file; give --running-text"):
        read(tmp_path, "dog,A dog.,,,", name="text.txt")
    with pytest.raises(UsageError, match="has no sentence; give --running-text"):
        read(tmp_path)
    with pytest.raises(UsageError, match=r"none\.csv"):
        read_labelled_text(tmp_path / "none.csv", CONCEPTS)
