"""A user's own list: every format and encoding, and one sentence with the line for every error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from encyclo.errors import UsageError
from encyclo.plugins.manager import Plugins
from encyclo.query.encyclopedia import open_run
from encyclo.table_files import LONGEST_LINE
from encyclo.types import Concept
from encyclo_concepts.file import Options, Row, load_concepts
from tests.commands import one_sentence

pytestmark = pytest.mark.filterwarnings("ignore::encyclo.errors.EncycloWarning")  # see test_list_formats.py

TABLE = (
    "name,definition,part_of_speech,broader,aliases,countable,examples,category,id\n"
    "bird,an animal with feathers,noun,,,yes,,animals,b1\n"
    'owl,"a hunter of the night, with large eyes",,b1,night bird | hooter,YES,"An owl ""called""|Owls call",,\n'
    "nest,build a place for eggs,verb,,,,,,\n"
)
CONCEPTS = [
    Concept("b1", "bird", "an animal with feathers", "animals", countable=True),
    Concept(
        "owl", "owl", "a hunter of the night, with large eyes", broader="b1", broader_name="bird",
        aliases=("night bird", "hooter"), countable=True, examples=('An owl "called"', "Owls call"),
    ),
    Concept("nest", "nest", "build a place for eggs", part_of_speech="verb"),
]  # fmt: skip


def write(tmp_path: Path, content: str | bytes, name: str = "my.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def load(path: Path, **options) -> list[Concept]:
    return list(load_concepts(Options(path=path, **options)))


def refusal(path: Path, **options) -> str:
    """Return the one sentence with which a list is refused; it names the file."""
    with pytest.raises(UsageError) as caught:
        load_concepts(Options(path=path, **options))
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".") and not message.endswith("..")
    assert str(path) in message and len(message) < 500
    return message


def test_a_table_gives_its_concepts_in_order(tmp_path: Path):
    assert load(write(tmp_path, TABLE)) == CONCEPTS


def test_the_other_formats_say_the_same(tmp_path: Path):
    tabs = 'name\tid\tdefinition\nowl\t\ta hunter, of "mice"\n'.replace('"mice"', "mice")
    (owl,) = load(write(tmp_path, tabs, "my.tsv"))
    assert owl == Concept("owl", "owl", "a hunter, of mice")
    rows = [
        {"name": "bird", "id": "b1", "definition": "an animal with feathers", "category": "animals", "countable": True},
        {"name": "owl", "definition": CONCEPTS[1].definition, "broader": "bird", "countable": "yes", "id": None,
         "aliases": ["night bird", "hooter"], "examples": ['An owl "called"', "Owls call"]},
        {"name": "nest", "definition": "build a place for eggs", "part_of_speech": "verb", "aliases": None},
    ]  # fmt: skip
    lines = "\n\n".join(map(json.dumps, rows))
    assert load(write(tmp_path, lines, "my.jsonl")) == CONCEPTS
    names = write(tmp_path, "owl\n\n  wren \r\nbird of prey\rowl, barn", "my.txt")
    assert [c.name for c in load(names)] == ["owl", "wren", "bird of prey", "owl, barn"]
    assert load(names)[0] == Concept("owl", "owl")


def test_the_format_can_be_said(tmp_path: Path):
    path = write(tmp_path, "name;aliases\nowl;a,b\n", "list.dat")
    assert "-o file.format=csv" in refusal(path)
    (owl,) = load(path, format="csv", delimiter=";", separator=",")
    assert owl.aliases == ("a", "b")
    assert [c.name for c in load(path, format="names")] == ["name;aliases", "owl;a,b"]
    assert load(write(tmp_path, TABLE, "UPPER.CSV")) == CONCEPTS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends_make_no_difference(tmp_path: Path, encoding: str, end: str):
    text = "name,definition\nœuf,un œuf\n日本,島国\n".replace("\n", end)
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    found = load(write(tmp_path, (mark + text).encode(encoding)))
    assert [(c.name, c.definition) for c in found] == [("œuf", "un œuf"), ("日本", "島国")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path, encoding: str):
    path = write(tmp_path, "\ufeffname\nowl\n".encode(encoding))
    assert load(path, encoding=encoding) == load(path) == [Concept("owl", "owl")]


def test_another_encoding_is_named_with_the_line_and_can_be_said(tmp_path: Path):
    path = write(tmp_path, "name\nowl\nœuf\n".encode("cp1252"))
    message = refusal(path)
    assert "line 3: it is not in UTF-8" in message and "-o file.encoding=" in message
    assert [c.name for c in load(path, encoding="cp1252")] == ["owl", "œuf"]
    cut = write(tmp_path, "name\nowl\nwren\n".encode("utf-16")[:-1])
    assert "line 3: it is not in UTF-16" in refusal(cut)
    unmarked = write(tmp_path, "name\nowl\n".encode("utf-16-le"))
    assert "line 1: it contains a NUL" in refusal(unmarked) and "utf-16-le" in refusal(unmarked)
    assert [c.name for c in load(unmarked, encoding="utf-16-le")] == ["owl"]


@pytest.mark.parametrize(
    "name", ["=SUM(A1)", "+1", "-x", "@home", "- a", "1. b", "'quoted'", "a/b", "..", "null", "#tag", "007"]
)
def test_a_name_is_data_whatever_it_begins_with(tmp_path: Path, name: str):
    assert load(write(tmp_path, f"name\n{name}\n"))[0].name == name
    assert load(write(tmp_path, f"{name}\n", "my.txt"))[0].name == name


def test_blanks_are_tidied_and_nothing_else(tmp_path: Path):
    (owl,) = load(
        write(tmp_path, 'Name , Part of speech,DEFINITION\n\n  barn   owl ,Noun,"a\n  hunter"\n,,\n')
    )
    assert owl == Concept("barn owl", "barn owl", "a hunter")


def test_a_broader_concept_is_found_by_id_or_name_or_kept_as_a_name(tmp_path: Path):
    lines = "name,id,broader\nbird,1,animal\nowl,2,1\nwren,3,bird\n"
    bird, owl, wren = load(write(tmp_path, lines))
    assert (bird.broader, bird.broader_name) == (None, "animal")
    assert (owl.broader, owl.broader_name) == (wren.broader, wren.broader_name) == ("1", "bird")


@pytest.mark.parametrize(
    ("content", "line", "why"),
    [
        ("definition\nx\n", 1, "'name' is missing"),
        ("dog\ncat\n", 1, "there is no column 'dog'"),
        ("name;colour\ndog;x\n", 1, "there is no column 'colour'"),
        ("name,colour\ndog,red\n", 1, "there is no column 'colour'; the columns are name, id, definition"),
        ("name,name\na,b\n", 1, "the column 'name' appears twice"),
        ("name,\na,b\n", 2, "column 2 has the cell 'b' and no name"),
        ("name\ndog,a\n", 2, "the header has 1 column; put"),
        ("name,id\ndog\n", 2, "it has 1 cells and the header has 2"),
        ("name,id\n\ndog,a,b\n", 3, "it has 3 cells"),
        ('name\n"dog\ncat\n', 2, "not closed"),
        ('name\n\n"do"g\ncat\n', 3, "can't be separated"),
        ("name,id\n,x\n", 2, "the name is empty"),
        ("name,id\n\u200b\u00a0,x\n", 2, "the name is empty"),
        ("name\ndog\ncat\n\ndog\n", 5, "the name 'dog' also appears in line 2"),
        ("name\ncafe\u0301\ncaf\u00e9\n", 3, "also appears in line 2"),
        ("name,id\ndog,1\ndog,dog\n", 3, "remove one, or give each an id that is not the name"),
        ("name,id,broader\ndog,1,\ndog,2,\npug,,dog\n", 4, "its broader 'dog' names several concepts; give an id: '1', '2'"),
        ("name,id\ndog,1\ncat,1\n", 3, "the id '1' also appears in line 2"),
        ("name,id\ndog,\ncat,dog\n", 3, "the id 'dog' also appears in line 2"),
        ("name,definition\nowl,An OWL.\n", 2, "the definition of 'owl' is only its name"),
        ("name,part_of_speech\ndog,nuon\n", 2, "its part_of_speech can't be 'nuon': it must be one of noun, verb"),
        ("name,countable\ndog,maybe\n", 2, "its countable can't be 'maybe': it must be yes, no or empty"),
        ("name,broader\ndog,dog\n", 2, "'dog' is its own broader concept"),
        ("name,broader\na,b\nb,c\nc,b\n", 3, "'b' is its own broader concept"),
        ("name\ndo\x07g\n", 2, "its name contains the invalid character U+0007"),
        ("name\ndog\nc\0t\n", 3, "it contains a NUL"),
        ("name\ndog\n" + "x" * 10_000_000 + "\n", 3, "it has 10,000,001 characters"),
        ('name\n"' + "x\n" * 200_000 + '"\n', 2, "a cell has more than"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_line(tmp_path: Path, content: str, line: int, why: str):
    message = refusal(write(tmp_path, content))
    assert f"line {line}: " in message and why in message


@pytest.mark.parametrize(
    ("content", "line", "why"),
    [
        ("{}", 1, "'name' is missing"),
        ('{"name": "a"}\n["b"]', 2, "not a JSON object, such as"),
        ('{"name": "a"}\n\n{"name": "b"', 3, "not a JSON object: "),
        ('{"name": "a", "name": "b"}', 1, "the key 'name' twice"),
        ('{"name": "a", "nmae": "b"}', 1, "there is no column 'nmae'"),
        ('{"name": 7}', 1, "its name can't be 7"),
        ('{"name": null}', 1, "'name' is missing"),
        ('{"name": "a", "aliases": [1]}', 1, "it must be a list of strings"),
        ('{"name": "a", "aliases": {"b": 1}}', 1, "it must be a list of strings"),
        ('{"name": "a", "countable": 2}', 1, "its countable can't be 2"),
        ('{"name": "\\ud800"}', 1, "U+D800"),
        ('{"name": "a", "examples": ["x\\u0000"]}', 1, "its examples contains the invalid character U+0000"),
        ('{"name": ' + "[" * 100_000, 1, "nested too deeply"),
        ('{"name": ' + "9" * 10_000 + "}", 1, "not a JSON object"),
    ],
)  # fmt: skip
def test_what_cannot_be_in_json_lines_is_refused_with_its_line(
    tmp_path: Path, content: str, line: int, why: str
):
    message = refusal(write(tmp_path, content, "my.jsonl"))
    assert f"line {line}: " in message and why in message


@pytest.mark.parametrize("content", ["", "\n\n", "name,id\n", "name\n\n,\n".replace(",", ""), "\ufeff"])
def test_an_empty_list_is_refused(tmp_path: Path, content: str):
    assert "contains no concept" in refusal(write(tmp_path, content))


def test_a_line_as_long_as_allowed_is_read(tmp_path: Path):
    name = "x" * (LONGEST_LINE - 1)
    assert load(write(tmp_path, f"{name}\nb", "my.txt"))[0].name == name
    assert "line 1: " in refusal(write(tmp_path, f"{name}x\nb", "my.txt"))


def test_a_list_that_is_not_there_is_named(tmp_path: Path):
    assert "No such file" in refusal(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    assert "folder.csv" in refusal(tmp_path / "folder.csv")
    with pytest.raises(UsageError, match="can't be read"):
        load_concepts(Options(path="nul\0.csv"))
    with pytest.raises(UsageError, match=r"-o file\.path=FILE"):
        load_concepts(Options())


@pytest.mark.parametrize(
    ("key", "value"),
    [("format", "xml"), ("encoding", "klingon"), ("encoding", "rot13"), ("encoding", "a\0"), ("delimiter", ""),
     ("delimiter", "ab"), ("delimiter", '"'), ("delimiter", "\n"), ("separator", ""), ("path", 7)],
)  # fmt: skip
def test_an_option_that_cannot_be_is_refused(key: str, value: object):
    with pytest.raises(UsageError, match=rf"Option file\.{key} can't be"):
        Plugins().options("file", {key: value})


# Bytes that come near to each format, and any others.
PIECES = st.sampled_from(
    ['name', 'id', 'definition', ',', '"', '\n', '\r', '\t', '|', ' ', '{"name": ', '"a"', '}', '[', 'é', '\ufeff', '\0', 'a', 'b']
)  # fmt: skip


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=200)
    | st.lists(PIECES, max_size=30).map(lambda pieces: "".join(pieces).encode()),
    suffix=st.sampled_from([".csv", ".tsv", ".jsonl", ".txt", ".json", ".parquet"]),
    encoding=st.sampled_from([None, "utf-8", "utf-16", "cp1252", "punycode", "utf-7"]),
)
@example(content=b"\xff\xfe", suffix=".csv", encoding=None)
@example(content=b"\n", suffix=".csv", encoding="punycode")
@example(content=b"name\n\x00", suffix=".csv", encoding=None)
def test_any_file_is_read_or_refused_in_one_sentence(tmp_path: Path, content, suffix, encoding):
    path = write(tmp_path, content, f"any{suffix}")
    try:
        found = load(path, encoding=encoding)
    except UsageError as error:
        assert "\n" not in str(error) and str(path) in str(error)
        return
    assert found and len({c.id for c in found}) == len({c.name for c in found}) == len(found)
    for concept in found:
        assert concept.name.strip() and json.dumps(vars_of(concept)).encode()
        concept.name.encode("utf-8")


def vars_of(concept: Concept) -> dict[str, object]:
    return {name: getattr(concept, name) for name in Concept.__slots__}


TEXT = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=1, max_size=20).map(
    str.strip
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXT.filter(bool), min_size=1, max_size=8))
def test_what_is_written_as_csv_is_read_back(tmp_path: Path, names: list[str]):
    import csv
    import unicodedata

    names = list({unicodedata.normalize("NFC", " ".join(name.split())): None for name in names})
    with (tmp_path / "round.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [["id", "name"], *([str(place), name] for place, name in enumerate(names))]
        )
    found = load(tmp_path / "round.csv")
    assert [(c.id, c.name) for c in found] == [(str(place), name) for place, name in enumerate(names)]


def test_the_columns_are_those_of_a_concept():
    assert set(Row.model_fields) == set(Concept.__slots__) - {
        "broader_name",
        "example_spans",
        "held_out_aliases",
    }


def test_a_list_makes_an_encyclopedia_and_may_be_moved(encyclo, tmp_path: Path, tiny_flags: list[str]):
    from encyclo.storage import files

    path = write(tmp_path, TABLE)
    flags = ["run", "--concepts", "file", "--sampler", "raw", "--out", tmp_path / "run", *tiny_flags, "-o"]
    result = encyclo(*flags, f"file.path={path}")
    assert result.returncode == 0, result.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["provenance"]["concept_files"] == {str(path): files.sha256_of(path)}
    assert record["config"]["options"]["file"]["path"] == str(path)

    moved = tmp_path / "moved.csv"
    path.rename(moved)
    result = encyclo(*flags, f"file.path={moved}")
    assert result.returncode == 0 and "already finished" in result.stdout
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["config"]["options"]["file"]["path"] == str(moved)

    moved.write_text(TABLE.replace("large eyes", "huge eyes"))
    result = encyclo(*flags, f"file.path={moved}")
    assert result.returncode == 2 and "the list gives other concepts now" in one_sentence(result.stderr)


def test_concepts_may_name_the_file_itself(encyclo, tmp_path: Path, tiny_flags: list[str]):
    path, out = write(tmp_path, TABLE), tmp_path / "run"
    flags = ["--sampler", "raw", "--out", out, *tiny_flags]
    result = encyclo("run", "--concepts", path, *flags)
    assert result.returncode == 0, result.stderr
    config = json.loads((out / "run.json").read_text())["config"]
    assert config["concepts"] == "file" and config["options"]["file"]["path"] == str(path)
    result = encyclo("run", "--concepts", "file", "-o", f"file.path={path}", *flags)
    assert "already finished" in result.stdout
    result = encyclo("run", "--concepts", tmp_path / "none.csv", *flags)
    assert result.returncode == 2 and "none.csv', which does not exist" in one_sentence(result.stderr)


def test_a_file_may_be_added_to_the_core_list(encyclo, tmp_path: Path, tiny_flags: list[str]):
    path, out = write(tmp_path, TABLE.replace("bird", "nestling")), tmp_path / "run"
    flags = [
        "--sampler",
        "raw",
        "--interpreter",
        "centroid",
        "-o",
        'core.categories=["emotions"]',
        *tiny_flags,
    ]
    lists = ["--concepts", "core", "--concepts", path]
    result = encyclo("run", *lists, *flags, "--out", out)
    assert result.returncode == 0, result.stderr
    record = json.loads((out / "run.json").read_text())
    assert record["config"]["concepts"] == ["core", "file"]
    assert record["config"]["options"]["file"]["path"] == str(path)
    assert list(record["provenance"]["concept_files"]) == [str(path)]
    with open_run(out) as book:
        assert book.concepts[-3:] == ["nestling", "owl", "nest"] and "grief" in book.concepts
    moved = path.rename(tmp_path / "moved.csv")
    again = encyclo("run", "--concepts", "core", "--concepts", moved, *flags, "--out", out)
    assert again.returncode == 0 and "already finished" in again.stdout, again.stderr
    assert encyclo("export", out, "--out", tmp_path / "exported", "--no-parquet").returncode == 0
    metadata = json.loads((tmp_path / "exported" / "metadata.json").read_text())
    assert metadata["concept_list"] == "core, file" and "core: " in metadata["licences"]["concepts"]

    few = encyclo("plan", "--concepts", "core", "--concepts", moved, "--limit", "2", *flags)
    assert few.returncode == 0 and "Concepts  2" in few.stdout, few.stderr
    moved.write_text("name\ngrief\n")
    clash = encyclo("plan", "--concepts", "core", "--concepts", moved, *flags)
    said = one_sentence(clash.stderr)
    assert clash.returncode == 2 and "concept lists core and file" in said and "id 'grief'" in said


def test_a_mistake_in_the_last_line_shows_before_any_work(encyclo, tmp_path: Path, tiny_flags: list[str]):
    path = write(tmp_path, TABLE + "owl,again,,,,,,,\n")
    result = encyclo(
        "run",
        "--concepts",
        "file",
        "-o",
        f"file.path={path}",
        "--limit",
        "1",
        "--out",
        tmp_path / "run",
        *tiny_flags,
    )
    assert result.returncode == 2 and "line 5: the name 'owl' also appears in line" in one_sentence(
        result.stderr
    )
    assert not (tmp_path / "run").exists()


def test_shares_belong_to_the_name_and_the_aliases(tmp_path: Path):
    path = write(tmp_path, "name,aliases,word_shares\nbank,slope|bank|side,0.2|1|0.5|0.25\nowl,,\n")
    bank, owl = load(path)
    assert (bank.aliases, bank.word_shares) == (("slope", "side"), (0.2, 1.0, 0.25)) and owl.word_shares == ()


@pytest.mark.parametrize(
    ("shares", "said"),
    [("0.5|0.5", "2 numbers"), ("2", "from 0 to 1"), ("much", "from 0 to 1"), ("nan", "from 0 to 1")],
)
def test_wrong_shares_are_refused(tmp_path: Path, shares: str, said: str):
    assert said in refusal(write(tmp_path, f"name,aliases,word_shares\nbank,,{shares}\n"))


def test_concepts_of_one_name_have_ids_of_their_own(tmp_path: Path):
    animal, frank, pug = load(write(tmp_path, "name,id,broader\ndog,animal,\ndog,frank,\npug,,animal\n"))
    assert (animal.name, animal.id, frank.name, frank.id) == ("dog", "animal", "dog", "frank")
    assert (pug.broader, pug.broader_name) == ("animal", "dog")
