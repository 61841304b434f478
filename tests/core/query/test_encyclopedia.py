"""An encyclopedia from Python: entries, search, reading, tables, notebooks; also of an unfinished run."""

from __future__ import annotations

import dataclasses
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import encyclo
from encyclo.errors import AmbiguousNameError, MissingDependencyError, UsageError
from encyclo.query import html as notebook
from encyclo.query.encyclopedia import Encyclopedia, Entry
from encyclo.query.readings import Candidate, Reading, TokenReading
from encyclo.schema import Book
from encyclo.storage.ledger import Ledger
from encyclo.types import Concept
from tests.stored_runs import CONCEPTS, HIDDEN, LAYERS, make_run

HOSTILE = ["<script>alert(1)</script>", "x" * 10_000, "a\"b'c", "=1+1", "שלום\u202e", "😀", "O & <b>"]
TEXT = "The animal drank water <near> the house & left.\nTwice."


@pytest.fixture(scope="module")
def book(tiny_run: Path):
    with encyclo.open(tiny_run) as book:
        yield book


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("python") / "run", "hdf5")


def renamed(book: Encyclopedia, names: list[str]) -> Encyclopedia:
    """The same encyclopedia, its first concepts called `names`."""
    table = book.book.concepts
    changed = [*names, *table.name[len(names) :]]
    definitions = [*names, *table.definition[len(names) :]]
    concepts = dataclasses.replace(table, name=changed, definition=definitions, category=changed)
    inner = Book(book.book.attributes, concepts, book.book.signatures)
    return Encyclopedia(book.path, book.record, book.source, book._plugins, changed, inner)


