"""Windows give each token once, with the most context; blocks are cut the same way every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from encyclo.corpus.blocks import Cutter
from encyclo.corpus.settings import CaptureSettings
from encyclo.corpus.text_files import SourceText
from encyclo.windows import TextTokens, cut


@given(st.integers(1, 200), st.integers(1, 40), st.data())
def test_each_token_is_fresh_once_where_it_has_the_most_tokens_before_it(count: int, room: int, data: Any):
    stride = data.draw(st.integers(1, room))
    windows = list(cut(count, room, stride))
    fresh = [place for _, first, stop in windows for place in range(first, stop)]
    assert fresh == list(range(count))
    for start, first, stop in windows:
        assert start <= first < stop <= min(start + room, count) and start % stride == 0
        for place in range(first, stop):
            others = range(0, place + 1, stride)
            assert start == min(other for other in others if place < other + room)
    assert all(first - start >= room - stride for start, first, _ in windows[1:])


class Words:
    """A model whose tokens are characters, between two special ones."""

    max_tokens = 12

    def split_text(self, text: str) -> TextTokens:
        places = np.arange(len(text), dtype=np.int32)
        ids = np.array([ord(letter) for letter in text], np.int32)
        return TextTokens(ids, np.stack([places, places + 1], axis=1), (1,), (2,))


def blocks(texts: list[str], rows: int, **more: Any) -> list[Any]:
    settings = CaptureSettings(files=(Path("a.txt"),), **{"context": 12, "stride": 10, **more})
    sources = [SourceText("a.txt", line, text) for line, text in enumerate(texts, 1)]
    return list(Cutter(Words(), settings, rows).blocks(sources))  # type: ignore[arg-type]


def test_blocks_have_each_kept_token_once_and_the_texts_whole():
    texts = ["abcdefghijklmnopqrstuvwxyz", "x", "0123456789"]
    found = blocks(texts, rows=15)
    assert [block.rows for block in found] == [10, 10, 7, 10]
    tokens = "".join(chr(token) for block in found for token in np.concatenate(block.token))
    assert tokens == "".join(texts)
    contents: dict[int, str] = {}
    for block in found:
        for number, source, start, end in block.texts:
            assert len(contents.setdefault(number, "")) == start
            contents[number] += source.text[start:end]
    assert list(contents.values()) == texts
    assert all(window.ids[0] == 1 and window.ids[-1] == 2 for block in found for window in block.windows)


def test_the_same_texts_give_the_same_blocks_and_others_give_others():
    def identities(texts: list[str], recipe: str = "r") -> list[str]:
        return [block.identity(recipe) for block in blocks(texts, rows=10)]

    texts = ["abcdefghijklmnopqrstuvwxyz", "xyz"]
    assert identities(texts) == identities(texts)
    assert identities(texts)[:2] == identities([texts[0][:20] + "!", texts[1]])[:2]
    every = [*identities(texts), *identities(texts, "s"), *identities(["-", *texts])]
    assert len(set(every)) == len(every)


def test_every_nth_and_the_last_token_read_only_the_windows_that_have_one():
    texts = ["abcdefghijklmnopqrstuvwxyz", "x"]
    [block] = blocks(texts, 100, tokens=9)
    assert [chr(token) for token in np.concatenate(block.token)] == ["i", "r"]
    assert len(block.windows) == 2
    [block] = blocks(texts, 100, tokens="last")
    assert [chr(token) for token in np.concatenate(block.token)] == ["z", "x"]
    assert len(block.windows) == 2
    assert np.concatenate(block.position).tolist() == [25, 0]
