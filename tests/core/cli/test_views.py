"""`encyclo report`, `encyclo read --html` and in colour, `encyclo show` of a name that is not there."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from encyclo.cli.views.heat_map import HEAT, heat_map, print_readings
from encyclo.query.encyclopedia import open_run
from encyclo.query.suggestions import nearest_names
from encyclo.query.text_reader import Candidate, TokenReading
from encyclo.text import one_line, printable
from tests.commands import one_sentence
from tests.stored_runs import make_run, seal_as_it_is

TEXT = "The animal drank water. Nobody saw the otter near the house!"
ESCAPE = "\x1b]0;taken\x07"


@pytest.fixture
def copied(tiny_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_run, tmp_path / "run")
    return tmp_path / "run"


def reading(token: str, start: int, confidence: float | None, name: str = "otter") -> TokenReading:
    read = name if (confidence or 0) >= 0.5 else None
    return TokenReading(token, start, start + len(token), [Candidate("1", name, confidence)], 1.0, read)


def test_a_report_is_written_anew_as_the_run_wrote_it(encyclo, copied: Path):
    path = copied / "report.html"
    before = path.read_bytes()
    path.unlink()
    result = encyclo("report", copied)
    assert result.returncode == 0 and str(path) in result.stdout
    assert path.read_bytes() == before
    found = json.loads(encyclo("report", copied, "--json").stdout)
    assert found == {"out": str(copied), "report": str(path), "bytes": len(before)}


def test_a_report_of_what_is_no_finished_run_is_refused(encyclo, copied: Path, tmp_path: Path):
    assert encyclo("report", tmp_path / "nothing").returncode == 2
    (copied / "metrics.json").write_text("[1,")
    result = encyclo("report", copied)
    assert result.returncode == 1 and "metrics.json" in one_sentence(result.stderr)
    (copied / "metrics.json").unlink()
    result = encyclo("report", copied)
    assert result.returncode == 2 and "not finished" in one_sentence(result.stderr)


def test_every_command_says_in_the_same_way_that_a_run_is_not_finished(encyclo, tmp_path: Path, copied: Path):
    begun = make_run(tmp_path / "begun", "hdf5", finish=False)
    (copied / "metrics.json").unlink()  # killed after the encyclopedia and before the end
    shutil.rmtree(copied / "interpreter")
    with open_run(begun) as book:
        name = book.concepts[0]
    for run, *asked in (
        (begun, "show", name),
        (begun, "read", name),
        (begun, "report"),
        (copied, "read", "animal"),
    ):
        result = encyclo(asked[0], run, *asked[1:])
        said = one_sentence(result.stderr)
        assert result.returncode == 2 and said.startswith(f"The run in {run} is not finished: "), asked
    for file in [*begun.glob("commits/*"), *begun.glob("parts/*")]:
        file.unlink()
    result = encyclo("show", begun, name)
    assert result.returncode == 2 and "has no samples yet" in one_sentence(result.stderr)


def test_a_reading_becomes_a_page(encyclo, tiny_run: Path, tmp_path: Path):
    page, text = tmp_path / "read.html", tmp_path / "text.txt"
    result = encyclo("read", tiny_run, TEXT, "--html", page, "--device", "cpu")
    assert result.returncode == 0 and str(page) in result.stdout and "Likeliest" not in result.stdout
    first = page.read_bytes()
    text.write_text(TEXT, encoding="utf-8-sig")
    result = encyclo("read", tiny_run, "--file", text, "--html", page, "--device", "cpu", "--json")
    assert page.read_bytes() == first, "a file reads like its text"
    assert len(json.loads(result.stdout)["tokens"]) == first.decode().count('<span style="--h:')
    (tmp_path / "folder").mkdir()
    for target in (tmp_path / "missing" / "read.html", tmp_path / "folder"):
        result = encyclo("read", tiny_run, TEXT, "--html", target, "--device", "cpu")
        assert result.returncode != 0 and str(target) in one_sentence(result.stderr)


def test_a_run_that_could_not_calibrate_gives_a_page_without_heat(encyclo, copied: Path, tmp_path: Path):
    (copied / "calibration.json").unlink()
    seal_as_it_is(copied)
    page = tmp_path / "read.html"
    assert encyclo("read", copied, TEXT, "--html", page, "--device", "cpu").returncode == 0
    html = page.read_text(encoding="utf-8")
    assert (
        "there is no confidence and no heat" in html and "--h:0.000" in html and '"calibrated":false' in html
    )


def shown(readings: list[TokenReading], text: str | None, terminal: bool) -> str:
    buffer = io.StringIO()
    console = Console(
        file=buffer, force_terminal=terminal, color_system="truecolor" if terminal else None, width=200
    )
    print_readings(readings, text, console)
    return buffer.getvalue()


def test_a_terminal_shows_the_text_in_colour_by_confidence():
    text = "a bcd ef"
    readings = [reading("a", 0, 0.02), reading("bcd", 2, 0.97), reading("ef", 6, 0.4)]
    drawn = heat_map(text, readings)
    assert drawn.plain == text
    styles = {text[span.start : span.end]: str(span.style) for span in drawn.spans if span.style}
    assert styles == {"bcd": f"bold {HEAT[5]}", "ef": HEAT[2]}
    printed = shown(readings, text, terminal=True)
    assert "\x1b[" in printed and "otter 97%" in printed and "90% to 100%" in printed
    # What comes as a stream has no text to colour as a whole, but its lines are.
    streamed = shown(readings, None, terminal=True)
    assert "\x1b[" in streamed and "90% to 100%" not in streamed


def test_where_there_is_no_terminal_lines_are_plain(capsys: pytest.CaptureFixture[str]):
    assert shown([reading("a", 0, 0.9)], "a", terminal=False) == ""
    printed = capsys.readouterr().out
    assert printed.split()[:4] == ["Token", "Read", "as", "Likeliest"] and "\x1b" not in printed


def test_a_reading_has_a_column_of_the_entrys_own_readings(capsys: pytest.CaptureFixture[str]):
    print_readings(
        [reading("a", 0, 0.9), reading("b", 2, 0.1)], "a b", Console(file=io.StringIO()), {"1": 12}
    )
    heading, read, not_read = capsys.readouterr().out.splitlines()
    assert heading.split()[3] == "n" and read[heading.index(" n ") + 1] == "2" and " 12  otter" in read
    assert "12" not in not_read


def test_tokens_that_share_a_character_show_it_once():
    readings = [reading("🦊", 0, 0.9), reading("🦊", 0, 0.9), reading("x", 1, None)]
    assert heat_map("🦊x", readings).plain == "🦊x"


def test_a_stranger_s_text_moves_no_cursor(tiny_run: Path):
    assert printable(f"a{ESCAPE}\nb\tc\r") == r"a\x1b]0;taken\x07" + "\nb\tc" + r"\x0d"
    assert printable("\ud800 é 🦊 \u202etxt\x9b") == r"\ud800 é 🦊 \u202etxt\x9b"
    assert one_line("a\nb") == r"a\nb"
    text = f"{ESCAPE} a"
    printed = shown([reading(text, 0, 0.9, name=ESCAPE)], text, terminal=True)
    assert "\x1b]" not in printed and "\x07" not in printed


def test_other_senses_of_the_word_are_folded():
    candidates = [
        Candidate("1", "bank (slope)", 0.72), Candidate("2", "bank (firm)", 0.21), Candidate("3", "rim", 0.06),
        Candidate("4", "bank (tip)", 0.04), Candidate("5", "bank", 0.05), Candidate("6", "river", 0.0),
    ]  # fmt: skip
    token = TokenReading("banks", 0, 5, candidates, 1.0, "bank (slope)")
    assert "  bank (slope) 72%, (firm) 21%, rim 6%, 5 5%, river\n" in shown(
        [token], None, terminal=True
    ).replace("\x1b[0m", "")
    abstains = TokenReading("banks", 0, 5, [Candidate("1", "bank (slope)", 0.0), candidates[1]], 1.0, None)
    assert "bank (slope), bank (firm) 21%" in shown([abstains], None, terminal=True)


@pytest.mark.parametrize(
    ("asked", "meant"),
    [("aminal", "animal"), ("demcoracy", "democracy"), ("bnak", "bank"), ("rivre", "river")],
)
def test_letters_that_changed_places_are_put_right_first(asked, meant):
    names = [
        "mineral",
        "criminal",
        "seminal",
        "animal",
        "democrat",
        "democracy",
        "bunk",
        "bank (slope)",
        "rover",
        "river",
    ]
    assert nearest_names(asked, names)[0] == meant


def test_a_name_that_is_not_there_suggests_those_that_were_meant(encyclo, tiny_run: Path):
    names = ["democracy", "Otter", "musical instrument", "instrument panel", "x" * 10_000, ESCAPE, "river"]
    assert nearest_names("democrasy", names)[0] == "democracy"
    assert nearest_names("OTTER ", names)[0] == "Otter"
    assert nearest_names("instrument", names)[:2] == ["instrument panel", "musical instrument"]
    assert nearest_names("zzzzqqq", names) == []
    assert all(len(name) <= 60 for name in nearest_names("x" * 9_000, names))
    assert "\x1b" not in "".join(nearest_names(ESCAPE, names))
    result = encyclo("show", tiny_run, "MAMAL")
    assert result.returncode == 2 and "mammal" in one_sentence(result.stderr)
    assert len(one_sentence(encyclo("show", tiny_run, "x" * 5000).stderr)) < 400
