"""docs/concepts.md says what the concept lists do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from encyclo.errors import UsageError
from encyclo.table_files import FORMATS
from encyclo_concepts import file, wordnet

TEXT = (Path(__file__).parents[2] / "docs" / "concepts.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "options"), [("wordnet", wordnet.Options), ("file", file.Options)])
def test_every_option_is_described_and_no_other(name: str, options: type):
    described = re.findall(rf"^\| `{name}\.(\w+)` \|", TEXT, flags=re.M)
    assert described == list(options.model_fields)


def test_every_column_and_every_extension_is_described():
    table = TEXT.split("| column | what it holds |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, flags=re.M) == list(file.Row.model_fields)
    assert all(f"`{extension}`" in TEXT for extension in FORMATS if extension != ".csv")


def test_the_list_in_it_is_read_as_it_says(tmp_path: Path):
    path = tmp_path / "birds.csv"
    path.write_text(re.search(r"```\n(name,definition.*?)```", TEXT, flags=re.S)[1])
    found = {concept.name: concept for concept in file.load_concepts(file.Options(path=path))}
    assert len(found) == 6 and "(templates): 6 concepts" in TEXT
    assert found["owl"].broader == "bird" and len(found["owl"].examples) == 2
    assert found["plumage"].countable is False and found["nest"].part_of_speech == "verb"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("twice.csv", b"name,definition\nowl,a hunter\nwren,a singer\nowl,a bird\n"),
        ("oeuf.csv", "name\nowl\nœuf\n".encode("cp1252")),
    ],
)
def test_the_refusals_in_it_are_those_that_come(tmp_path: Path, monkeypatch, name: str, content: bytes):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        file.load_concepts(file.Options(path=Path(name)))
    assert f"    encyclo: {caught.value}\n" in TEXT


@pytest.mark.skipif(not (wordnet.DEBIAN / "data.noun").is_file(), reason="wordnet-base is not installed")
@pytest.mark.slow
def test_the_figures_in_it_are_those_of_wordnet_3_0():
    def count(**options) -> str:
        return f"{sum(1 for _ in wordnet.load_concepts(wordnet.Options(path=wordnet.DEBIAN, **options))):,}"

    every = list(wordnet.load_concepts(wordnet.Options(path=wordnet.DEBIAN)))
    assert f"the {len(every):,} synsets" in TEXT
    assert f"({count(all_senses=False)} remain)" in TEXT
    assert f"(1 leaves {count(min_frequency=1)}, 5 leaves {count(min_frequency=5)})" in TEXT
    assert f"({sum(bool(c.examples) for c in every):,} of the concepts have at least one)" in TEXT
