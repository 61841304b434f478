"""The report page: escaped, self-contained, honest about what was not measured, the same bytes each time."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encyclo.report import write_report
from encyclo.report.details import Details
from encyclo.report.figures import _exact_span
from encyclo.runs.metrics import Metrics
from encyclo.runs.unmeasured import no_sentences, why_not
from encyclo.schema import Attributes, Book, ConceptTable, SignatureTable

LAYERS = (-12, -6, -1)
HIDDEN = 16
SCRIPT = "<script>alert(1)</script>"
HOSTILE = [
    SCRIPT,
    "🦊🏽‍🚀 family 👨‍👩‍👧",
    "مرحبا \u202egnp.exe",
    "x" * 10_000,
    '" onmouseover="alert(1)" x="',
    "{{ 7 * 7 }}{% raw %}",
    "lone \ud800 surrogate, \x00 and \x1b[31m",
    "$\\frac{1}{0}$ &amp; </style></title><!--",
    "   ",
]
VOID = {"meta", "link", "img", "br", "hr", "input"}


def make_book(names: list[str], *, measured: bool = True, seed: int = 0) -> Book:
    random = np.random.default_rng(seed)
    count = len(names)
    unknown = np.full(count, np.nan, np.float32)
    confidence = random.uniform(0.05, 0.95, count).astype(np.float32) if measured else unknown
    attributes = Attributes(
        model="tiny-model",
        weights_sha256="a5fd3b62230a" + "0" * 52,
        layers=LAYERS,
        layer_index=(7, 13, 18),
        pooling="span",
        hidden_size=HIDDEN,
        stage=1,
        run_id="abc-123",
        created="2026-11-22T12:46:05+00:00",
        encyclo_version="0.1.0",
        config="{}",
    )
    table = ConceptTable(
        id=[str(i) for i in range(count)],
        name=names,
        definition=[f"what {name} means" for name in names],
        category=[("animals", SCRIPT, "")[i % 3] for i in range(count)],
        stage=np.ones(count, np.int32),
        n_samples=np.full(count, 10, np.int32),
        confidence=confidence,
        confidence_low=np.maximum(confidence - 0.2, 0),
        confidence_high=np.minimum(confidence + 0.05, 1),
        converged=random.random(count) < 0.5,
        settled=(confidence > 0.5) if measured else np.zeros(count, bool),
    )
    shape = (count, len(LAYERS), HIDDEN)
    mean = (random.normal(size=shape) + 100).astype(np.float32)
    return Book(
        attributes, table, SignatureTable(mean, np.ones(shape, np.float32), np.full(count, 9, np.int32))
    )


def make_record() -> dict[str, Any]:
    return {
        "run_id": "abc-123",
        "created": "2026-11-22T12:46:05+00:00",
        "command": ["encyclo", "run", "--out", "my run"],
        "config": {"interpreter": "transformer", "baselines": ["centroid"], "limit": None, "note": SCRIPT},
        "provenance": {"model_source": f"PyPI gemma3 {SCRIPT}", "plugins": {"templates": "encyclo 0.1.0"}},
        "versions": {"torch": "2.10"},
        "platform": {"python": "3.11"},
    }


def full_metrics() -> dict[str, Any]:
    def reading(top1: float) -> dict[str, Any]:
        return {"top1": top1, "top10": 0.99, "top100": 1.0, "median_rank": 1.0, "candidates": 1000, "n": 2345}

    def calibration(ece: float) -> dict[str, Any]:
        bins = [[0.05 + 0.1 * i, 0.02 + 0.1 * i, 3**i] for i in range(8)]
        return {"ece": ece, "brier": 0.021, "temperature": 0.37, "n": 2345, "bins": bins}

    layer = {
        "raw_rel_diff": 0.041, "centred_rel_diff": 0.273, "cosine": 0.961, "null_cosine": -0.0012,
        "within_5pct_raw": 0.71, "within_5pct_centred": 0.0, "samples_to_5pct_median": 298.1, "concepts": 987,
    }  # fmt: skip
    stages = [
        {"stage": 0, "sampler": "raw", "concepts": 1000, "samples": 1000, "settled": 0, "seconds": 4.2},
        {
            "stage": 1,
            "sampler": "templates",
            "concepts": 1000,
            "samples": 9000,
            "settled": 612,
            "ece": 0.0321,
            "convergence": {
                "-1": {"within_5pct_raw": 0.21, "adjusted_rel_diff": 0.27},
                "-12": {"within_5pct_raw": 0.71, "adjusted_rel_diff": 0.337},
            },
            "seconds": 75.0,
        },
    ]
    later = dict.fromkeys(("natural", "described", "unseen", "adversarial"))
    return {
        "capture": {
            "prompts": 10_000, "tokens": 53_000, "tokens_computed": 40_000, "seconds": 7.1,
            "prompts_per_second": 1408.4, "peak_rss_mb": 2100.0, "device": "cpu", "dtype": "bfloat16",
        },
        "accuracy": {"heldout_prompts": {"transformer": reading(0.9871), "centroid": reading(0.9312)}, **later},
        "calibration": {**calibration(0.0123), "centroid": calibration(0.0877)},
        "convergence": {"-1": {**layer, "raw_rel_diff": 0.214}, "-12": layer, "-6": {**layer, "cosine": None}},
        "stages": stages,
        "splits": {"train": ["a", "b"], "validation": ["c"], "calibration": ["d"], "test": ["e", "f"]},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("count", "why"),
    [
        (None, "has no natural sentences (wordnet's has), or"),
        (0, "have no sentences by other"),
        (7, "all 7 natural"),
    ],
)
def test_the_page_says_why_no_natural_sentence_was_read(count: int | None, why: str):
    assert why in no_sentences(Metrics(natural_sentences=count))


@pytest.mark.parametrize(
    ("rung", "metrics", "why"),
    [
        ("described", {}, "encyclo evaluate measures it"),
        ("described", {"unfamiliar": None, "absent": None}, "too few concepts"),
        ("described", {"unfamiliar": {}, "accuracy": {"described": {}}}, "has a definition"),
        ("unseen", {"unfamiliar": {}, "accuracy": {"unseen": {}}}, "no held-out prompt"),
        ("aliases", {"unfamiliar": {}}, "no concept has an alias"),
        ("adversarial", {"unfamiliar": {}}, "no adversarial stage"),
        ("senses", {"unfamiliar": {}}, "--running-text"),
        ("natural", {"unfamiliar": {}, "natural_sentences": 0}, "have no sentences by other"),
        ("heldout_prompts", {}, "no prompt family could be held out"),
    ],
)
def test_each_rung_says_why_it_was_not_measured(rung: str, metrics: dict[str, Any], why: str):
    assert why in why_not(rung, Metrics.model_validate(metrics))


def null_metrics() -> dict[str, Any]:
    rungs = ("heldout_prompts", "natural", "described", "unseen", "adversarial")
    capture = dict.fromkeys(full_metrics()["capture"]) | {"prompts": 7, "tokens": 9, "device": "cpu"}
    return {
        "capture": capture,
        "accuracy": dict.fromkeys(rungs),
        "calibration": None,
        "convergence": None,
        "stages": [
            {"stage": 0, "sampler": "raw", "concepts": 7, "samples": 7, "settled": 0, "seconds": None},
        ],
        "splits": {"train": ["bare"], "validation": [], "calibration": [], "test": []},
    }


class Page(HTMLParser):
    """The page as a browser would see it: tags in balance, attributes, visible text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.pieces: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"<{tag}> has an attribute twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.pieces.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.pieces).split())

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


