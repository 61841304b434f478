"""Entries that share a word: a run of them, from its prompts to look-up, reading and files for other programs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import encyclo as toolkit
from encyclo.errors import AmbiguousNameError, UsageError
from encyclo.query.encyclopedia import Encyclopedia

LIST = """name,id,definition,aliases,broader
bank (slope),,land beside water,riverside|edge,
bank (firm),,a business that keeps money,lender,
spring,season,the time after winter,,
spring,water,a place where water leaves the ground,source,
rim,,the end of a round thing,edge,
Otter,,an animal that swims,,
"""
SENSES = {"bank (slope)": "land beside water", "bank (firm)": "a business that keeps money"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_flags: list[str]) -> Path:
    from encyclo.cli import run_command

    folder = tmp_path_factory.mktemp("senses")
    (folder / "list.csv").write_text(LIST)
    listed = [
        "--concepts",
        "file",
        "-o",
        f"file.path={folder / 'list.csv'}",
    ]
    flags = [
        *listed,
        "--sampler",
        "templates",
        "--per-concept",
        "27",
        "--out",
        str(folder / "run"),
        *tiny_flags,
    ]
    assert run_command(["run", *flags]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def book(run: Path):
    with toolkit.open(run) as book:
        yield book


def test_a_word_is_sampled_without_its_qualifier_and_its_sense_first(book: Encyclopedia):
    part = book["bank (slope)"].samples
    assert not [text for text in part.prompt if "(" in text]
    words = {text[a:b].lower() for text, (a, b) in zip(part.prompt, part.span, strict=True)}
    assert any(word.startswith("bank") for word in words) and not [word for word in words if "slope" in word]
    assert all(".sense." in family for family in part.family)
    assert not [family for family in book["season"].samples.family if ".sense." in family]


@pytest.mark.parametrize(
    ("asked", "id"),
    [
        ("bank (slope)", "bank (slope)"), ("BANK (firm)", "bank (firm)"), ("season", "season"), ("water", "water"),
        ("otter", "Otter"), ("riverside", "bank (slope)"), ("Lender", "bank (firm)"), ("source", "water"), ("rim", "rim"),
    ],
)  # fmt: skip
def test_an_entry_is_found_by_name_id_word_and_alias(book: Encyclopedia, asked: str, id: str):
    assert asked in book and book[asked].id == id


@pytest.mark.parametrize(
    ("asked", "senses"),
    [
        ("bank", SENSES),
        ("Bank", SENSES),
        ("spring", {"season": "the time after winter", "water": "a place where water leaves the ground"}),
        ("edge", {"bank (slope)": "land beside water", "rim": "the end of a round thing"}),
    ],
)
def test_what_several_entries_have_lists_them(book: Encyclopedia, asked: str, senses: dict[str, str]):
    assert asked in book
    with pytest.raises(AmbiguousNameError) as caught:
        book[asked]
    assert caught.value.senses == senses
    assert all(book[choice].id for choice in senses)


def test_show_lists_the_senses_one_a_line(encyclo, run: Path):
    result = encyclo("show", run, "bank")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        f"encyclo: 'bank' means 2 entries of {run}; choose one by its name or id:",
        "  bank (slope)  land beside water",
        "  bank (firm)   a business that keeps money",
    ]
    result = encyclo("show", run, "bank (firm)", "--json")
    assert result.returncode == 0 and json.loads(result.stdout)["id"] == "bank (firm)"


def test_exports_keep_entries_of_one_name_apart(encyclo, run: Path, tmp_path: Path):
    refused = encyclo("export", run, "--out", tmp_path / "no", "--control", "spring")
    assert refused.returncode == 2 and "  season  the time after winter" in refused.stderr
    assert not (tmp_path / "no").exists()
    result = encyclo("export", run, "--out", tmp_path / "out", "--control", "season", "--control", "water")
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "out" / "control").iterdir())) == 2
    with (tmp_path / "out" / "entries.csv").open(encoding="utf-8-sig") as file:
        assert [row["id"] for row in csv.DictReader(file) if row["name"] == "spring"] == ["season", "water"]


def test_a_copy_in_another_store_keeps_them_apart(encyclo, run: Path, tmp_path: Path):
    assert encyclo("convert", run, "--store", "zarr", "--out", tmp_path / "copy").returncode == 0
    with toolkit.open(tmp_path / "copy") as copy, toolkit.open(run) as book:
        for id in ("season", "water"):
            assert copy[id].samples.prompt == book[id].samples.prompt
        with pytest.raises(AmbiguousNameError):
            copy["spring"]


def test_a_word_is_read_as_its_best_sense_and_the_others_follow(book: Encyclopedia, encyclo, run: Path):
    text = "We saw the bank."
    (token,) = (token for token in book.read(text, device="cpu") if token.concepts[0].confidence)
    first, second, *_ = token.concepts
    assert {first.name, second.name} == set(SENSES) and first.confidence >= second.confidence > 0
    printed = encyclo("read", run, text, "--device", "cpu").stdout
    (line,) = (line for line in printed.splitlines() if "%" in line)
    folded = (
        f", ({second.name.partition('(')[2]} {second.confidence:.0%}" if second.confidence >= 0.05 else ""
    )
    assert f"{first.name} {first.confidence:.0%}{folded}" in line


def test_the_report_has_a_place_for_each(run: Path):
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.count('"spring"') == 2


def test_an_unknown_name_still_suggests(book: Encyclopedia):
    with pytest.raises(UsageError, match="did you mean bank"):
        book["bnak"]
