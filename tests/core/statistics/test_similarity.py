"""Similarity of signatures: centred, scaled, and the same in every part of encyclo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from encyclo.query.encyclopedia import open_run
from encyclo.report.entries import most_and_least, trusted
from encyclo.schema import SignatureTable
from encyclo.statistics import similarity
from encyclo.statistics.similarity import NEAR, Similarity, centre_and_scale, likeliest

LAYERS, HIDDEN = 3, 16


def signatures() -> SignatureTable:
    """Concept 5 is near 2; 7 would be, but no sample mentions it."""
    random = np.random.default_rng(1)
    directions = random.normal(size=(12, LAYERS, HIDDEN))
    directions[5] = directions[2] + 0.1 * random.normal(size=(LAYERS, HIDDEN))
    # One shared direction, as in a real model: without centring, everything is near everything.
    mean = (directions + 1e4).astype(np.float32)
    count = np.full(12, 5, np.int32)
    count[7], mean[7] = 0, 0
    return SignatureTable(mean, mean, count)


def test_nearest_are_by_centred_signatures_and_skip_the_unseen():
    found = Similarity.of(signatures()).nearest(np.array([2, 7, 5]), 4)
    assert found[7] == []
    assert found[2][0][0] == 5 and found[5][0][0] == 2
    assert found[2][0][1] > 0.9 and all(0.9 > cosine >= NEAR for _, cosine in found[2][1:])
    assert all(7 not in [row for row, _ in rows] and len(rows) <= 4 for rows in found.values())


def test_a_concept_without_a_signature_counts_in_nothing():
    table = signatures()
    seen = np.arange(12) != 7
    whole = Similarity.of(table)
    others = Similarity.of(SignatureTable(table.mean[seen], table.variance[seen], table.count[seen]))
    np.testing.assert_array_equal(whole.centre, others.centre)
    np.testing.assert_array_equal(whole.units[seen], others.units)
    assert whole.cosines(table.mean[2])[7] == -np.inf


def test_the_mean_is_exact_where_what_all_share_is_large():
    """Summed in float32, a mean over 20,000 values of about 1e5 is off by more than they differ by."""
    values = 1e5 + np.random.default_rng(0).normal(size=(20_000, 1, 4))
    centre, scale = centre_and_scale(values.astype(np.float32))
    np.testing.assert_allclose(centre[0], values.mean(axis=0)[0], atol=0.02)
    np.testing.assert_allclose(scale, 1, rtol=0.03)


def test_show_search_and_report_name_the_same_neighbours(tiny_run: Path):
    with open_run(tiny_run) as book:
        rows = np.concatenate(most_and_least(book.book))
        listed = trusted(book.book, Similarity.of(book.book.signatures).nearest(rows, 4))
        for row in [*listed.most, *listed.least]:
            entry = book.entry(book.concepts[row["row"]], neighbours=4)
            names = [neighbour.name for neighbour in entry.nearest]
            assert [name for name, *_ in row["nearest"]] == names
            found = [n.name for n in book.search(entry.signature, count=5)]
            assert found[0] == entry.name and found[1:] == names


@pytest.mark.parametrize("count", [0, 1, 5, 40, 60])
def test_the_likeliest_are_those_of_a_stable_sort(count: int):
    generator = np.random.default_rng(count)
    for _ in range(30):
        cosines = generator.integers(-3, 4, 50).astype(np.float32) / 4
        cosines[generator.random(50) < 0.2] = -np.inf
        order = [int(i) for i in np.argsort(-cosines, kind="stable")[:count] if np.isfinite(cosines[i])]
        assert likeliest(cosines, count) == [(i, float(cosines[i])) for i in order]


@pytest.mark.parametrize("given", [True, False])
def test_one_concepts_neighbours_are_those_of_all_at_once(monkeypatch: pytest.MonkeyPatch, given: bool):
    """In blocks that do not divide the concepts, with concepts that have no signature in several of them."""
    monkeypatch.setattr(similarity, "ROWS", 7)
    generator = np.random.default_rng(0)
    mean = generator.normal(size=(40, 3, 16)).astype(np.float32) + 100
    mean[20] = mean[3] + 0.1 * mean[5]
    count = np.where(np.arange(40) % 9 == 4, 0, 5).astype(np.int32)
    table = SignatureTable(mean, np.ones_like(mean), count)
    whole = Similarity.of(table)
    known = (whole.centre, whole.scale) if given else None
    found = whole.nearest(np.arange(40), 6)
    assert found[3] and found[4] == []
    for row, expected in found.items():
        near = similarity.nearest_to(table, row, 6, known)
        assert [other for other, _ in near] == [other for other, _ in expected]
        assert [cosine for _, cosine in near] == pytest.approx([cosine for _, cosine in expected], abs=1e-5)