@pytest.fixture
def render(tmp_path: Path) -> Any:
    def render_page(
        names: list[str], metrics: dict[str, Any], *, measured: bool = True, book: Book | None = None
    ) -> str:
        path = tmp_path / "report.html"
        figures = Metrics.model_validate(metrics)
        write_report(path, make_record(), figures, book or make_book(names, measured=measured))
        return path.read_text(encoding="utf-8")

    return render_page


NAMES = [f"concept{i}" for i in range(60)]


@pytest.mark.parametrize("measured", [True, False])
def test_hostile_text_is_escaped_and_never_becomes_markup(render: Any, measured: bool) -> None:
    html = render(HOSTILE, full_metrics() if measured else null_metrics(), measured=measured)
    page = Page(html)
    assert [attrs.get("id") for tag, attrs in page.tags if tag == "script"] == ["data", None]
    assert not [a for _, attrs in page.tags for a in attrs if a.startswith("on")]
    assert SCRIPT in page.text
    assert '" onmouseover="alert(1)" x="' in page.text
    assert "{{ 7 * 7 }}{% raw %}" in page.text
    assert "🦊🏽‍🚀 family 👨‍👩‍👧" in page.text
    assert "$\\frac{1}{0}$ &amp; </style></title><!--" in page.text
    assert "(10,000 characters)" in page.text and "x" * 281 not in page.text
    assert not re.search("[\x00-\x08\x1b\ud800-\udfff]", html)


