"""The bundled list of concepts keeps the contract; a careless list breaks it, check by check."""

from __future__ import annotations

import dataclasses
from itertools import cycle
from pathlib import Path

import pytest

from encyclo.testing.concepts import ConceptsContract
from encyclo.types import Concept

GOOD = [
    Concept("dog", "dog", "a tame animal", broader="animal"),
    Concept("animal", "animal", "what is alive"),
]


class TestCore(ConceptsContract):
    plugin = "core"


class TestTwoCategories(ConceptsContract):
    plugin = "core"
    options = {"categories": ["animals", "time"]}  # noqa: RUF012


def change(**fields) -> list[Concept]:
    return [dataclasses.replace(GOOD[0], **fields), GOOD[1]]


BROKEN = {
    "gives_concepts": [[], ["dog"], change(aliases=["hound"]), change(definition=None), change(broader=3)],
    "ids_are_unique": [GOOD + GOOD, change(id="")],
    "names_can_be_written": [
        change(name=" dog"),
        change(name="?!"),
        change(definition="a\ud800"),
        change(category="a\nb"),
    ],
    "a_definition_says_more_than_the_name": [change(definition="Dog ")],
    "broader_concepts_are_no_circle": [
        change(broader="dog"),
        [*change(), Concept("a", "a", broader="b"), Concept("b", "b", broader="a")],
    ],
}
CASES = [(check, index) for check, lists in BROKEN.items() for index in range(len(lists))]


@pytest.mark.parametrize(("check", "index"), CASES, ids=[f"{c}-{i}" for c, i in CASES])
def test_a_careless_list_is_found_out(check: str, index: int, tmp_path: Path):
    class Careless(ConceptsContract):
        plugin = "core"

        def load(self):
            return BROKEN[check][index]

    assert Careless().find(check, tmp_path).problem is not None


@pytest.mark.parametrize("check", BROKEN)
def test_a_careful_list_is_not(check: str, tmp_path: Path):
    class Careful(ConceptsContract):
        plugin = "core"

        def load(self):
            return GOOD

    assert Careful().find(check, tmp_path).problem is None


def test_a_list_in_another_order_each_time_is_found_out(tmp_path: Path):
    orders = cycle([GOOD, GOOD[::-1]])

    class Careless(ConceptsContract):
        plugin = "core"

        def load(self):
            return next(orders)

    assert "other concepts" in Careless().find("is_the_same_every_time", tmp_path).problem


def test_a_plugin_of_another_kind_is_found_out(tmp_path: Path):
    contract = type("Wrong", (ConceptsContract,), {"plugin": "raw"})()
    assert "load_concepts" in contract.find("it_is_installed", tmp_path).problem
