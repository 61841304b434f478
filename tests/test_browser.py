"""The pages as people use them: headless Chromium, no network, a mouse, a keyboard, a phone's width."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encyclo.report import write_reading, write_report
from encyclo.report.details import Detail, Details
from encyclo.runs.metrics import Metrics
from tests.browser import find_chromium, open_page
from tests.core.report.test_report import HOSTILE, SCRIPT, full_metrics, make_book, make_record

TEXT = "The animal drank water. Nobody saw the otter near the house!"
PHONE = {"width": 390, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
FOCUSABLE = "a[href], button, input, select, summary, [tabindex='0']"


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # No sandbox: continuous integration runs as root, where Chromium has none.
        launched = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def report(tiny_run: Path) -> Path:
    return tiny_run / "report.html"


@pytest.fixture(scope="module")
def reading(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from encyclo.cli import run_command

    path = tmp_path_factory.mktemp("reading") / "read.html"
    assert (
        run_command(["read", str(tiny_run), TEXT, "--any-word", "--html", str(path), "--device", "cpu"]) == 0
    )
    return path


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page whose every name, definition, category, prompt and family is hostile."""
    path = tmp_path_factory.mktemp("hostile") / "report.html"
    book, count = make_book(HOSTILE), len(HOSTILE)
    entries = {
        row: Detail(
            nearest=[((row + 1) % count, 0.5)],
            confused=[((row + 2) % count, 1, -0.5)],
            readings=3,
            right=2,
            held=True,
            prompts=[(f"a prompt about {name}", name) for name in HOSTILE],
            samples=20,
            raw=[0.3, 0.2],
            centred=[0.9, 0.7],
        )
        for row in range(count)
    }
    details = Details(entries, [(0, 3, 2), (2, 1, 1)], 30, True, [(1, count, 0.3, 0.9), (2, count, 0.2, 0.7)])
    write_report(path, make_record(), Metrics.model_validate(full_metrics()), book, details)
    return path


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page about four stages with every figure, whose readings were all right; every third entry has none of its own."""
    path = tmp_path_factory.mktemp("long") / "report.html"
    book, metrics = make_book([f"entry {place}" for place in range(12)]), full_metrics()
    every = {
        "concepts": 10_000,
        "samples": 100_000,
        "settled": 10_000,
        "converged": 10_000,
        "heldout_top1": 0.999,
    }
    every |= {"natural_top1": 0.999, "confidence": 0.999, "seconds": 5000.0}
    first, last = metrics["stages"]
    names = ("raw", "templates", "diverse", "adversarial")
    metrics["stages"] = [first | last | every | {"stage": n, "sampler": name} for n, name in enumerate(names)]
    ones, own = np.ones(12, np.float32), np.arange(12) % 3
    table = replace(book.concepts, confidence=ones, confidence_low=ones * 0.975, confidence_high=ones)
    details = Details({}, [], 0, True, [], own)
    write_report(path, make_record(), Metrics.model_validate(metrics), replace(book, concepts=table), details)
    return path


def expect(found: Any) -> Any:
    from playwright.sync_api import expect as wait_until

    return wait_until(found)


def entry(page: Any, name: str) -> Any:
    """Return the first listed entry of that name."""
    return page.locator("#list .entry", has=page.locator("summary b", has_text=name)).first


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_real_report_opens_without_a_complaint_or_a_request(browser, report: Path, scheme: str):
    with open_page(browser, report, color_scheme=scheme) as opened:
        page = opened.page
        assert page.locator("h1").inner_text().startswith("The encyclopedia of")
        assert page.locator("#list .entry").count() == 12
        assert page.locator("#count").inner_text() == "40 entries, 12 of them listed"
        page.locator("#more").click()
        assert page.locator("#list .entry").count() == 40
        assert page.locator("#count").inner_text() == "40 entries"
        assert page.locator("#map path").count() == 41
        assert page.locator("#static").count() == 0
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
        assert dark == (scheme == "dark")


def test_search_finds_an_entry_that_opens_to_everything_about_it(browser, report: Path, tiny_run: Path):
    from encyclo.query.encyclopedia import open_run

    with open_run(tiny_run) as book:
        found, prompts = book.entry("mammal"), book.samples("mammal").prompt
        own = book["mammal"].own_readings
        carried = len(book.book.attributes.layers)
    with open_page(browser, report) as opened:
        page = opened.page
        page.locator("#find").fill("MAMM")
        assert page.locator("#list .entry").first.locator("summary b").inner_text() == "mammal"
        assert page.locator("#count").inner_text().split()[0] != "40"
        inside = entry(page, "mammal").locator(".inside")
        inside.wait_for()
        text = inside.inner_text()
        assert found.definition in text
        sure = f"{found.confidence:.0%} ({found.low:.0%} to {found.high:.0%}), n\xa0=\xa0{own}"
        assert sure in text
        assert f"{found.n_samples} samples" in text
        near = inside.locator("div", has_text="Nearest").locator("li a").all_inner_texts()
        assert near[:8] == [n.name for n in found.nearest]
        assert "Most confused" in text and "margin" not in text
        assert inside.locator("svg.curve path.centred").count() == 1
        assert inside.locator(".meter").count() == carried
        shown = inside.locator(".wide li > bdi").all_inner_texts()
        assert len(shown) == 6 and set(shown) <= set(prompts)
        page.locator("#find").fill("no such entry at all")
        assert page.locator("#count").inner_text() == "0 entries"


@pytest.mark.parametrize("settings", [{"width": 1400}, PHONE], ids=["wide", "phone"])
def test_entries_come_first_and_nothing_is_cut(browser, report: Path, settings: dict[str, Any]):
    with open_page(browser, report, **settings) as opened:
        page = opened.page
        height = page.evaluate("innerHeight")
        assert page.locator("#find").bounding_box()["y"] < height, "the search box is on the first screen"
        headings = page.locator("h2").evaluate_all("all => all.map((node) => node.id)")
        linked = page.locator("nav a").evaluate_all("all => all.map((node) => node.hash.slice(1))")
        assert linked == headings
        assert headings[:4] == ["all", "mapping", "figures", "stages"] and headings[-1] == "repeat"
        assert cut_off(page) == []
        stage = page.locator("section[aria-labelledby='stages'] tbody tr").first.inner_text()
        assert stage.startswith("1 templates") and page.locator("nav a").last.is_visible()


def cut_off(page: Any) -> list[str]:
    """Return the beginnings of what is wider than its place or than the window."""
    found = page.evaluate(
        "[...document.querySelectorAll('.scroll, table, dl, figure')].filter((node) => node.checkVisibility() &&"
        " (node.scrollWidth > node.clientWidth + 1 || node.getBoundingClientRect().right > innerWidth))"
        ".map((node) => node.innerText.slice(0, 40))"
    )
    return list(found)


@pytest.mark.parametrize("settings", [{"width": 1400}, PHONE], ids=["wide", "phone"])
def test_no_table_of_a_long_run_is_cut(browser, long_run: Path, settings: dict[str, Any]):
    with open_page(browser, long_run, **settings) as opened:
        stages = opened.page.locator("section[aria-labelledby='stages'] tbody tr")
        row = " ".join(stages.last.inner_text().split())
        assert row.startswith("3 adversarial") and row.endswith("1 h 23 min")
        assert cut_off(opened.page) == []


def test_where_all_readings_are_right_the_number_of_readings_tells_entries_apart(browser, long_run: Path):
    with open_page(browser, long_run) as opened:
        page = opened.page
        assert page.locator(".bar").count() == 0, "a bar that is the same for all says nothing"
        assert "4 entries have none: the confidence is that of the other concepts" in page.inner_text("main")
        assert page.locator("#list .borrowed").all_inner_texts() == ["n\xa0=\xa00"] * 4
        page.select_option("#order", "own")
        told = page.locator("#list .entry summary span small").all_inner_texts()
        counts = [int(text.split("=\xa0")[1]) for text in told if "=" in text]
        assert counts == sorted(counts) and len(counts) == 12
        page.locator("#list .entry summary").first.click()
        assert "no held-out reading of its own" in page.locator("#list .inside").first.inner_text()


def test_a_single_hit_opens(browser, report: Path):
    with open_page(browser, report) as opened:
        page = opened.page
        page.locator("#find").fill("m")
        assert page.locator("#list .entry[open]").count() == 0
        page.locator("#find").fill("mammal")
        expect(page.locator("#list .entry .inside")).to_contain_text("How far to trust it")
        expect(page.locator("#find")).to_be_focused()


def test_the_list_is_filtered_and_ordered(browser, report: Path):
    with open_page(browser, report) as opened:
        page = opened.page
        page.select_option("#order", "name")
        page.locator("#more").click()
        names = page.locator("#list summary b").all_inner_texts()
        assert names == sorted(names) and len(names) == 40
        page.select_option("#category", label="animals")
        assert set(page.locator("#list summary small:first-of-type bdi").all_inner_texts()) == {"animals"}


def test_the_map_answers_to_the_mouse(browser, report: Path):
    with open_page(browser, report) as opened:
        page = opened.page
        page.locator("#map").scroll_into_view_if_needed()
        names = page.evaluate("all.name")
        points = page.evaluate("data.map.map(([row]) => row)")
        for place in (0, 7, 39):
            box = page.locator("#map path").nth(place).bounding_box()
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            assert page.locator("#tip > bdi").inner_text() == names[points[place]]
            assert "confidence" in page.locator("#tip").inner_text()
        before = page.locator("#map path").nth(39).get_attribute("transform")
        page.locator("#nearer").click()
        assert page.locator("#map path").nth(39).get_attribute("transform") != before
        page.locator("#whole").click()
        assert page.locator("#map path").nth(39).get_attribute("transform") == before
        page.locator("#map").click(position={"x": 5, "y": 5})
        page.mouse.wheel(0, -300)
        page.wait_for_function(
            "before => all && document.querySelectorAll('#map path')[39].getAttribute('transform') !== before",
            arg=before,
        )
        fills = {page.locator("#map path").nth(i).get_attribute("fill") for i in range(40)}
        page.select_option("#colour", "low")
        assert {page.locator("#map path").nth(i).get_attribute("fill") for i in range(40)} != fills
        page.locator("#legend button").first.click()
        assert page.locator("#legend button[aria-pressed='true']").count() == 1


def test_the_map_answers_to_the_keyboard_and_opens_an_entry(browser, report: Path):
    with open_page(browser, report) as opened:
        page = opened.page
        page.locator("#map").focus()
        seen = set()
        for key in ["ArrowRight", "ArrowRight", "ArrowUp", "ArrowLeft", "ArrowDown", "+", "ArrowLeft", "0"]:
            page.keyboard.press(key)
            seen.add(page.locator("#said > bdi").inner_text())
        assert len(seen) >= 4
        name = page.locator("#said > bdi").inner_text()
        page.keyboard.press("Enter")
        # The page follows its own address a moment later: these wait for it.
        expect(entry(page, name)).to_have_attribute("open", "")
        expect(page.locator("*:focus")).to_contain_text(name)


def test_names_everywhere_lead_to_their_entry(browser, report: Path):
    with open_page(browser, report) as opened:
        page = opened.page
        page.locator("#find").fill("nothing has this name")
        link = page.locator("table.entries tbody th a").first
        name = link.inner_text()
        for _ in range(2):
            link.click()
            expect(entry(page, name)).to_have_attribute("open", "")
            entry(page, name).locator("summary").first.click()
            expect(entry(page, name)).not_to_have_attribute("open", "")


@pytest.mark.parametrize("width", [1100, 390])
def test_hostile_names_are_text(browser, hostile: Path, width: int):
    with open_page(browser, hostile, width) as opened:
        page = opened.page
        for summary in page.locator("#list .entry > summary").all():
            summary.click()
        page.locator("#list .inside").nth(len(HOSTILE) - 1).wait_for()
        text = page.locator("main").inner_text()
        for name in HOSTILE[:3] + HOSTILE[4:6]:
            assert name in text and f"a prompt about {name}" in text
        assert "(10,000 characters)" in text
        assert page.locator("script").count() == 2
        assert page.locator("[onmouseover]").count() == 0
        assert opened.width() <= width
        page.locator("#find").fill(SCRIPT)
        assert page.locator("#list .entry summary b").first.inner_text() == SCRIPT
        page.locator("#find").fill("مرحبا")
        assert page.locator("#list .entry").count() == 1
        page.locator("#map").focus()
        for key in ["ArrowRight"] * 3 + ["ArrowLeft", "ArrowUp", "ArrowDown"]:
            page.keyboard.press(key)
            assert opened.width() <= width


def test_the_policy_refuses_a_script_of_somebody_else(browser, report: Path):
    with open_page(browser, report) as opened:
        opened.page.evaluate(
            "const s = document.createElement('script'); s.textContent = 'window.taken = 1'; document.body.append(s)"
        )
        assert opened.page.evaluate("window.taken") is None
        assert "Content Security Policy" in opened.complaints.pop()


@pytest.mark.parametrize("name", ["report", "reading"])
def test_the_keyboard_reaches_everything(browser, name: str, request: pytest.FixtureRequest):
    with open_page(browser, request.getfixturevalue(name)) as opened:
        page = opened.page
        page.evaluate(
            "selector => document.querySelectorAll(selector).forEach((node, i) => { if (node.checkVisibility()) node.dataset.stop = i })",
            FOCUSABLE,
        )
        stops = page.locator("[data-stop]").count()
        reached = set()
        for _ in range(stops + 2):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.dataset.stop"))
        assert stops > 10 and len(reached - {None}) == stops
        page.locator("#find").focus()
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


@pytest.mark.parametrize("name", ["report", "hostile", "reading"])
def test_a_phone_shows_it_all_without_scrolling_sideways(browser, name: str, request: pytest.FixtureRequest):
    with open_page(browser, request.getfixturevalue(name), **PHONE) as opened:
        page = opened.page
        assert opened.width() <= 390
        if name == "reading":
            page.locator("#text span").nth(3).tap()
            assert page.locator("#panel table").is_visible()
        else:
            page.locator("#list .entry summary").nth(1).tap()
            expect(page.locator("#list .inside")).to_be_visible()
            page.locator("#map").scroll_into_view_if_needed()
            page.locator("#map path").nth(2).tap(force=True)
            assert page.locator("#said > bdi").inner_text()
        assert opened.width() <= 390
        for control in page.locator("button:visible, select:visible, input:visible").all()[:12]:
            box = control.bounding_box()
            assert box["height"] >= 24 and box["x"] >= 0 and box["x"] + box["width"] <= 390


def test_a_reading_shows_what_is_read_where(browser, reading: Path):
    with open_page(browser, reading) as opened:
        page = opened.page
        assert page.locator("#text").inner_text() == TEXT
        names = page.evaluate("data.names")
        place = page.locator("#text span").all_inner_texts().index("water")
        page.locator("#text span").nth(place).hover()
        concepts = page.evaluate("place => data.tokens[place][0]", place)
        assert "water" in page.locator("#panel p").inner_text()
        rows = page.locator("#panel tbody tr").all_inner_texts()
        assert [row.split("\t")[0] for row in rows] == [names[concept] for concept, _ in concepts]
        assert rows[0].split("\t")[1] == f"{concepts[0][1] / 10:.1f}%"

        def heat() -> list[float]:
            found = page.evaluate("spans.map((span) => Number(span.style.getPropertyValue('--h')))")
            return list(found)

        resting = heat()
        assert resting == page.evaluate("data.tokens.map(([concepts]) => concepts[0][1] / 1000)")
        button = page.locator("#found button").first
        chosen = int(button.get_attribute("data-concept"))
        button.click()
        own = page.evaluate(
            "chosen => data.tokens.map(([c]) => (c.find(([id]) => id === chosen) || [0, 0])[1] / 1000)",
            chosen,
        )
        assert heat() == own and max(own) > 0
        assert names[chosen] in page.locator("#shown").inner_text()
        button.click()
        assert heat() == resting
        page.locator("#text").focus()
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("at") == 1 and page.locator("#text span.on").count() == 1


def test_a_hostile_text_and_hostile_concepts_are_text(browser, tmp_path: Path):
    from encyclo.query.text_reader import Candidate, TokenReading

    text = f"{SCRIPT} مرحبا 🦊 " + "x" * 5000 + " &amp; </script><!--"
    readings, start = [], 0
    for number, word in enumerate(text.split()):
        start = text.index(word, start)
        found = [Candidate(name[:5] + str(i), name, 0.5 / (i + 1)) for i, name in enumerate(HOSTILE)]
        readings.append(
            TokenReading(word, start, start + len(word), found, 1.0, found[0].name if number % 2 else None)
        )
        start += len(word)
    write_reading(tmp_path / "read.html", text, readings, SCRIPT, "a run", 0.5)
    with open_page(browser, tmp_path / "read.html", **PHONE) as opened:
        page = opened.page
        assert page.locator("#text").inner_text() == text
        page.locator("#text span").first.tap()
        assert SCRIPT in page.locator("#panel").inner_text()
        page.locator("#found button").first.tap()
        assert page.locator("script").count() == 2 and opened.width() <= 390


def test_without_a_script_the_report_can_still_be_read(browser, report: Path):
    with open_page(browser, report, java_script_enabled=False) as opened:
        page = opened.page
        assert page.locator("#finder").is_hidden() and page.locator("#static").is_visible()
        assert page.locator("#static tr[id^='entry-']").count() == 40
        assert "needs the page's script" in page.locator("main").inner_text()


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)`: Web Content Accessibility Guidelines 2.2."""
    parts = np.array([float(part) for part in colour[4:-1].split(",")]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_marks_stand_out_from_their_ground(browser, report: Path, scheme: str):
    with open_page(browser, report, color_scheme=scheme) as opened:

        def colour(name: str) -> float:
            return luminance(
                opened.page.evaluate(
                    "name => { const n = document.createElement('i'); n.style.color = `var(--${name})`;"
                    " document.body.append(n); const c = getComputedStyle(n).color; n.remove(); return c }",
                    name,
                )
            )

        def contrast(name: str, ground: str) -> float:
            low, high = sorted((colour(name), colour(ground)))
            return (high + 0.05) / (low + 0.05)

        for name in ("ink", "soft", "first"):
            assert min(contrast(name, ground) for ground in ("page", "card")) >= 4.5, name
        for name in ("second", *(f"k{i}" for i in range(8)), *(f"c{i}" for i in range(5))):
            assert contrast(name, "card") >= 3, name