def test_right_to_left_names_stay_inside_their_own_isolate(render: Any) -> None:
    html = render(HOSTILE, full_metrics())
    name = HOSTILE[2]
    page = html[: html.index('<script type="application/json"')]
    assert (
        page.count(name) == page.count(f"<bdi>{name}</bdi>") + page.count(f"<bdi>what {name} means</bdi>") > 3
    )


@pytest.mark.parametrize("measured", [True, False])
def test_the_page_loads_nothing(render: Any, measured: bool) -> None:
    html = render(NAMES, full_metrics() if measured else null_metrics(), measured=measured)
    html = re.sub(r"sha256-[\w+/=]+", "", html)  # a hash may have // in it
    assert not re.search(
        r"https?:|//\w|@import|\bsrc=|<link|<base|javascript:|fetch\(|import\(", html, re.IGNORECASE
    )
    for _, attrs in Page(html).tags:
        for key in ("href", "xlink:href", "clip-path"):
            value = attrs.get(key)
            assert value is None or value.startswith(("#", "url(#"))


def test_what_was_not_measured_is_said_in_words_and_never_as_a_value(render: Any) -> None:
    page = Page(render(NAMES, null_metrics(), measured=False))
    before_details = page.text.split("To repeat this run")[0]
    values = before_details.replace("The null is the same with", "")
    assert not re.search(r"\b(None|nan|NaN|inf|null|undefined)\b", values)
    assert "no prompt family could be held out" in page.text
    assert "halving takes two concepts with at least four samples" in page.text
    assert page.text.count("encyclo evaluate measures it") == 3, "aliases, described, unseen"
    assert "the run had no adversarial stage" in page.text
    assert "they can't be ranked" in page.text
    assert page.count("svg") == 2, "the map, and the shapes' namespace; no plot"
    assert not re.search(
        r"\d%", before_details.replace("95%", "").replace("within 5%", "").replace("confidence of 1.67%", "")
    )


def test_full_metrics_show_every_figure_beside_the_baselines(render: Any) -> None:
    page = Page(render(NAMES, full_metrics()))
    text = page.text
    assert not re.search(r"\b(None|nan|NaN|inf)\b", text)
    for figure in (
        "1,408 prompts/s",
        "98.7%",
        "0.012",
        "n = 2,345",
        "1 min 15 s",
        "0.088",
        "298",
        "−0.001",
        "0.032",
        "71% at layer −12",
        "27% at layer −1",
    ):
        assert figure in text
    assert "centroid 93.1% (5.6 points lower), n = 2,345" in text
    assert "centroid 0.088, n = 2,345" in text
    assert text.count("encyclo evaluate measures it") == 3
    assert text.count("the concept list has no natural sentences (wordnet's has), or all of them") == 2
    assert "a5fd3b62230a…" in text and "encyclo run --out 'my run'" in text
    assert "2 trained the readers, 1 decided when training stops, 1 calibrated them, 2 tested them" in text


def test_a_figure_that_says_nothing_is_no_headline(render: Any) -> None:
    """An error that claiming certainty would reach too, and a baseline of the only stage."""
    metrics = full_metrics()
    metrics["calibration"] |= {"ece": 0.0, "n": 38, "bins": [[1.0, 1.0, 38]]}
    metrics["stages"] = metrics["stages"][1:]
    html = render(NAMES, metrics)
    strip = re.search(r'<dl class="figures">.*?</dl>', html, re.DOTALL)
    assert strip is not None and "Held-out top-1" in strip[0] and "Concepts settled" in strip[0]
    assert "Calibration error" not in strip[0] and "after the first round" not in strip[0]
    assert "not measured" not in strip[0] and "a guess has a confidence" not in strip[0]
    text = Page(html).text
    assert "Calibration error: 0.000 of n = 38 readings says little, since claiming certainty" in text
    assert "Top-1 in natural sentences: not measured, since the concept list has no natural sentences" in text
    full = re.search(r'<dl class="figures">.*?</dl>', render(NAMES, full_metrics()), re.DOTALL)
    assert full is not None and "Calibration error" in full[0] and "0 after the first round" in full[0]


