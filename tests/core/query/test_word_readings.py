"""A word's own entries are read by their share of its uses and the interpreter's evidence; other words are not read."""

from __future__ import annotations

import numpy as np
import pytest

from encyclo.entry_words import EntryWords
from encyclo.query.word_readings import EVIDENCE, entries_at, read_words
from encyclo.statistics.confidence import best_scores
from encyclo.types import Concept

WORDS = EntryWords.of([Concept("dog", "dog"), Concept("ice", "ice cream"), Concept("bank", "bank")])


def ends(text: str, *tokens: str) -> list[int]:
    return [text.index(token) + len(token) for token in tokens]


def test_an_entry_stands_where_its_word_ends():
    text = "The dogs' ice cream, the bank's."
    found = entries_at(text, ends(text, "The", "dog", "dogs", "ice", "cream", ",", "bank's", "bank"), WORDS)
    assert [list(entries) for entries in found] == [[], [], [0], [], [1], [], [], [2]]


def confidences(scores: list[float], named: dict[int, float | None], temperature: float = 1.0):
    _, columns = best_scores(np.array([scores], np.float32))
    ordered, sure = read_words(np.array([scores], np.float32), columns, [named], temperature)
    return dict(zip(ordered[0].tolist(), sure[0].tolist(), strict=True))


def test_no_entry_is_read_where_none_stands():
    assert set(confidences([9.0, 1.0, 2.0], {}).values()) == {0.0}


def test_an_unknown_share_leaves_no_other_meaning():
    found = confidences([0.0, 5.0, 9.0], {1: None})
    assert next(iter(found)) == 1 and found == {1: 1.0, 0: 0.0, 2: 0.0}


def test_equal_scores_give_the_shares():
    assert confidences([3.0, 3.0, 3.0], {0: 0.6, 2: 0.1}) == pytest.approx({0: 0.6, 2: 0.1, 1: 0.0})


def test_evidence_weighs_the_shares():
    """Odds are the shares' odds times the evidence's; meanings without an entry have the best score of all."""
    found = confidences([0.0, EVIDENCE, 0.0], {0: 0.5, 1: 0.25})
    weights = np.array([0.5 * np.exp(-1), 0.25, 0.25])
    assert [found[0], found[1]] == pytest.approx(list(weights[:2] / weights.sum()))
    assert next(iter(found)) == 1


def test_every_entry_of_the_list_may_stand_there():
    assert sum(confidences([1.0, 2.0, 3.0], {0: None, 1: None, 2: None}).values()) == pytest.approx(1.0)


def test_a_word_with_more_entries_than_candidates_shows_its_best():
    scores = [0.0] * 30
    found = confidences(scores, {row: 0.01 + (row == 29) * 0.5 for row in range(30)})
    assert next(iter(found)) == 29 and found[29] == pytest.approx(0.51)
    shares = list(found.values())
    assert shares == sorted(shares, reverse=True) and 0 not in shares
