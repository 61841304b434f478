"""How much of a text's activations the entries explain: which tokens are read, of which kind, and from Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import encyclo
from encyclo.errors import UsageError
from encyclo.query.text_coverage import token_kinds
from encyclo.query.text_reader import TextReader

TEXT = (
    "The animal drank water near the mountain, and 3 dogs of 1,000 ran to the city's unforgettable river. "
    * 8
)


@pytest.fixture(scope="module")
def book(tiny_run: Path):
    with encyclo.open(tiny_run) as book:
        yield book


@pytest.fixture(scope="module")
def reader(book) -> TextReader:
    return book.reader("cpu")


def test_a_text_is_measured_beside_its_references(book):
    found = book.coverage(TEXT, device="cpu")
    assert found.tokens == len(book.read(TEXT, device="cpu")) - 1, "all but the first token"
    assert found.measured == found.tokens - found.tokens // 2 == sum(row.tokens for row in found.kinds)
    assert (found.candidates, found.source) == (40, "a text") and list(found.layers) == ["1", "-2", "-1"]
    for row in found.layers.values():
        for shares in (row.entries, row.random, row.shuffled, row.principal):
            known = [share for share in shares if share is not None]
            assert known[0] > 0 and known == sorted(known) and known[-1] <= 1
        assert row.entries[3] is None, "there are fewer than 64 entries"
    assert found == book.coverage([TEXT[:50], TEXT[50:]], device="cpu"), "in pieces, and a second time"


def test_only_the_first_tokens_are_read(book):
    found = book.coverage(TEXT * 100, tokens=60, device="cpu")
    assert found == book.coverage(TEXT, tokens=60, device="cpu") and found.tokens == 60


def test_a_short_text_has_no_figures_and_a_blank_one_is_refused(book):
    found = book.coverage("The animal drank water.", device="cpu")
    assert 0 < found.tokens < 50 and (found.measured, found.layers, found.kinds) == (0, None, None)
    with pytest.raises(UsageError, match="nothing to measure in a text: it is blank"):
        book.coverage(" \n", device="cpu")


def test_the_first_token_of_a_text_is_marked(reader: TextReader):
    first, *others = reader.windows_of("animal " * 400)
    assert others and first.first and not any(window.first for window in others)
    assert first.text[slice(*first.spans[0])].strip() and first.start == 0


def test_kinds_of_token(reader: TextReader):
    (window,) = reader.windows_of("The animals, 1,000 unforgettable ones: the city's quietest 3rd.")
    kinds = token_kinds(reader, window)
    tokens = [window.text[a:b].strip() for a, b in window.spans]
    assert len(kinds) == len(tokens) and {"an entry's word", "punctuation"} <= set(kinds)
    for token, kind in zip(tokens, kinds, strict=True):
        assert (kind == "punctuation") == (not any(map(str.isalnum, token))), (token, kind)
    by_end = dict(zip([end for _, end in window.spans], kinds, strict=True))
    text = window.text
    assert by_end[text.index("The") + 3] == "function word"
    assert by_end[text.index("animals") + 7] == "an entry's word"
    assert by_end[text.index("unforgettable") + 13] == "other word"
    inside = [kind for end, kind in by_end.items() if 0 < end - text.index("unforgettable") < 13]
    assert set(inside) <= {"part of a word"}
    assert np.isfinite(window.values).all()
