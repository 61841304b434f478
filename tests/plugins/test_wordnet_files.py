"""WordNet's files: what a synset line says, and one sentence with the place for each damaged file."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from encyclo.errors import UsageError
from encyclo_concepts import wndb
from encyclo_concepts.gloss import split_gloss
from encyclo_concepts.wndb import PARTS_OF_SPEECH, open_folder, read_synsets
from tests.small_wordnet import COUNTS, LINES, write_database

NAMES = [f"{kind}.{ending}" for kind in ("data", "index") for ending in PARTS_OF_SPEECH.values()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_database(tmp_path / "dict", LINES, COUNTS)
    return tmp_path / "dict"


def refusal(folder: Path) -> str:
    with pytest.raises(UsageError) as caught:
        read_synsets(open_folder(folder), list(PARTS_OF_SPEECH))
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def test_a_line_is_read_field_by_field(tmp_path: Path):
    offsets = write_database(tmp_path, LINES, COUNTS)
    version, synsets = read_synsets(open_folder(tmp_path), list(PARTS_OF_SPEECH))
    assert version == "3.0" and len(synsets) == len(LINES)
    by_place = {(s.part_of_speech, s.offset): s for s in synsets}
    dog = by_place["noun", offsets["dog"]]
    assert dog.words == ("dog", "domestic_dog") and dog.lexicographer_file == 5
    assert dog.hypernyms() == [offsets["animal"]] and dog.gloss.startswith("a tame barker")
    assert by_place["noun", offsets["rex"]].hypernyms() == [offsets["dog"]]
    assert by_place["verb", offsets["tail"]].hypernyms() == [offsets["chase"]]


def test_every_count_finds_its_sense(folder: Path):
    """Satellite adjectives are counted under the head of their cluster."""
    _, synsets = read_synsets(open_folder(folder), list(PARTS_OF_SPEECH))
    found = {
        synset.words[0]: (synset.frequency, synset.tag_counts)
        for synset in synsets
        if synset.words != ("dog",)
    }
    assert sum(synset.frequency for synset in synsets) == sum(COUNTS.values())
    assert found["animal"] == (41, (40, 1))
    assert found["cad"] == (3, (1, 2))
    assert found["awash"] == (7, (3, 4))
    assert found["outermost"] == (2, (2,))  # sense keys keep the marker of a cluster's head: outer(a)
    assert found["tail"] == (0, ())


def test_words_lose_their_adjective_marker_and_nothing_else(tmp_path: Path):
    line = LINES["awash"]
    words = ["afloat(ip)", "a(b)", "awash(p)", "(a)"]
    lines = {"wet": LINES["wet"], "odd": type(line)("s", words, "x", 0, [("&", "wet")])}
    write_database(tmp_path, lines, {"wet%3:00:00::": 1})
    _, synsets = read_synsets(open_folder(tmp_path), ["adjective"])
    assert synsets[1].words == ("afloat", "a(b)", "awash", "(a)")


@pytest.mark.parametrize("name", [*NAMES, "cntlist.rev"])
def test_a_missing_file_is_named(folder: Path, name: str):
    (folder / name).unlink()
    assert name in refusal(folder)


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("data")])
def test_a_file_that_ends_in_the_middle_of_a_line_is_named_with_the_line(folder: Path, name: str):
    whole = (folder / name).read_bytes()
    lines = whole.count(b"\n")
    for cut in (1, 5, 20):
        (folder / name).write_bytes(whole[:-cut])
        message = refusal(folder)
        assert f"{name} line {lines} " in message and "ends in the middle" in message


def test_a_lost_line_is_found_wherever_it_stood(folder: Path):
    whole = (folder / "data.noun").read_bytes().splitlines(keepends=True)
    for place in range(2, len(whole)):
        (folder / "data.noun").write_bytes(b"".join(whole[:place] + whole[place + 1 :]))
        message = refusal(folder)
        assert "data.noun" in message
        assert f"line {place + 1} " in message if place < len(whole) - 1 else "index.noun names" in message


def test_an_index_of_another_wordnet_is_found(folder: Path):
    index = folder / "index.noun"
    index.write_text(
        "".join(line for line in index.read_text().splitlines(True) if not line.startswith("rex"))
    )
    assert "index.noun" in refusal(folder) and "data.noun is missing" in refusal(folder)


def test_counts_of_another_wordnet_are_found(folder: Path):
    (folder / "cntlist.rev").write_text("drumlin%1:17:00:: 1 1\n")
    assert "cntlist.rev" in refusal(folder) and "no count for any sense" in refusal(folder)


@pytest.mark.parametrize(
    "line", ["dog%1:05:00:: 1", "dog%1:05:00:: 1 many", "dog 1 42", "dog%9:05:00:: 1 42", ""]
)
def test_a_count_that_is_none_is_named_with_the_line(folder: Path, line: str):
    path = folder / "cntlist.rev"
    path.write_text(f"animal%1:03:00:: 1 40\n{line}\n")
    assert "cntlist.rev line 2 " in refusal(folder)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b" 05 n 02 dog 0", b" 05 n 03 dog 0", "words or pointers"),
        (b" 001 @ ", b" 002 @ ", "words or pointers"),
        (b" 05 n 02 dog 0", b" 45 n 02 dog 0", "lexicographer file 45"),
        (b" 05 n 02 dog 0", b" 05 v 02 dog 0", "not a synset"),
        (b" dog 0 domestic_dog", b" ___ 0 domestic_dog", "not a synset"),
        (b"a tame barker", b"a tame bark", "should be at that byte"),
        (b"a tame barker", b"a tame b\xe9rker", "not in UTF-8"),
        (b" | a tame", b"   a tame", "not a synset"),
        (b"\n", b"\r\n", "should be at that byte"),
    ],
)  # fmt: skip
def test_a_line_that_is_not_right_is_named(folder: Path, old: bytes, new: bytes, why: str):
    path = folder / "data.noun"
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1) if old != b"\n" else content.replace(old, new))
    message = refusal(folder)
    assert "data.noun line " in message and why in message


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 100, b"\x89PNG\r\n\x1a\n", b"a,b\n1,2\n", b"  1 only a licence\n"]
)
@pytest.mark.parametrize("name", ["data.noun", "index.noun", "cntlist.rev"])
def test_a_foreign_file_is_named(folder: Path, name: str, content: bytes):
    (folder / name).write_bytes(content)
    if name == "cntlist.rev" and not content:
        _, synsets = read_synsets(open_folder(folder), ["noun"])  # nothing was ever counted: a plain order
        assert not any(synset.frequency for synset in synsets)
    else:
        assert ".noun" in refusal(folder) or name in refusal(folder)


def test_a_line_of_ten_megabytes_is_named(folder: Path):
    path = folder / "data.noun"
    path.write_bytes(path.read_bytes() + b"x" * 10_000_000 + b"\n")
    assert "data.noun line 8 " in refusal(folder) and len(refusal(folder)) < 400


def test_a_file_larger_than_any_of_wordnets_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wndb, "_LARGEST", 100)
    assert "it has 262 bytes, more than the 100" in refusal(folder)


def test_a_directory_in_a_files_place_is_named(folder: Path):
    (folder / "cntlist.rev").unlink()
    (folder / "cntlist.rev").mkdir()
    assert "cntlist.rev" in refusal(folder)


def test_a_zip_file_is_read_like_its_folder(folder: Path):
    archive = shutil.make_archive(str(folder.parent / "wordnet"), "zip", folder.parent, "dict")
    assert read_synsets(open_folder(Path(archive)), ["noun"]) == read_synsets(open_folder(folder), ["noun"])


def test_a_zip_file_that_is_damaged_or_of_something_else_is_named(folder: Path, tmp_path: Path):
    archive = Path(shutil.make_archive(str(tmp_path / "wordnet"), "zip", folder.parent, "dict"))
    content = archive.read_bytes()
    place = content.index(b"living thing") if b"living thing" in content else len(content) // 3
    archive.write_bytes(content[:place] + bytes(50) + content[place + 50 :])
    assert "wordnet.zip" in refusal(archive)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("readme", "nothing")
    assert "no file data.noun" in refusal(tmp_path / "other.zip")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from([*NAMES, "cntlist.rev"]),
    place=st.floats(0, 1),
    length=st.integers(0, 40),
    fresh=st.binary(max_size=40)
    | st.sampled_from([b"\n", b"  ", b" 0 ", b"| ", b"00000000 03 n 01 x 0 000 | y\n"]),
)
def test_a_changed_file_is_read_or_refused_in_one_sentence(folder: Path, name, place, length, fresh):
    path = folder / name
    whole = path.read_bytes()
    start = int(place * len(whole))
    path.write_bytes(whole[:start] + fresh + whole[start + length :])
    try:
        read_synsets(open_folder(folder), list(PARTS_OF_SPEECH))
    except UsageError as error:
        assert "\n" not in str(error)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("gloss", "definition", "examples"),
    [
        ("a hat  ", "a hat", ()),
        ('a hat; for heads; "he; wore it"; "two"  ', "a hat; for heads", ("he; wore it", "two")),
        ('a hat; "one"- O.Henry; "two" (British); for heads', "a hat; for heads", ("one", "two")),
        ('attack on all sides: "The zebra was beset"', "attack on all sides", ("The zebra was beset",)),
        ('fold into pleats, "Pleat the cloth"', "fold into pleats", ("Pleat the cloth",)),
        (
            'not movable; e.g. "frozen prices"; "fixed incomes"',
            "not movable",
            ("frozen prices", "fixed incomes"),
        ),
        ('independent of order; as in e.g. "a x b"', "independent of order", ("a x b",)),
        (
            'progress (in the phrase "make strides"); "they did"',
            'progress (in the phrase "make strides")',
            ("they did",),
        ),
        (
            'a workplace; as in the expression "on the job";',
            'a workplace; as in the expression "on the job"',
            (),
        ),
        ('words such as "a", "b" and "c"; "an A"', 'words such as "a", "b" and "c"', ("an A",)),
        (
            'well; "well-done beef", "well-off people" or "wells"',
            "well",
            ("well-done beef", "well-off people", "wells"),
        ),
        ('(of a ball) "a ball that is out"; "one"', "(of a ball)", ("a ball that is out", "one")),
        (
            'muddy; "dirty" is often combined; "dirty-green"',
            'muddy; "dirty" is often combined',
            ("dirty-green",),
        ),
        ('go on; "I know," he continued; "go on"', "go on", ("I know,", "go on")),
        ('a notice; "an obituary"; "a notice of sale', "a notice", ("an obituary", "a notice of sale")),
        ('a branch of the post"', "a branch of the post", ()),
        ('drop; "drop a hint"; drop names"', "drop", ("drop a hint", "drop names")),
        ('"', "", ()),
        ('""', "", ()),
        (" ; ; ", "", ()),
    ],
)
def test_a_gloss_is_a_definition_and_examples(gloss: str, definition: str, examples: tuple[str, ...]):
    assert split_gloss(gloss) == (definition, examples)


@given(st.text(alphabet='ab ;:,"()e.g-', max_size=40))
def test_any_gloss_is_split_without_losing_a_letter_of_what_is_unquoted(gloss: str):
    definition, examples = split_gloss(gloss)
    assert definition == definition.strip() and all(examples)
    if gloss.count('"') % 2 == 0:
        assert all('"' not in example for example in examples)
    if '"' not in gloss:
        kept = [c for c in gloss if c in "ab()-"]
        assert [c for c in definition if c in "ab()-"] == kept and not examples
