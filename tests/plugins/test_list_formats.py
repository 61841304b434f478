"""Lists as people have them: as spreadsheets and other programs write them, and warnings about what may not be meant."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import pytest

from encyclo.errors import EncycloWarning, MissingDependencyError, UsageError
from encyclo.types import Concept
from encyclo_concepts.file import Options, load_concepts

FULL = [
    ("café", "food", "a place, with coffee"),
    ("dog", "animals", "a pet"),
    ("naïve Bayes", "", "a classifier"),
]
BULLETS = "Birds of prey\n- owl\n* wren\n3. eagle\n4) kite\n# songbirds\n-dash\n1.5 litres\n"


def read(
    tmp_path: Path, content: str | bytes, name: str, **options: object
) -> tuple[list[Concept], list[str]]:
    """Return the concepts and the warnings."""
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = list(load_concepts(Options(path=path, **options)))
    assert all(issubclass(warning.category, EncycloWarning) for warning in caught)
    return found, [str(warning.message) for warning in caught]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("head", ["", "sep={}\n", '"sep={}"\r\n', "\n\nSEP={}\n"])
@pytest.mark.parametrize("empty", ["", "{0}{0}"])
def test_tables_as_spreadsheets_write_them(tmp_path: Path, delimiter: str, head: str, empty: str):
    rows = [("name", "category", "definition"), *FULL]
    lines = [
        delimiter.join(f'"{cell}"' if cell else "" for cell in row) + empty.format(delimiter) for row in rows
    ]
    for name in ("my.csv", "my.tsv"):
        found, said = read(tmp_path, head.format(delimiter) + "\r\n".join(lines), name)
        assert [(c.name, c.category, c.definition) for c in found] == FULL and not said


def test_an_empty_column_may_stand_anywhere_and_a_row_may_lack_it(tmp_path: Path):
    found, _ = read(tmp_path, "name,,definition,\nowl,,a hunter\nwren, ,a singer,,,\n", "my.csv")
    assert [(c.name, c.definition) for c in found] == [("owl", "a hunter"), ("wren", "a singer")]


def test_lines_are_counted_from_the_files_first(tmp_path: Path):
    with pytest.raises(UsageError, match=r"line 5: the name 'owl' also appears in line 4"):
        read(tmp_path, "\nsep=;\nname;id\nowl;\nowl;\n", "my.csv")
    with pytest.raises(UsageError, match="line 3: its cells can't be separated"):
        read(tmp_path, 'sep=;\nname;id\n"do"g;\n', "my.csv")


def test_a_header_of_unknown_columns_is_cut_where_it_has_known_ones(tmp_path: Path):
    for text, why in (
        ("name;colour\nowl;brown\n", "there is no column 'colour'"),
        ("term;definition\nowl;a hunter\n", "there is no column 'term'"),
        ("a;b\nowl;brown\n", "there is no column 'a;b'"),
        ("x" * 200_000 + "\nowl\n", "a cell has more"),
    ):
        with pytest.raises(UsageError, match=why):
            read(tmp_path, text, "my.csv")


@pytest.mark.parametrize("under", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        [{"name": "owl", "definition": "a hunter"}, {"term": "wren", "part_of_speech": None}],
        {"owl": "a hunter", "wren": None},
        {"owl": {"definition": "a hunter"}, "wren": {}},
        [{"term": "owl", "definition": "a hunter"}, "wren"],
    ],
)
def test_json_lists(tmp_path: Path, content: object, under: bool):
    text = json.dumps({"concepts": content, "version": 1} if under else content, indent=1)
    found, said = read(tmp_path, text, "my.json")
    assert found == [Concept("owl", "owl", "a hunter"), Concept("wren", "wren")] and not said


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "line 1: it is not JSON"),
        ('["owl",\n"wren"', "line 2: it is not JSON"),
        ("3", "holds no list"),
        ('["owl", 3]', "item 2: it can't be 3"),
        ('["owl", "wren", "owl"]', "item 3: the name 'owl' also appears in item 1"),
        ('[{"nmae": "owl"}]', "item 1: there is no column 'nmae'"),
        ('[{"definition": "x"}]', "item 1: the column 'name' is missing"),
        ('{"owl": "x", "owl": "y"}', "the key 'owl' twice"),
        ('{"owl": 3}', "item 1: its definition can't be 3"),
        ("[]", "contains no concept"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 10_000, "not JSON that can be read"),
    ],
)
def test_json_that_is_no_list_is_refused(tmp_path: Path, text: str, why: str):
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text, "my.json")
    assert why in str(caught.value) and "my.json" in str(caught.value)


def test_parquet_lists(tmp_path: Path):
    import pandas

    table = pandas.DataFrame(
        {
            "Name": ["owl", "hunt"],
            "Part of speech": [None, "verb"],
            "aliases": [["night bird"], None],
            "rest": None,
        },
        index=[5, 7],
    )
    table.to_parquet(tmp_path / "written.parquet")
    found, _ = read(tmp_path, (tmp_path / "written.parquet").read_bytes(), "my.parquet")
    assert found == [
        Concept("owl", "owl", aliases=("night bird",)),
        Concept("hunt", "hunt", part_of_speech="verb"),
    ]
    with pytest.raises(UsageError, match=r"my\.parquet can't be read as Parquet"):
        read(tmp_path, b"PAR1", "my.parquet")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'encyclo\[export\]'"):
        read(tmp_path, b"", "my.parquet")


def test_markers_of_lines_are_kept_with_a_warning_or_as_the_option_says(tmp_path: Path):
    found, said = read(tmp_path, BULLETS, "my.txt")
    assert [c.name for c in found] == BULLETS.splitlines()
    (warning, _) = said
    assert "my.txt line 2: the name is taken as '- owl' (4 more like it)" in warning
    assert "-o file.markers=strip" in warning and "-o file.markers=keep" in warning
    found, said = read(tmp_path, BULLETS, "my.txt", markers="keep")
    assert [c.name for c in found] == BULLETS.splitlines() and len(said) == 1
    found, said = read(tmp_path, BULLETS, "my.txt", markers="strip")
    assert [c.name for c in found] == ["Birds of prey", "owl", "wren", "eagle", "kite", "-dash", "1.5 litres"]
    assert len(said) == 1
    with pytest.raises(UsageError, match="contains no concept"):
        read(tmp_path, "# only\n# comments\n", "my.txt", markers="strip")


def test_names_with_unseen_characters_or_too_long_get_one_warning_each(tmp_path: Path):
    names = ["machine\u00a0learning", "zero\u200bwidth", "soft\u00adhyphen", "x" * 101, "y" * 100, "idea’s"]
    found, (unseen, long, _) = read(tmp_path, "\n".join(names), "my.txt")
    assert [c.name for c in found] == ["machine learning", *names[1:]]
    assert r"my.txt line 2: the name 'zero\u200bwidth' has the invisible character U+200B (1 more" in unseen
    assert "my.txt line 4: the name 'xxx" in long and "has 101 characters; " in long


def test_a_list_of_names_alone_says_that_all_are_nouns(tmp_path: Path):
    for content, name in (
        ("owl\nhunt\n", "my.txt"),
        ("name,id\nowl,\nhunt,h\n", "my.csv"),
        ('["owl"]', "my.json"),
    ):
        found, (said,) = read(tmp_path, content, name)
        assert all(c.part_of_speech == "noun" for c in found)
        assert "every concept is taken for a noun" in said and "column part_of_speech" in said
    for content in ("name,definition\nowl,a hunter\n", "name,part_of_speech\nowl,\n"):
        assert read(tmp_path, content, "my.csv")[1] == []


SHARED = ("animal", "mammal", "bird", "fish")


def test_the_command_line_says_each_warning_once(encyclo, tmp_path: Path, tiny_flags: list[str]):
    (tmp_path / "list.txt").write_text("- owl\n- wren\n")
    flags = ["--sampler", "raw", "--interpreter", "centroid", *tiny_flags]
    result = encyclo("run", "--concepts", tmp_path / "list.txt", *flags, "--out", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("the name is taken as '- owl'") == 1
    assert result.stderr.count("every concept is taken for a noun") == 1
    again = encyclo("evaluate", tmp_path / "run", "--device", "cpu")
    assert again.returncode == 0 and "Warning" not in again.stderr, "the run has said it"


def test_lists_that_share_ids_or_names_say_so(encyclo, tmp_path: Path, tiny_flags: list[str]):
    plan = ["plan", "--sampler", "raw", "--out", tmp_path / "run", *tiny_flags, "--concepts", "core"]
    (tmp_path / "same.csv").write_text(
        "name,definition\n" + "".join(f"{n},d\n" for n in (*SHARED, "ocarina"))
    )
    refused = encyclo(*plan, "--concepts", tmp_path / "same.csv")
    assert refused.returncode == 2
    assert "both have the concept ids 'animal', 'mammal', 'bird' and 1 more; leave them out" in refused.stderr
    rows = [f"{n},{n} (mine),d\n" for n in SHARED]
    (tmp_path / "own.csv").write_text("id,name,definition\n" + "".join(f"my {row}" for row in rows))
    result = encyclo(*plan, "--concepts", tmp_path / "own.csv")
    assert result.returncode == 0
    said = "core and file share the names 'animal (mine)', 'mammal (mine)', 'bird (mine)' and 1 more; each list's"
    assert result.stderr.count(said) == 1
