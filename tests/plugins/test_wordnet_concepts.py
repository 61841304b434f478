"""WordNet's synsets as concepts: order, names, fields, and where the database is searched."""

from __future__ import annotations

import json
import shutil
from itertools import islice
from pathlib import Path

import pytest

from encyclo.errors import UsageError
from encyclo.plugins.manager import Plugins
from encyclo.types import Concept
from encyclo_concepts import wordnet
from encyclo_concepts.wordnet import Options, load_concepts
from tests.commands import one_sentence
from tests.small_wordnet import COUNTS, LINES, Line, write_database

PLACES = ("WNSEARCHDIR", "WNHOME", "NLTK_DATA")
needs_wordnet = pytest.mark.skipif(
    not (wordnet.DEBIAN / "data.noun").is_file(), reason="Debian's package wordnet-base is not installed"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_database(tmp_path / "dict", LINES, COUNTS)
    return tmp_path / "dict"


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and no database in any of the usual places."""
    for name in PLACES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(wordnet, "DEBIAN", tmp_path / "debian")
    monkeypatch.setattr(wordnet, "PRINCETON", tmp_path / "princeton")
    monkeypatch.setattr(wordnet.sys, "prefix", str(tmp_path / "prefix"))
    return tmp_path


def load(folder: Path, **options) -> list[Concept]:
    return list(load_concepts(Options(path=folder, **options)))


def names(concepts: list[Concept]) -> list[str]:
    return [concept.name for concept in concepts]


def test_the_most_frequent_come_first_ties_by_place(tmp_path: Path):
    offsets = write_database(tmp_path, LINES, COUNTS)
    found = names(load(tmp_path))
    tied = sorted(["wet", "quickly"], key=lambda key: offsets[key])
    assert found[:7] == ["dog (animal)", "animal", *tied, "afloat", "chase", "dog (noun.person)"]
    never = {"tail": "tail", "rex": "Rex", "outer": "outer", "hound": "dog (noun.animal)"}
    assert found[7:] == ["outermost", *(never[key] for key in sorted(never, key=lambda key: offsets[key]))]


def test_every_synset_is_an_entry_under_its_most_frequent_lemma(folder: Path):
    by_name = {concept.name: concept for concept in load(folder)}
    assert len(by_name) == len(LINES)
    assert {"dog (noun.animal)", "dog (animal)", "dog (noun.person)"} <= by_name.keys()
    assert by_name["dog (noun.person)"].aliases == ("cad",)  # `dog` is more frequent in it
    assert by_name["dog (animal)"].aliases == ("domestic dog",)
    assert by_name["afloat"].aliases == ("awash",) and by_name["dog (noun.animal)"].aliases == ()


def test_names_do_not_depend_on_how_many_are_asked_for(folder: Path):
    every = names(load(folder))
    for limit in range(1, len(every)):
        assert names(list(islice(load_concepts(Options(path=folder)), limit))) == every[:limit]


def test_without_all_senses_a_synset_takes_its_most_frequent_lemma_that_is_free(folder: Path):
    by_name = {concept.name: concept for concept in load(folder, all_senses=False)}
    assert by_name["cad"].aliases == ("dog",)  # `dog` is more frequent in it, and taken
    assert by_name["afloat"].aliases == ("awash",)
    assert by_name["dog"].aliases == ("domestic dog",)
    assert len(by_name) == len(LINES) - 1  # the hound finds `dog` taken and has no other word


def test_words_that_differ_in_case_only_are_one(tmp_path: Path):
    lines = {
        "land": Line("n", ["China"], "a country", 15),
        "cups": Line("n", ["china", "crockery"], "cups", 6),
    }
    write_database(tmp_path, lines, {"china%1:15:00::": 2, "china%1:06:00::": 1})
    assert names(load(tmp_path)) == ["China (noun.location)", "china (noun.artifact)"]
    assert names(load(tmp_path, all_senses=False)) == ["China", "crockery"]


def test_only_entries_of_the_list_share_a_word(folder: Path):
    assert names(load(folder, min_frequency=42)) == ["dog"]
    assert "chase" in names(load(folder)) and "dog" not in names(load(folder))


def test_qualified_names_are_distinct(tmp_path: Path):
    lines = {"top": Line("n", ["top"], "above"), "bank": Line("n", ["bank", "top"], "x", 14)}
    lines |= {f"a{i}": Line("n", ["bank"], "x", 14, [("@", "top")]) for i in range(4)}
    lines |= {"own": Line("n", ["bank"], "x", 17, [("@", "bank")])}
    lines |= {f"b{i}": Line("a", ["fine"], "x", 0) for i in range(3)}
    lines |= {"head": Line("a", ["keen"], "x", 0), "sharp": Line("s", ["fine"], "x", 0, [("&", "head")])}
    write_database(tmp_path, lines, {"bank%1:14:00::": 1})
    found = load(tmp_path)
    assert len({name.casefold() for name in names(found)}) == len(found) == len(lines)
    assert sorted(name for name in names(found) if name.startswith("bank")) == [
        "bank (noun.group)", "bank (noun.object)", "bank (top 2)", "bank (top 3)", "bank (top 4)", "bank (top)",
    ]  # fmt: skip
    assert {"fine (adj.all)", "fine (adj.all 2)", "fine (keen)"} <= set(names(found))


def test_a_concept_carries_what_the_synset_says(tmp_path: Path):
    offsets = write_database(tmp_path, LINES, COUNTS)
    by_name = {concept.name: concept for concept in load(tmp_path)}
    assert by_name["dog (animal)"] == Concept(
        id=f"wordnet-3.0:{offsets['dog']:08d}-n",
        name="dog (animal)",
        definition="a tame barker; kept as a pet",
        category="noun.animal",
        part_of_speech="noun",
        broader=by_name["animal"].id,
        aliases=("domestic dog",),
        examples=("the dog barked; it ran",),
        broader_name="animal",
        word_shares=(42.5 / 47, 1.0),
    )
    assert by_name["Rex"].broader == by_name["dog (animal)"].id  # an instance
    assert by_name["quickly"].id.endswith("-r") and by_name["afloat"].id.endswith("-a")
    assert by_name["tail"].broader_name == "chase"


def test_a_broader_concept_that_is_not_listed_is_named_only(folder: Path):
    dog = next(concept for concept in load(folder, min_frequency=42) if concept.name == "dog")
    assert dog.broader is None and dog.broader_name == "animal"


def test_a_definition_that_is_only_the_name_is_left_empty(tmp_path: Path):
    press = Line("v", ["press_down", "depress"], 'press down; "Depress the key"', 35)
    write_database(tmp_path, {"press": press, "other": Line("v", ["push"], "press_down", 35)}, {})
    pressed, pushed = load(tmp_path)
    assert pressed.definition == "" and pressed.examples == ("Depress the key",)
    assert pushed.definition == "press_down"


@pytest.mark.parametrize("given", ["noun", "noun,noun", ["noun"], " noun "])
def test_parts_of_speech_can_be_chosen(folder: Path, given):
    assert {concept.part_of_speech for concept in load(folder, part_of_speech=given)} == {"noun"}
    assert len(load(folder, part_of_speech="verb, adverb")) == 3


def test_rare_synsets_can_be_left_out(folder: Path):
    assert names(load(folder, min_frequency=30)) == ["dog", "animal", *names(load(folder))[2:4]]
    assert names(load(folder, min_frequency=31)) == ["dog", "animal"]
    with pytest.raises(UsageError, match="gave no concept"):
        from encyclo.config import load_config
        from encyclo.runs.session import prepare
        from encyclo.terminal import ConsoleProgress

        flags = {"concepts": "wordnet", "sampler": ("raw",)}
        options = [f"wordnet.path={folder}", "wordnet.min_frequency=1000"]
        prepare(load_config(flags, None, options), ConsoleProgress(quiet=True))


@pytest.mark.parametrize("value", ["pronoun", "noun;verb", [], "", ["noun", ""]])
def test_an_unknown_part_of_speech_is_refused(value):
    with pytest.raises(UsageError) as caught:
        Plugins().options("wordnet", {"part_of_speech": value})
    assert "wordnet.part_of_speech" in str(caught.value)


def test_without_a_database_the_message_says_how_to_get_one(nowhere: Path):
    with pytest.raises(UsageError) as caught:
        load_concepts(Options())
    message = str(caught.value)
    assert (
        "wordnet-base" in message and "nltk.downloader wordnet" in message and "-o wordnet.path=" in message
    )


def test_it_is_found_where_it_is_usual(nowhere: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    for place in ("debian", "princeton", "home/nltk_data/corpora/wordnet", "prefix/nltk_data/corpora/wordnet31",
                  "prefix/share/nltk_data/corpora/wordnet"):  # fmt: skip
        shutil.copytree(folder, nowhere / place)
        assert len(list(load_concepts(Options()))) == len(LINES), place
        shutil.rmtree(nowhere / place)
    archive = shutil.make_archive(
        str(nowhere / "home/nltk_data/corpora/wordnet"), "zip", folder.parent, "dict"
    )
    assert len(list(load_concepts(Options()))) == len(LINES)
    Path(archive).unlink()
    monkeypatch.setenv("NLTK_DATA", str(nowhere / "elsewhere"))
    shutil.copytree(folder, nowhere / "elsewhere/corpora/wordnet")
    assert len(list(load_concepts(Options()))) == len(LINES)


def test_what_is_named_wins_over_what_is_usual(nowhere: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    write_database(nowhere / "debian", {"only": Line("n", ["only"], "x")}, {})
    assert names(list(load_concepts(Options()))) == ["only"]
    monkeypatch.setenv("WNSEARCHDIR", str(folder))
    assert len(list(load_concepts(Options()))) == len(LINES)
    assert names(load(nowhere / "debian")) == ["only"]
    monkeypatch.setenv("WNSEARCHDIR", str(nowhere / "gone"))
    with pytest.raises(UsageError, match="gone is not a WordNet database"):
        load_concepts(Options())


@pytest.mark.parametrize("name", ["gone", "empty", "~stranger-without-home/x", "nul\0"])
def test_a_path_without_a_database_is_named(tmp_path: Path, name: str):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="is not a WordNet database"):
        load_concepts(Options(path=tmp_path / name if not name.startswith("~") else name))


def test_a_small_list_makes_an_encyclopedia(encyclo, folder: Path, tmp_path: Path, tiny_flags: list[str]):
    flags = ["--concepts", "wordnet", "-o", f"wordnet.path={folder}", "--sampler", "templates", *tiny_flags]
    result = encyclo("run", *flags, "--limit", "6", "--out", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["provenance"]["concept_files"] == {str(folder): None}
    (folder / "data.noun").write_bytes((folder / "data.noun").read_bytes()[:-9])
    result = encyclo("run", *flags, "--out", tmp_path / "other")
    assert result.returncode == 2 and "data.noun line 7 " in one_sentence(result.stderr)
    assert not (tmp_path / "other").exists()


@pytest.fixture(scope="module")
def real() -> list[Concept]:
    return list(load_concepts(Options(path=wordnet.DEBIAN)))


@needs_wordnet
def test_the_real_one_has_every_synset_each_with_a_name_of_its_own(real: list[Concept]):
    assert len(real) > 117_000
    assert (
        len({concept.name.casefold() for concept in real})
        == len({concept.id for concept in real})
        == len(real)
    )
    assert all(concept.name == concept.name.strip() and "_" not in concept.name for concept in real)
    assert sum(not concept.definition for concept in real) < 5
    assert names(real[:5]) == [
        "be (verb.stative)",
        "person (organism)",
        "be (verb.stative 2)",
        "say (express)",
        "not",
    ]
    assert {"bank (slope)", "bank (financial institution)", "bank (tip)"} <= set(names(real))


@needs_wordnet
def test_the_real_ones_entries_are_as_printed_dictionaries_have_them(real: list[Concept]):
    by_name = {concept.name: concept for concept in real}
    dog = by_name["dog (canine)"]
    assert (dog.id, dog.category, dog.broader_name) == ("wordnet-3.0:02084071-n", "noun.animal", "canine")
    assert dog.examples == ("the dog barked all night",) and "domestic dog" in dog.aliases
    assert by_name["Einstein"].broader_name == "physicist" and by_name["Einstein"].name[0] == "E"
    ids = {concept.id for concept in real}
    assert all(concept.broader is None or concept.broader in ids for concept in real)
    assert all(concept.broader_name for concept in real if concept.broader)


@needs_wordnet
def test_the_real_ones_examples_are_sentences_not_marks(real: list[Concept]):
    examples = [example for concept in real for example in concept.examples]
    assert len(examples) > 30_000
    assert not [e for e in examples if '"' in e or e != e.strip() or e.endswith("- ")]
    quoted = [concept for concept in real if '"' in concept.definition]
    assert len(quoted) < 30  # definitions that speak of a phrase


@needs_wordnet
def test_nearly_every_count_of_the_real_one_finds_its_sense():
    folder = wordnet.open_folder(wordnet.DEBIAN)
    _, synsets = wordnet.read_synsets(folder, list(wordnet.PARTS_OF_SPEECH))
    counted = sum(int(line.split()[2]) for line in folder.read("cntlist.rev").splitlines())
    assert (
        sum(synset.frequency for synset in synsets) > 0.96 * counted
    )  # the others are of senses that WordNet has dropped since