class Markup(HTMLParser):
    """Collects tags and text; fails on what doesn't close."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.titles: list[str] = []
        self.open: list[str] = []
        self.feed(markup)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.titles += [value for name, value in attrs if name == "title"]
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


# --- entries -----------------------------------------------------------------------------------------------------


def test_an_entry_is_found_by_name_and_holds_what_the_file_holds(book: Encyclopedia):
    entry = book["animal"]
    table, row = book.book.concepts, book.index("animal")
    assert isinstance(entry, Entry) and (entry.name, entry.row) == ("animal", row)
    assert entry.low <= entry.confidence <= entry.high
    assert (entry.confidence, entry.stage) == (float(table.confidence[row]), int(table.stage[row]))
    assert list(entry.by_layer) == [1, -2, -1] == list(book.layers)
    np.testing.assert_array_equal(entry.by_layer[-2], book.book.signatures.mean[row, 1])
    assert entry.by_layer[-1].dtype == np.float32 and entry.by_layer[-1].shape == (32,)


def test_length_membership_and_iteration(book: Encyclopedia):
    entries = list(book)
    assert len(entries) == len(book) == 40
    assert [entry.name for entry in entries] == book.concepts
    assert "animal" in book and entries[3] in book
    assert "anjmal" not in book and 3 not in book and None not in book


def test_an_unknown_name_suggests(book: Encyclopedia):
    with pytest.raises(UsageError, match=r"did you mean.*animal"):
        book["anmal"]


def test_two_concepts_of_one_name_both_have_entries_and_ids_find_each(stored: Path):
    with encyclo.open(stored) as plain:
        book = renamed(plain, ["bank", "bank"])
        first, second = list(book)[:2]
        assert "bank" in book and book["c0"].row == 0 and book["c1"].row == 1 and "c1" in book
        for ask in (book.index, book.entry, book.samples, book.rows, book.confused_with, book.__getitem__):
            with pytest.raises(AmbiguousNameError) as caught:
                ask("bank")
            assert caught.value.senses == {"c0": "bank", "c1": "bank"}
        assert set(first.samples.prompt).isdisjoint(second.samples.prompt)
        assert list(second.samples.concept) == [1] * second.n_samples


def test_a_word_of_several_entries_lists_its_senses_and_a_shown_name_chooses(stored: Path):
    with encyclo.open(stored) as plain:
        book = renamed(plain, ["bank (slope)", "bank (institution)", "hill (slope)"])
        assert book["bank (slope)"].row == 0 and book["BANK (institution)"].row == 1
        assert book["hill"].row == book["Hill"].row == 2 and "hill" in book and "bank" in book
        assert "slope" not in book and "bank " not in book
        with pytest.raises(UsageError) as caught:
            book["bank"]
        message = str(caught.value)
        assert "2 entries" in message and "bank (slope): bank (slope); bank (institution)" in message
        assert "choose one by its name or id" in message


def test_an_unfinished_runs_concepts_are_found_by_word_and_alias(tmp_path: Path, stored: Path):
    concepts = [
        Concept("a", "bank (slope)", aliases=("shore",)),
        Concept("b", "Bank (firm)", aliases=("shore", "lender")),
    ]
    with encyclo.open(stored) as plain:
        names = [concept.name for concept in concepts]
        book = Encyclopedia(
            plain.path, plain.record, plain.source, plain._plugins, names, None, None, concepts
        )
        assert [book.index(name) for name in ("a", "bank", "Bank", "lender", "LENDER")] == [0, 0, 1, 1, 1]
        for name in ("BANK", "shore"):
            with pytest.raises(AmbiguousNameError):
                book.index(name)


def test_samples_and_neighbours_are_found_when_they_are_asked_for(stored: Path, monkeypatch):
    with encyclo.open(stored) as book:
        asked = []
        source = book.source.samples
        monkeypatch.setattr(book.source, "samples", lambda rows: asked.append(len(rows)) or source(rows))
        entries = list(book)
        assert asked == [] and "similarity" not in vars(book)
        samples = entries[4].samples
        assert samples is entries[4].samples and asked == [entries[4].n_samples]
        assert samples.values().shape == (entries[4].n_samples, len(LAYERS), HIDDEN)
        near, again = (
            entries[4].nearest,
            book.nearest(4, 8),
        )  # of one entry, then among all: the last bit may differ
        assert [n.name for n in near] == [n.name for n in again] and len(near) == 8
        assert [n.cosine for n in near] == pytest.approx([n.cosine for n in again], abs=1e-6)
        assert "name 4" not in {n.name for n in entries[4].nearest}
        assert len(book.entry("name 4", neighbours=3).nearest) == 3
        every = book.search(entries[4].signature, count=CONCEPTS)[1:]
        near = [neighbour for neighbour in every if neighbour.cosine >= 0.005]  # less is no neighbour
        assert 0 < len(near) < CONCEPTS - 1
        assert [n.name for n in book.entry("name 4", neighbours=100).nearest] == [n.name for n in near]


def test_the_nearest_are_those_of_a_direct_computation(book: Encyclopedia):
    mean = book.book.signatures.mean.astype(np.float64)
    scaled = (mean - mean.mean(axis=0)) / mean.std(axis=0)
    scaled /= np.linalg.norm(scaled, axis=-1, keepdims=True)
    row = book.index("animal")
    cosine = (scaled * scaled[row]).sum(axis=-1).mean(axis=1)
    cosine[row] = -2
    found = book["animal"].nearest
    assert [n.name for n in found] == [book.concepts[i] for i in np.argsort(-cosine)[:8]]
    np.testing.assert_allclose([n.cosine for n in found], np.sort(cosine)[::-1][:8], atol=1e-5)


# --- search ------------------------------------------------------------------------------------------------------


def test_a_signature_finds_its_own_concept_at_all_layers_and_at_each(book: Encyclopedia):
    for entry in book:
        assert book.search(entry.signature)[0].name == entry.name
        for layer, vector in entry.by_layer.items():
            best = book.search(vector, layer=layer, count=1)
            assert best[0].name == entry.name and best[0].cosine == pytest.approx(1, abs=1e-4)


def test_a_difference_is_not_centred(book: Encyclopedia):
    centre = book.book.signatures.mean.mean(axis=0)
    apart = 3 * (book["animal"].signature - centre)
    assert book.search(apart, difference=True)[0].name == "animal"
    assert book.search(apart, difference=True)[0].cosine == pytest.approx(1, abs=1e-4)
    assert book.search(apart)[0].cosine < 0.99
    one = apart[1]
    assert book.search(one, layer=-2, difference=True)[0].cosine == pytest.approx(1, abs=1e-4)


def test_samples_mostly_find_their_concept(book: Encyclopedia):
    values, hits = book["animal"].samples.values(), 0
    for sample in values:
        hits += "animal" in [n.name for n in book.search(sample, count=5)]
    assert hits > len(values) / 2


@pytest.mark.parametrize(
    ("vector", "layer", "says"),
    [
        (np.ones(32), None, "(3, 32) at all layers (or one"),
        (np.ones((3, 32)), -1, "(32,) at layer -1"),
        (np.ones((3, 31)), None, "(3, 32)"),
        (np.ones((1, 3, 32)), None, "(3, 32)"),
        (np.full((3, 32), np.nan), None, "finite"),
        (np.full((3, 32), 1e300), None, "finite"),
        (np.zeros((3, 32)), None, "not all 0"),
        (np.full((3, 32), "a"), None, "(3, 32)"),
        (np.ones(32), -7, "no layer -7"),
    ],
)
def test_a_vector_that_can_t_be_searched_for_is_refused(book: Encyclopedia, vector, layer, says: str):
    with pytest.raises(UsageError, match=re.escape(says)):
        book.search(vector, layer=layer)


# --- reading, tables ---------------------------------------------------------------------------------------------


def test_reading_a_text(book: Encyclopedia, monkeypatch: pytest.MonkeyPatch):
    from encyclo.query import encyclopedia

    opened = []
    original = encyclopedia.reopen_model
    monkeypatch.setattr(encyclopedia, "reopen_model", lambda *a: opened.append(1) or original(*a))
    found = book.read(TEXT, top=2, device="cpu")
    assert "".join(token.token for token in found) == re.sub(r"\s", "", TEXT)
    assert len(found[0].concepts) == 2 and len(found[1:3]) == 2 and found[-1] == found.tokens[-1]
    assert book.read(TEXT, top=2, device="cpu") == found and opened == [1]
    sure = book.read(TEXT, at_least=0.0, device="cpu")
    assert len(sure.concepts) == len(set(sure.concepts)) > 0
    assert book.read(TEXT, at_least=1.0, device="cpu", any_word=True).concepts == []
    with pytest.raises(UsageError, match="nothing to read"):
        book.read(" ", device="cpu")


def test_a_table_has_a_row_an_entry(book: Encyclopedia):
    import pandas

    table = book.to_pandas()
    assert isinstance(table, pandas.DataFrame) and list(table["name"]) == book.concepts
    row = table.set_index("name").loc["animal"]
    entry = book["animal"]
    assert (row["confidence"], row["n_samples"], row["definition"]) == (
        np.float32(entry.confidence), entry.n_samples, entry.definition,
    )  # fmt: skip
    assert table["settled"].dtype == bool and table["confidence"].dtype == np.float32
    assert row["own_readings"] == entry.own_readings


def test_without_pandas_one_sentence_says_how_to_get_it(book: Encyclopedia, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'encyclo\[pandas\]'"):
        book.to_pandas()


# --- reprs -------------------------------------------------------------------------------------------------------


def test_reprs_say_what_matters(book: Encyclopedia):
    entry = book["animal"]
    assert repr(entry).startswith("<Entry 'animal': confidence ")
    assert f"{entry.confidence:.0%}" in repr(entry) and entry.nearest[0].name in repr(entry)
    assert "40 concepts" in repr(book)
    assert repr(book.read("The green", at_least=0.5, device="cpu")).endswith(
        "nothing read with enough confidence>"
    )
    token = TokenReading("dog", 0, 3, [Candidate("d", "dog", 0.9)], 1.0, "dog")
    assert repr(Reading("dog dog", (token, token))) == "<Reading of 2 tokens: dog>"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_show_as_text(stored: Path, name: str):
    with encyclo.open(stored) as plain:
        book = renamed(plain, [name])
        shown = name if len(name) <= notebook.LONGEST else name[: notebook.LONGEST - 1] + "…"
        for markup in (book[name]._repr_html_(), book._repr_html_()):
            found = Markup(markup)
            assert set(found.tags) <= {"div", "b", "br", "table", "tr", "td", "th"}
            assert shown in found.text
            assert len(markup) < 20_000


@pytest.mark.parametrize("name", HOSTILE)
def test_a_reading_shows_the_text_and_its_concepts(name: str):
    token = TokenReading(name, 1, 1 + len(name), [Candidate("d", name, 0.9)], 1.0, name)
    unsure = TokenReading("b", len(name) + 1, len(name) + 2, [Candidate("e", "e", None)], None, None)
    text = f"<{name}b>"
    found = Markup(Reading(text, (token, unsure))._repr_html_())
    assert found.text == text and set(found.tags) == {"div", "span"}
    assert found.titles[0].endswith(" 90%") and found.titles[0].startswith(name[:100])
    assert found.titles[1] == "e"


def test_a_surer_token_is_stronger():
    def strength(sure: float | None, read: str | None) -> float:
        token = TokenReading("a", 0, 1, [Candidate("d", "d", sure)], 1.0, read)
        return float(re.search(r"244,([\d.]+)\)", Reading("a", (token,))._repr_html_())[1])

    assert strength(0.9, "d") > strength(0.6, "d") > strength(0.6, None) == strength(None, None) == 0


# --- an unfinished run -------------------------------------------------------------------------------------------


def test_an_unfinished_book_says_what_it_has(tmp_path: Path):
    run = make_run(tmp_path / "run", "hdf5", finish=False)
    with encyclo.open(run) as book:
        assert not book.finished and len(book) == CONCEPTS and book.concepts[0] in book
        assert "not finished" in repr(book) and "not finished" in Markup(book._repr_html_()).text
        for ask in (
            lambda: book[book.concepts[0]],
            lambda: list(book),
            book.to_pandas,
            lambda: book.search(1),
            book.reader,
            book.interpreter,
        ):
            with pytest.raises(UsageError, match="not finished"):
                ask()
        assert len(book.samples(book.concepts[0])) > 0


def test_a_run_can_be_opened_at_every_commit(
    encyclo, tiny_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """After each commit of a run, opening it shows all committed samples."""
    from encyclo.query.encyclopedia import open_run

    out, seen = tmp_path / "run", []
    commit = Ledger.commit

    def commit_and_look(self, record):
        done = commit(self, record)
        with open_run(out) as book:
            total = sum(len(book.samples(name)) for name in book.concepts)
            seen.append((total, sum(c.rows for c in Ledger(out).commits().values())))
        return done

    monkeypatch.setattr(Ledger, "commit", commit_and_look)
    flags = ["--sampler", "raw", "--sampler", "templates", "--limit", "30", "--per-concept", "2", *tiny_flags]
    assert encyclo("run", *flags, "--out", out).returncode == 0
    assert len(seen) >= 2 and all(found == committed > 0 for found, committed in seen)
    with open_run(out) as book:
        assert book.finished


def test_commits_without_samples_do_not_keep_a_run_from_opening(tmp_path: Path):
    from encyclo.storage.ledger import Commit

    run = make_run(tmp_path / "run", "hdf5", finish=False)
    Ledger(run).commit(Commit("nothing", 3, "nothing-none", 0, "", "", 0.0, 0, 0))
    with encyclo.open(run) as book:
        assert len(book.samples()) == 601


def test_only_an_entrys_word_is_read(book: Encyclopedia):
    """Unless asked for, nothing is read where none of an entry's words ends."""
    text = "The two animals of the zoo and an animal."
    found = book.read(text, at_least=0.0, device="cpu")
    sure = [token for token in found if token.concepts[0].confidence]
    assert [token.end for token in sure] == [text.index("animals") + 7, text.index("animal.") + 6]
    assert {token.concepts[0].name for token in sure} == {"animal"}
    anywhere = book.read(text, at_least=0.0, device="cpu", any_word=True)
    assert sum(bool(token.concepts[0].confidence) for token in anywhere) > len(sure)


def test_rows_are_numbers_a_slice_or_a_mask(tiny_run):
    with encyclo.open(tiny_run) as book:
        values = book.activations(slice(None))
        mask = np.zeros(len(values), bool)
        mask[[3, 70]] = True
        for same in ([3, 70], np.array([3, 70]), mask, slice(3, 71, 67)):
            assert np.array_equal(book.activations(same), values[[3, 70]])
            assert np.array_equal(book.activations(same, layer=-1), values[[3, 70], -1])
            assert sorted(row for batch in book.batches(1, 0, same) for row in batch.rows) == [3, 70]
        for wrong in (mask[:-1], [1.5], [[1, 2]]):
            with pytest.raises(
                UsageError, match="Rows are whole numbers, a slice, or a mask of all 400 rows"
            ):
                book.activations(wrong)
        with pytest.raises(UsageError, match="has the rows 0 to 399; ask for some of these"):
            book.batches(8, 0, [400])
        with pytest.raises(UsageError, match="batches takes a size from 1 and a seed from 0"):
            book.batches(0, 0)
