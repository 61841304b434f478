"""What the page says of an entry, measured from samples: curves, layers, confusions, the map, the data itself."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from encyclo.query.encyclopedia import Encyclopedia, open_run
from encyclo.report import details, payload
from encyclo.report.atlas import draw_atlas
from encyclo.report.details import Detail, collect
from encyclo.report.signature_figures import carried_by_layer, signature_figures
from encyclo.runs.details_file import NEAREST, SignatureFigures
from encyclo.runs.metrics import Metrics, read_metrics
from encyclo.schema import Book, SignatureTable
from encyclo.statistics import accuracy
from encyclo.statistics.similarity import Similarity, centre_and_scale
from tests.core.report.test_report import HOSTILE, make_book


@pytest.fixture(scope="module")
def opened(tiny_run: Path):
    with open_run(tiny_run) as book:
        yield book


@pytest.fixture(scope="module")
def metrics(tiny_run: Path) -> Metrics:
    return read_metrics(tiny_run)


def gather(opened: Encyclopedia, metrics: Metrics) -> details.Details:
    nearest = opened.similarity.nearest(details.least_trusted(opened.book), NEAREST)
    return collect(opened, opened.interpreter(), metrics, nearest)


def figures(book: Book) -> SignatureFigures:
    return signature_figures(book, Similarity.of(book.signatures), np.empty(0, np.int64))


def planted(
    count: int, samples: int, weights: tuple[float, ...], hidden: int = 200
) -> tuple[np.ndarray, SignatureTable]:
    """Samples [C, n, L, H] of unit noise around signatures of these weights, on one large common direction."""
    generator = np.random.default_rng(0)
    own = generator.normal(size=(count, 1, len(weights), hidden)) * np.array(weights)[:, None]
    values = own + generator.normal(size=(count, samples, len(weights), hidden)) + 1000
    table = SignatureTable(
        values.mean(axis=1).astype(np.float32),
        values.var(axis=1).astype(np.float32),
        np.full(count, samples, np.int32),
    )
    return values.astype(np.float32), table


def test_a_layer_carries_what_was_planted_in_it():
    """With unit noise, a signature of weight w has the share w^2 / (w^2 + 1); chance alone has none."""
    _, table = planted(60, 10, (0.0, 0.5, 1.0, 3.0))
    found = carried_by_layer(table, Similarity.of(table)).mean(axis=0)
    assert found == pytest.approx([0.0, 0.2, 0.5, 0.9], abs=0.03)


def test_a_layer_is_unknown_where_one_sample_mentions_the_concept():
    _, table = planted(5, 10, (1.0,))
    table.count[2] = 1
    assert (
        np.isnan(carried_by_layer(table, Similarity.of(table))[2]).all()
        and np.isfinite(carried_by_layer(table, Similarity.of(table))[[0, 1, 3, 4]]).all()
    )


def test_a_curve_falls_as_the_root_of_the_samples_and_the_raw_one_is_lower():
    values, table = planted(40, 64, (1.0, 1.0))
    centre, scale = centre_and_scale(table.mean)
    places = [np.arange(start, start + 64) for start in range(0, 40 * 64, 64)]
    curves = details.entry_curves(
        values.reshape(-1, *values.shape[2:]),
        places,
        centre,
        scale,
        [np.random.default_rng(i) for i in range(40)],
    )
    raw, centred = (np.mean([curve[kind] for curve in curves], axis=0) for kind in (0, 1))
    sizes = 2.0 ** np.arange(6)
    assert len(centred) == 6
    # Halves of k samples: each is the signature (length 1) and noise of variance 1/k.
    expected = np.sqrt(2 / sizes) / np.sqrt(1 + 1 / sizes)
    assert centred == pytest.approx(expected, rel=0.05)
    assert (raw < 0.01).all() and (np.diff(raw) < 0).all()


def test_a_curve_has_the_steps_that_its_samples_allow():
    shape = (1, 4)
    places = [np.arange(count) for count in (0, 1, 2, 7, 8)]
    values = np.ones((8, *shape), np.float32)
    centre, scale = np.zeros(shape, np.float32), np.ones(shape, np.float32)
    draws = [np.random.default_rng(i) for i in range(5)]
    curves = details.entry_curves(values, places, centre, scale, draws)
    assert [len(raw) for raw, _ in curves] == [len(centred) for _, centred in curves] == [0, 0, 1, 2, 3]
    assert details.entry_curves(values, places[:2], centre, scale, draws) == [([], []), ([], [])]


def test_every_entry_has_its_own_details(opened: Encyclopedia, metrics: Metrics):
    found = gather(opened, metrics)
    assert sorted(found.entries) == list(range(len(opened)))
    unseen = set(metrics.splits["test"]) | set(metrics.splits["calibration"])
    for row, name in enumerate(opened.concepts):
        detail, part = found.entries[row], opened.samples(name)
        assert set(detail.prompts) <= set(zip(part.prompt, part.family, strict=True))
        assert len(detail.prompts) == min(len(part), details.PROMPTS) and detail.samples == len(part)
        assert [opened.concepts[other] for other, _ in detail.nearest] == [
            n.name for n in opened.entry(name, NEAREST).nearest
        ]
        held = [i for i, family in enumerate(part.family) if family in unseen]
        assert detail.held == bool(held) and detail.readings == (
            min(len(held), details.READ) if held else len(part)
        )
        scores = opened.interpreter().read(part.values()[held]) if held else np.empty((0, len(opened)))
        assert not held or detail.right == int((scores.argmax(axis=1) == row).sum())
    assert found.held_out
    assert found.readings == sum(d.readings for d in found.entries.values() if d.held)
    wrong = sum(d.readings - d.right for d in found.entries.values() if d.held)
    assert wrong and sum(times for *_, times in found.pairs) <= wrong
    assert found.curve[0][0] == 1 and found.curve[0][1] == len(opened)


def test_the_same_run_gives_the_same_details(
    opened: Encyclopedia, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
):
    whole = gather(opened, metrics)
    monkeypatch.setattr(details, "AT_ONCE", 7)
    again = gather(opened, metrics)
    # The slices are other ones: only the last bit of a margin may differ.
    assert [d.prompts for d in again.entries.values()] == [d.prompts for d in whole.entries.values()]
    assert [d.raw for d in again.entries.values()] == [d.raw for d in whole.entries.values()]
    assert again.pairs == whole.pairs and again.curve == whole.curve


def test_in_a_large_run_the_least_trusted_get_details(
    opened: Encyclopedia, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(details, "MOST", 6)
    found = gather(opened, metrics)
    confidence = opened.book.concepts.confidence
    assert len(found.entries) == 6
    assert max(confidence[row] for row in found.entries) <= sorted(confidence)[5]
    page = payload.page_data(opened.book, found, figures(opened.book))
    assert len(page["details"]) == 6 and len(page["entries"]["name"]) == len(opened)


def test_without_a_held_out_family_the_run_s_own_samples_are_read(opened: Encyclopedia):
    found = gather(opened, Metrics())
    assert not found.held_out and found.readings == sum(d.readings for d in found.entries.values()) > 0


def test_like_concepts_lie_near_each_other_on_the_map():
    generator = np.random.default_rng(0)
    group = np.repeat(np.arange(4), 25)
    mean = generator.normal(size=(4, 3, 64))[group] + 0.3 * generator.normal(size=(100, 3, 64)) + 500
    table = SignatureTable(mean.astype(np.float32), mean.astype(np.float32), np.full(100, 5, np.int32))
    table.count[99] = 0
    found = draw_atlas(Similarity.of(table))
    assert found is not None and found.method == "t-SNE" and found.rows.tolist() == list(range(99))
    assert found.places.min() == 0 and found.places.max() == 1000
    apart = np.linalg.norm(found.places[:, None] - found.places[None], axis=-1) + np.eye(99) * 1e9
    assert (group[:99][apart.argmin(axis=1)] == group[:99]).mean() > 0.98
    again = draw_atlas(Similarity.of(table))
    assert again is not None and (again.places == found.places).all()


def test_few_concepts_are_drawn_by_components_and_too_few_or_equal_ones_not_at_all():
    _, table = planted(4, 5, (1.0,))
    found = draw_atlas(Similarity.of(table))
    assert found is not None and found.method == "first two principal components"
    assert (
        draw_atlas(Similarity.of(SignatureTable(table.mean[:2], table.variance[:2], table.count[:2]))) is None
    )
    assert (
        draw_atlas(Similarity.of(SignatureTable(np.ones_like(table.mean), table.variance, table.count)))
        is None
    )
    assert (
        draw_atlas(Similarity.of(SignatureTable(table.mean, table.variance, np.zeros(4, np.int32)))) is None
    )


def test_a_map_of_many_leaves_some_out_evenly(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("encyclo.report.atlas.MOST", 10)
    _, table = planted(35, 5, (1.0,))
    found = draw_atlas(Similarity.of(table))
    assert found is not None and len(found.rows) <= 10 and found.left_out == 35 - len(found.rows)
    assert set(np.diff(found.rows)) == {4}


def test_data_in_the_page_is_no_markup_and_survives_the_way():
    given = [*HOSTILE[:6], *HOSTILE[7:], "\u2028\u2029 end", "</script><!--"]
    text = payload.as_json(given)
    assert not re.search(r"[<>&\u2028\u2029]", text)
    assert json.loads(text) == given
    assert "\ufffd" in json.loads(payload.as_json(["\ud800"]))[0]
    text.encode("utf-8")


def test_the_policy_allows_the_page_s_script_and_nothing_else(tiny_run: Path):
    html = (tiny_run / "report.html").read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy and policy[1].replace("&#39;", "'") == (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    )
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script)


def test_an_entry_of_nothing_but_a_name_is_still_data():
    book = make_book(HOSTILE[:2], measured=False)
    found = details.Details({0: Detail()}, [], 0, False, [])
    page = payload.page_data(book, found, figures(book))
    assert page["entries"]["confidence"] == [None, None] and page["details"]["0"][0] == []
    json.loads(payload.as_json(page))


def test_confusions_are_those_of_a_sort_of_all_concepts():
    generator = np.random.default_rng(0)
    for _ in range(50):
        scores, row = generator.integers(0, 5, (6, 80)).astype(np.float32), int(generator.integers(80))
        margin = (scores[:, [row]] - scores).mean(axis=0, dtype=np.float64)
        instead = np.bincount(scores.argmax(axis=1), minlength=80)
        order = [int(i) for i in np.lexsort((margin, -instead)) if i != row][: details.CONFUSED]
        assert details._confused(scores, row) == [(i, int(instead[i]), float(margin[i])) for i in order]


@pytest.mark.parametrize("scores_at_once", [1, 60, 10_000])
def test_entries_are_read_together_and_each_gets_its_own_scores(
    monkeypatch: pytest.MonkeyPatch, scores_at_once: int
):
    monkeypatch.setattr(accuracy, "SCORES", scores_at_once)
    asked: list[int] = []

    class Echo:
        concepts: ClassVar = ["a", "b", "c"]

        def read(self, activations: np.ndarray) -> np.ndarray:
            asked.append(len(activations))
            return activations

    values = np.arange(60, dtype=np.float32).reshape(20, 3)
    groups = [np.array(some, np.int64) for some in ([3, 4], [], [7], [8, 1, 2], [], [19])]
    found = list(details._scored(Echo(), values, groups))
    assert len(found) == len(groups)
    for some, scores in zip(groups, found, strict=True):
        np.testing.assert_array_equal(scores[:, :3], values[some])
    if scores_at_once == 10_000:
        assert asked == [7]


@pytest.mark.parametrize("lengths", [[0], [0, 0], [70, 0], [0, 70, 0, 0]])
def test_entries_without_samples_need_no_scores(monkeypatch: pytest.MonkeyPatch, lengths: list[int]):
    monkeypatch.setattr(accuracy, "SCORES", 60)

    class Echo:
        concepts: ClassVar = ["a"]

        def read(self, activations: np.ndarray) -> np.ndarray:
            return activations

    groups = [np.arange(length) for length in lengths]
    found = details._scored(Echo(), np.zeros((70, 1), np.float32), groups)
    assert [len(scores) for scores in found] == lengths


def test_a_small_run_keeps_the_confusion_of_every_entry_and_a_large_one_of_those_with_details(
    opened: Encyclopedia, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
):
    whole = gather(opened, metrics).confusions
    assert sorted(whole) == list(range(len(opened)))
    monkeypatch.setattr(details, "MOST", 6)
    monkeypatch.setattr(details, "AT_ONCE", 5)
    some = gather(opened, metrics)
    assert sorted(some.confusions) == sorted(whole) and len(some.entries) == 6
    for (
        row,
        found,
    ) in some.confusions.items():  # read in other batches: only the last bit of a score may differ
        assert (found.samples, found.misread) == (whole[row].samples, whole[row].misread)
        assert [other for other, _ in found.margins] == [other for other, _ in whole[row].margins]
    monkeypatch.setattr(details, "MOST_SCORES", 100)
    assert sorted(gather(opened, metrics).confusions) == sorted(some.entries)
