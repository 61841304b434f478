"""The figures of readings whose answers are known, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from encyclo.statistics.running_text import Answers, Choice, reading_figures, sense_accuracies

RIGHT = [{0}, {1}, set(), {2, 3}, set(), {1}, set(), set()]
STANDS = np.array([True, True, True, True, False, True, False, False])
ANSWERS = Answers(
    np.array([0, 2, 1, 3, 0, 1, 2, -1]), np.array([0.9, 0.8, 0.7, 0.5, 0.6, 0.49, 0.1, 1.0])
)  # right, wrong, another sense, one of two right ones, an other, too unsure, too unsure, no answer


def test_a_readers_figures_are_those_counted_by_hand():
    found = reading_figures(ANSWERS, RIGHT, STANDS, np.zeros(8, int), at_least=0.5)
    assert (found.n, found.readings) == (4, 5)
    assert found.recall == 2 / 4 and found.precision == 2 / 5
    assert found.others_per_1000 == 1000 / 8
    # 15 bins, each with one reading of this confidence.
    assert found.ece == pytest.approx((0.1 + 0.8 + 0.7 + 0.5 + 0.6) / 5)
    exact = binomtest(2, 5).proportion_ci()
    assert (found.precision_low, found.precision_high) == (exact.low, exact.high)


def test_with_five_documents_the_interval_draws_documents():
    entry, truth = np.zeros(100, int), [{0}] * 50 + [{1}] * 50
    answers, stands, document = Answers(entry, np.ones(100)), np.ones(100, bool), np.repeat(np.arange(5), 20)
    found = reading_figures(answers, truth, stands, document, 0.5)
    over_readings = binomtest(50, 100).proportion_ci()
    assert found.precision == 0.5
    assert found.precision_low < over_readings.low and over_readings.high < found.precision_high
    four = reading_figures(answers, truth, stands, np.minimum(document, 3), 0.5)
    assert (four.precision_low, four.precision_high) == (over_readings.low, over_readings.high)


def test_without_readings_or_mentions_or_words_a_figure_is_none():
    none = Answers(np.array([-1, -1]), np.zeros(2))
    found = reading_figures(none, [set(), {1}], np.zeros(2, bool), np.zeros(2, int), 0.5)
    assert (found.recall, found.precision, found.ece, found.others_per_1000) == (0, None, None, 0)
    empty = Answers(np.zeros(0, int), np.zeros(0))
    found = reading_figures(empty, [], np.zeros(0, bool), np.zeros(0, int), 0.5)
    assert (found.recall, found.precision, found.others_per_1000, found.n) == (None, None, None, 0)


def choice(entries: list[int], right: set[int], read: list[float], shares: list[float]) -> Choice:
    return Choice(entries, right, {"read": read, "shares": shares})


def test_senses_rank_a_words_entries_and_ties_count_against():
    choices = [
        choice([4, 7], {7}, [0.2, 0.7], [0.6, 0.4]),  # right, wrong
        choice([4, 7, 9], {4}, [0.5, 0.4, 0.1], [0.3, 0.3, 0.3]),  # right, a tie: wrong
        choice([4, 7], {1}, [0.5, 0.4], [0.9, 0.1]),  # neither of the two is right
        choice([4, 7], {4, 7}, [0.0, 0.0], [0.5, 0.5]),  # both are right
        choice([5], {5}, [0.1], [1.0]),  # only one entry has the word
        choice([], {5}, [], []),  # none has it
    ]
    found = sense_accuracies(choices, ("read", "shares"))
    assert (found["read"].n, found["read"].top1, found["read"].candidates) == (4, 3 / 4, 3)
    assert found["shares"].top1 == 1 / 4
    assert (found["read"].all.n, found["read"].all.top1) == (6, 4 / 6)
    assert found["read"].top1_low <= 0.75 <= found["read"].top1_high
    assert found["read"].null.n == 4
    assert found["shares"].median_rank == 2.5  # ranks 2, 3, 3, 1


def test_the_null_is_a_guess_among_the_words_entries():
    choices = [choice([0, 1, 2, 3], {row % 4}, [1.0, 0.5, 0.2, 0.1], [0.25] * 4) for row in range(2000)]
    assert sense_accuracies(choices, ("read",))["read"].null.top1 == pytest.approx(0.25, abs=0.04)


def test_without_a_word_that_two_entries_have_there_is_no_accuracy():
    assert sense_accuracies([choice([5], {5}, [0.1], [1.0])], ("read",)) == {"read": None}
    assert sense_accuracies([], ("read",)) == {"read": None}
