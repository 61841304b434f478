"""Which tokens a pooling reads."""

from __future__ import annotations

import pytest

from encyclo.pooling import pooled_tokens

# <bos> The ice cream , <eos>, where a token holds the blank before its word.
RANGES = [(0, 0), (0, 3), (3, 7), (7, 13), (13, 14), (0, 0)]
SPECIAL = [1, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("pooling", "mention", "places"),
    [
        ("span", (4, 13), (2, 3)),
        ("span", (4, 7), (2,)),
        ("span", (5, 8), (2, 3)),  # parts of two tokens
        ("span", (0, 3), (1,)),  # special tokens are at 0 too
        ("span", None, (4,)),
        ("span", (7, 7), ()),
        ("span", (14, 20), ()),
        ("last", (4, 13), (4,)),
        ("last", None, (4,)),
        ("mean", (4, 13), (1, 2, 3, 4)),
        ("mean-all", None, (0, 1, 2, 3, 4, 5)),
    ],
)
def test_a_pooling_reads_its_tokens(pooling, mention, places):
    assert pooled_tokens(RANGES, SPECIAL, mention, pooling) == places


@pytest.mark.parametrize("pooling", ["span", "last", "mean"])
def test_a_text_without_a_token_of_its_own_has_none_to_read(pooling):
    assert pooled_tokens([(0, 0), (0, 0)], [True, True], None, pooling) == ()
    assert pooled_tokens([(0, 0), (0, 0)], [True, True], None, "mean-all") == (0, 1)


def test_letters_of_one_token_each_are_read_together():
    """Byte tokens of one character share its range."""
    assert pooled_tokens([(0, 1), (1, 2), (1, 2), (2, 3)], [0, 0, 0, 0], (1, 2), "span") == (1, 2)