def test_a_confidence_says_among_how_many_and_from_how_many_readings(tmp_path: Path) -> None:
    details = Details({}, [], 0, True, [], np.array([3, 0, 2]))
    write_report(
        tmp_path / "r.html",
        make_record(),
        Metrics.model_validate(full_metrics()),
        make_book(NAMES[:3]),
        details,
    )
    text = Page((tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert "among this run's 3, with its 95% interval" in text
    assert "It rests on 5 held-out readings, 1.7 for an entry on average" in text


@pytest.mark.parametrize("bins", [3, 9])
def test_a_calibration_plot_says_how_many_readings_each_bin_has(render: Any, bins: int) -> None:
    metrics = full_metrics()
    few = [[0.1 + 0.1 * i, 0.5, 1234 + i] for i in range(bins)]
    metrics["calibration"] |= {"bins": few, "centroid": metrics["calibration"]["centroid"] | {"bins": few}}
    drawn = re.search(r'aria-label="Reliability.*?</figure>', render(NAMES, metrics), re.DOTALL)
    assert drawn is not None and drawn[0].count(">1,236<") == 2, "one for each reader"


def test_a_bin_of_one_reading_has_a_wide_interval() -> None:
    below, above = _exact_span(0.0, 1)
    assert below == 0 and above > 0.9
    below, above = _exact_span(0.9, 1000)
    assert 0.01 < below < 0.03 and 0.01 < above < 0.03


def coverage() -> dict[str, Any]:
    """Figures of two layers; 64 principal components could not be measured."""
    row = {
        "k": [1, 4, 16, 64], "entries": [0.1, 0.2, 0.4, 0.7], "random": [0.01, 0.05, 0.15, 0.38],
        "shuffled": [0.05, 0.15, 0.3, 0.6], "principal": [0.1, 0.15, 0.25, None],
    }  # fmt: skip
    kinds = [
        {"kind": "function word", "tokens": 1430, "explained": 0.281},
        {"kind": "number", "tokens": 3, "explained": None},
    ]
    layers = {"-6": row, "-1": {**row, "entries": [0.2, 0.3, 0.5, 0.8]}}
    return {
        "tokens": 2999,
        "measured": 1500,
        "candidates": 7,
        "source": SCRIPT,
        "layers": layers,
        "kinds": kinds,
    }


def test_coverage_has_a_curve_and_tables_by_layer_and_by_kind(render: Any) -> None:
    html = render(NAMES, {**full_metrics(), "coverage": coverage()})
    page = Page(html)
    assert page.count("svg") - 2 == page.count("figure") == 5
    section = page.text.split("How much do the entries explain?")[1].split("The map of concepts")[0]
    words = " ".join(section.split())
    assert f"each of 1,500 tokens of {SCRIPT}" in words
    for row in (
        "entries 15.0% 25.0% 45.0% 75.0%",
        "principal components 10.0% 15.0% 25.0% not measured",
        "−6 40.0% 30.0% 15.0% 25.0%",
        "−1 50.0%",
        "function word 1,430 28.1%",
        "number 3 not measured",
    ):
        assert row in words
    assert words.index("function word") < words.index("number 3")
    short = {**coverage(), "layers": None, "kinds": None}
    assert (
        "it takes at least 50 tokens of text"
        in Page(render(NAMES, {**full_metrics(), "coverage": short})).text
    )
    assert "give evaluate a text with --text" in Page(render(NAMES, full_metrics())).text


def test_running_text_has_a_table_by_sense_and_one_by_word(render: Any) -> None:
    reading = {
        "readings": 9602, "recall": 0.731, "precision": 0.842, "precision_low": 0.83, "precision_high": 0.85,
        "others_per_1000": 4.62, "ece": 0.0312, "n": 11049,
    }  # fmt: skip
    nothing = {"readings": 0, "recall": 0.0, "precision": None, "others_per_1000": 0.0, "ece": None, "n": 3}
    readers = {"mentions": 11049, "read": reading, "baselines": {"any_word": reading, "shares": nothing}}
    found = {
        **readers, "source": {"file": SCRIPT, "sha256": "0" * 64}, "documents": 30, "words": 56340, "at_least": 0.5,
        "by_word": {**readers, "mentions": 17},
    }  # fmt: skip
    text = Page(render(NAMES, {**full_metrics(), "running_text": found})).text
    section = text.split("What is read in running text?")[1].split("How much do the entries explain?")[0]
    words = " ".join(section.split())
    assert f"finds in 56,340 words of {SCRIPT} (30 documents)" in words
    assert "By sense: 11,049 mentions." in words and "By word: 17 mentions." in words
    assert words.count("encyclo read 9,602 73.1% 84.2% 83.0% to 85.0% 4.6 0.031") == 2
    assert words.count("without the interpreter 0 0.0% not measured not measured 0.0 not measured") == 2
    assert text.count("give evaluate a labelled text with --running-text") == 1, "the rung senses"
    assert (
        Page(render(NAMES, full_metrics())).text.count("give evaluate a labelled text with --running-text")
        == 2
    )


def test_figures_are_labelled_and_share_no_id(render: Any) -> None:
    html = render(NAMES, full_metrics())
    page = Page(html)
    assert page.count("svg") - 2 == page.count("figure") == 4
    labels = [attrs["aria-label"] for _, attrs in page.tags if attrs.get("role") == "img"]
    assert len(labels) == 4 and all(labels)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', html)
    assert used and set(used) <= set(ids)
    drawn = "".join(re.findall(r"<figure>.*?</figure>", html, re.DOTALL))
    assert "currentColor" in drawn and "var(--first)" in drawn and "var(--second)" in drawn
    assert not re.search(r"#[0-9a-f]{6}", drawn), "a fixed colour would be lost on one of the two grounds"


def test_tables_have_captions_and_headings_descend(render: Any) -> None:
    page = Page(render(NAMES, full_metrics()))
    assert page.count("table") == page.count("caption") > 6
    assert page.count("h1") == 1 and page.count("h2") == 13
    assert page.count("details") >= 4


def test_layers_stand_in_order_of_depth(render: Any) -> None:
    text = Page(render(NAMES, full_metrics())).text
    assert text.index("−12 (7)", text.index("Samples to 5%")) < text.index(
        "−6 (13)", text.index("Samples to 5%")
    )
    assert text.index("−6 (13)", text.index("Samples to 5%")) < text.index(
        "−1 (18)", text.index("Samples to 5%")
    )


def test_the_same_run_gives_the_same_bytes_whatever_matplotlib_is_set_to(tmp_path: Path) -> None:
    import matplotlib

    book, metrics = make_book(HOSTILE), full_metrics()
    before = copy.deepcopy((make_record(), metrics))
    write_report(tmp_path / "a.html", make_record(), Metrics.model_validate(metrics), book)
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.facecolor": "red"}):
        write_report(tmp_path / "b.html", make_record(), Metrics.model_validate(metrics), book)
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert (make_record(), metrics) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_most_and_least_trusted_are_ranked_and_apart(render: Any) -> None:
    book = make_book(NAMES)
    order = np.argsort(-book.concepts.confidence)
    html = render(NAMES, full_metrics(), book=book)
    least, most = re.findall(r'<table class="entries">.*?</table>', html, re.DOTALL)
    names = re.compile(r'<th scope="row"><a href="#entry-\d+"><bdi>(.*?)</bdi>')
    assert names.findall(most) == [NAMES[i] for i in order[:20]]
    assert names.findall(least) == [NAMES[i] for i in order[::-1][:20]]


@pytest.mark.parametrize("count", [1, 2, 3, 39])
def test_few_entries_are_listed_once(render: Any, count: int) -> None:
    html = render(NAMES[:count], full_metrics())
    tables = "".join(re.findall(r'<table class="entries">.*?</table>', html, re.DOTALL))
    found = re.findall(r'<th scope="row"><a href="#entry-\d+"><bdi>(.*?)</bdi>', tables)
    assert sorted(found) == sorted(NAMES[:count])


def test_ties_at_the_cut_are_said(render: Any) -> None:
    book = make_book(NAMES)
    book.concepts.confidence[:] = 0.5
    assert "60 entries share the confidence of the last one" in render(NAMES, full_metrics(), book=book)
    assert "share the confidence" not in render(NAMES, full_metrics())


def test_entries_partly_measured_leave_the_others_out_of_the_ranking(render: Any) -> None:
    book = make_book(NAMES[:4])
    book.concepts.confidence[1] = np.nan
    book.concepts.confidence_low[2] = np.nan
    html = render([], full_metrics(), book=book)
    tables = "".join(re.findall(r'<table class="entries">.*?</table>', html, re.DOTALL))
    assert '<th scope="row"><a href="#entry-1">' not in tables and '<a href="#entry-2">' in tables
    assert "(interval not measured)" in tables
    assert "not measured" in Page(html).text


def test_a_lone_interpreter_says_that_it_has_no_baseline(render: Any) -> None:
    metrics = full_metrics()
    del metrics["accuracy"]["heldout_prompts"]["centroid"], metrics["calibration"]["centroid"]
    text = Page(render(NAMES, metrics)).text
    assert "Baseline: none was trained" in text
    assert "Baseline: none was measured" in text


@pytest.mark.parametrize(
    "calibration",
    [{}, {"ece": None, "n": 3}, {"ece": 0.1, "bins": []}, {"ece": 0.1, "bins": [[0.5, None, 3], [0.5, 0.5]]}],
)
def test_a_scorer_that_reports_little_still_gives_a_page(render: Any, calibration: dict[str, Any]) -> None:
    text = Page(render(NAMES, {**full_metrics(), "calibration": calibration})).text
    assert not re.search(r"\b(None|nan)\b", text)
    assert "not measured" in text


def test_the_reason_given_is_the_run_s_own(render: Any) -> None:
    metrics = null_metrics()
    metrics["splits"]["test"] = ["quoted"]
    two_families = Page(render(NAMES, metrics, measured=False)).text
    assert "no prompt family was left for calibration" in two_families
    assert "no prompt family could be held out" not in two_families
    metrics["splits"]["calibration"] = ["listed"]
    assert "the run's scorer reported none" in Page(render(NAMES, metrics, measured=False)).text


@pytest.mark.parametrize(
    ("figure", "count", "layers"), [(None, 1, ("-1",)), (0.0, 1, ("-1", "-6")), (2.0, 10**9, ("3",) * 40)]
)
def test_plots_take_missing_flat_and_huge_figures(
    render: Any, figure: float | None, count: int, layers: tuple[str, ...]
) -> None:
    metrics = full_metrics()
    row = dict.fromkeys(metrics["convergence"]["-1"], figure)
    metrics["convergence"] = {name + "0" * place: row for place, name in enumerate(layers)}
    metrics["calibration"]["bins"] = [[1.0, 0.0, count]]
    page = Page(render(NAMES, metrics))
    assert page.count("figure") == 4
    assert not re.search(r"\b(None|nan|inf)\b", page.text)


def test_empty_metrics_and_record_still_give_a_page(tmp_path: Path) -> None:
    write_report(tmp_path / "r.html", {}, Metrics(), make_book(NAMES[:3], measured=False))
    text = Page((tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert not re.search(r"\b(None|nan)\b", text)


def test_plugin_names_with_mathematics_are_drawn_as_they_are(render: Any) -> None:
    metrics = full_metrics()
    metrics["calibration"]["$\\frac{1$ 測定"] = metrics["calibration"].pop("centroid")
    assert "$\\frac{1$ ??" in Page(render(NAMES, metrics)).text


def test_a_thousand_concepts_fit_in_a_megabyte(render: Any) -> None:
    names = [f"a concept whose name is long {i}" for i in range(1000)]
    assert len(render(names, full_metrics()).encode()) < 1_000_000
    assert len(render(["x" * 10_000] * 1000, full_metrics()).encode()) < 2_000_000


def test_importing_the_report_imports_neither_matplotlib_nor_jinja2() -> None:
    code = "import sys, encyclo.report; print([m for m in ('matplotlib', 'jinja2') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_report_never_touches_pyplot(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, test_report as t; "
        f"t.write_report(pathlib.Path({str(tmp_path / 'r.html')!r}), t.make_record(), t.Metrics.model_validate(t.full_metrics()), t.make_book(t.NAMES)); "
        "print('matplotlib.pyplot' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    assert found.stdout.strip() == "False"
