"""`core.examples`: sentences by other authors for the bundled concepts, off unless asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from encyclo.errors import UsageError
from encyclo.plugins.manager import Plugins
from encyclo.types import Concept
from encyclo_concepts.core import Options, load_concepts
from tests.commands import one_sentence
from tests.small_wordnet import Line, write_database

LINES = {
    "dog": Line("n", ["dog"], 'a tame barker; "the dogs barked all night"; "it ran off"', 5, ids=[0]),
    "cad": Line("n", ["cad", "dog"], 'a man who behaves badly; "you dirty dog"', 18, ids=[0, 1]),
    "railway": Line("n", ["railway_station"], 'where trains stop; "we met at the railway station"', 6),
    "run": Line("v", ["run"], 'move fast; "he ran home"', 38),
    "tall": Line("a", ["tall"], 'of great height; "a tall tree"', 0),
}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "dict"
    write_database(folder, LINES, {"dog%1:05:00::": 42, "dog%1:18:01::": 2})
    index = folder / "index.noun"
    # As WordNet's index has it: one line a lemma, its senses by falling frequency.
    lines = index.read_text().splitlines(keepends=True)
    dogs = [line for line in lines if line.startswith("dog ")]
    offsets = [line.split()[-1] for line in dogs]
    kept = [line for line in lines if line not in dogs]
    index.write_text("".join(kept) + f"dog n 2 0 2 0 {' '.join(offsets)}  \n")
    monkeypatch.setenv("WNSEARCHDIR", str(folder))
    return folder


def found(**options: object) -> dict[str, Concept]:
    return {concept.name: concept for concept in load_concepts(Options(**options))}


def test_there_are_none_unless_they_are_asked_for(small: Path):
    assert not any(concept.examples for concept in load_concepts(Options()))


def test_wordnets_are_those_of_the_most_frequent_sense_that_mention_the_name(small: Path):
    concepts = found(examples="wordnet")
    assert concepts["dog"].examples == ("the dogs barked all night",)
    assert {name for name, concept in concepts.items() if concept.examples} <= {
        "dog",
        "railway station",
        "run",
        "tall",
    }
    assert list(concepts) == [concept.name for concept in load_concepts(Options())]


def test_the_sense_is_of_the_concepts_part_of_speech(small: Path):
    parts = {concept.name: concept.part_of_speech for concept in load_concepts(Options())}
    concepts = found(examples="wordnet")
    for name, part in (("run", "verb"), ("tall", "adjective")):
        if name in parts:
            assert bool(concepts[name].examples) == (parts[name] == part)


def test_a_whole_wordnet_is_asked_for_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WNSEARCHDIR", str(tmp_path))
    with pytest.raises(UsageError, match="is not a WordNet database"):
        found(examples="wordnet")


def test_a_users_file(tmp_path: Path):
    path = tmp_path / "own.csv"
    path.write_text(
        'sentence,concept\nTwo dogs slept.,dog\n"A dog, a bone.",dog\nTwo dogs slept.,dog\nCats purr.,cat\n'
    )
    concepts = found(examples=str(path))
    assert concepts["dog"].examples == ("Two dogs slept.", "A dog, a bone.")
    assert concepts["cat"].examples == ("Cats purr.",)
    assert found(examples=str(path), categories=["emotions"]).keys().isdisjoint({"dog"})


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("own.csv", b"concept,sentence\ndog,It barked.\n", "line 2: its sentence doesn't mention 'dog'"),
        ("own.csv", b"concept,sentence\nunicorn,A unicorn.\n", "line 2: there is no concept 'unicorn'"),
        ("own.csv", b"concept,text\ndog,A dog.\n", "line 1: there is no column 'text'"),
        ("own.csv", b"concept\ndog\n", "doesn't mention 'dog'"),
        (
            "own.csv",
            "concept,sentence\ndog,A fianc\u00e9's dog.\n".encode("cp1252"),
            "save the file as UTF-8",
        ),
        ("own.csv", b"concept,sentence\ndog,A dog\0.\n", "use UTF-8"),
        ("own.txt", b"A dog.\n", "columns concept and sentence"),
        ("none.csv", None, "-o core.examples=FILE"),
    ],
)
def test_a_file_that_can_not_be_is_refused_in_one_sentence(
    encyclo, tmp_path: Path, tiny_flags, name, content, words
):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    result = encyclo("run", "--out", tmp_path / "no", *tiny_flags, "-o", f"core.examples={tmp_path / name}")
    said = one_sentence(result.stderr)
    assert result.returncode == 2 and words in said and "file." not in said
    assert not (tmp_path / "no").exists()


def test_options_know_the_word_and_the_path():
    assert Plugins().options("core", {"examples": "wordnet"}).examples == "wordnet"
    assert Plugins().options("core", {"examples": "own.csv"}).examples == Path("own.csv")
