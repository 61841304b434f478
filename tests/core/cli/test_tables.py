"""Tables in terminals of 80 and of 200 columns, and where there is no terminal: no word is broken."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from encyclo.cli.views.convergence import conclusion
from encyclo.cli.views.ladder import print_ladder
from encyclo.cli.views.summary import _calibration, _stages
from encyclo.evaluation.converge import Convergence
from encyclo.query.encyclopedia import open_run
from encyclo.query.entry import NO_NEIGHBOUR
from encyclo.runs.metrics import LadderFigures, Metrics, StageFigures
from encyclo.statistics.figures import Accuracy, Calibration, Conformal, LayerConvergence
from encyclo.terminal import SafeConsole

WIDER = "A wider terminal also shows: "


def printed(show, width: int) -> str:
    buffer = io.StringIO()
    show(SafeConsole(file=buffer, width=width))
    return buffer.getvalue()


def climbed() -> Metrics:
    calibration = Calibration(
        ece=0.0121, brier=0.0312, n=1518, coverage=[[0.1 * i, 0.99, 0.5] for i in range(1, 11)],
        conformal=Conformal(level=0.9, coverage=0.912, size=1.04, empty=0.0, n=1518),
    )  # fmt: skip
    row = Accuracy(
        top1=0.9967, top1_low=0.9931, top1_high=0.9989, top10=1.0, top100=1.0, median_rank=1.0, candidates=1000,
        n=12_518, null=Accuracy(top1=0.001), calibration=calibration,
    )  # fmt: skip
    rows = {"transformer": row, "centroid": row}
    return Metrics(
        accuracy=LadderFigures(
            heldout_prompts=rows, natural=rows, described=None, unseen=rows, adversarial=rows
        )
    )


@pytest.mark.parametrize("width", [80, 200])
def test_the_ladder_breaks_no_word(width: int):
    lines = printed(lambda console: print_ladder(climbed(), console), width).splitlines()
    assert max(map(len, lines)) <= width
    held = next(line for line in lines if line.startswith("heldout_prompts  transformer"))
    assert "99.7% (99.3% to 99.9%)" in held and "12,518" in held
    calibration = [line for line in lines if line.startswith("heldout_prompts") and "0.012" in line]
    assert len(calibration) == 2 and "transformer" in calibration[0] and "99.0%" in calibration[0]
    words = {word for line in lines for word in line.split()}
    assert {"Accuracy,", "most", "confident", "half", "not", "measured"} <= words
    assert any(line.startswith(WIDER) for line in lines) == (width == 80)
    assert ("Top-100" in lines[0]) == (width == 200)


@pytest.mark.parametrize("width", [80, 200])
def test_the_stages_break_no_word(width: int):
    attacks = {"before": {"top1": 0.512}, "after": {"top1": 0.871}}
    row = StageFigures.model_validate(
        {"stage": 3, "sampler": "adversarial", "concepts": 1000, "samples": 10_000, "settled": 1000,
         "heldout_top1": 0.997, "natural_top1": 0.993, "attacks": attacks, "seconds": 1234.0}
    )  # fmt: skip
    text = printed(lambda console: console.print(_stages([row])), width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert any(line.startswith("3 adversarial") and "48.8% → 12.9%" in line for line in lines)
    assert (WIDER + "Concepts" in text) == (width == 80) and "1,234" in text


def test_the_ladder_says_why_a_rung_is_missing_and_has_no_empty_table():
    text = printed(lambda console: print_ladder(Metrics(natural_sentences=0), console), 200)
    assert "natural is not measured: the concepts have no sentences by other authors" in text
    assert "heldout_prompts is not measured: no prompt family could be held out" in text
    assert "ECE" not in text and "Reading of" not in text and "Absent concepts" not in text


def test_a_summary_says_what_could_not_be_held_out(encyclo, tmp_path: Path, tiny_flags: list[str]):
    run = ["run", "--limit", "4", "--sampler", "raw", "--out", tmp_path / "raw", *tiny_flags]
    text = " ".join(encyclo(*run).stdout.split())
    assert text.count("not measured: no prompt family could be held out (use --sampler templates)") == 3
    assert _calibration(Metrics(splits={"test": ["a"]}), "transformer").startswith(
        "not measured: no prompt family was left for calibration"
    )
    unreported = Metrics(splits={"test": ["a"], "calibration": ["b"]})
    assert _calibration(unreported, "transformer") == "not measured: the run's scorer reported none"


def convergence(**figures: float) -> Convergence:
    row = LayerConvergence(null_cosine=0.01, samples_to_5pct_median=272.0, **figures)
    worse = LayerConvergence(cosine=0.1, null_cosine=0.01, adjusted_rel_diff=0.9)
    return Convergence(
        run_id="r", seed=0, splits=20, pooling="span", finished=True, concepts=1000, samples=10_000,
        layers={"-6": row, "-1": worse}, curve=None, older=None,
    )  # fmt: skip


def test_converge_says_first_what_follows():
    early = conclusion(convergence(cosine=0.88, adjusted_rel_diff=0.37))
    assert early.startswith("Signatures tell concepts apart: at layer -6") and "cosine of 0.88" in early
    assert "not yet precise" in early and "about 272 samples" in early and "it has 10 in all" in early
    precise = conclusion(convergence(cosine=0.99, adjusted_rel_diff=0.04))
    assert "They are precise" in precise and "4.0%" in precise and "272" not in precise
    assert "hardly tell concepts apart" in conclusion(convergence(cosine=0.2, adjusted_rel_diff=0.8))


def test_where_there_is_no_terminal_no_line_is_wrapped(
    encyclo, tiny_run: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("COLUMNS", raising=False)
    with open_run(tiny_run) as book:
        near = [n.name for n in book.entry("animal").nearest]
        own = book.own_readings
    assert own is not None
    lines = encyclo("show", tiny_run, "animal").stdout.splitlines()
    nearest = next(line for line in lines if line.startswith("Nearest"))
    assert all(name in nearest for name in near) and len(nearest) > 80
    sure = next(line for line in lines if line.startswith("Confidence"))
    assert f"among 40 concepts, from {own[0]} held-out reading" in sure
    confused = next(line for line in lines if line.startswith("Most confused"))
    assert "of 10 samples misread" in confused and "+" not in confused


def test_a_terminal_of_80_columns_wraps_between_words(tiny_run: Path):
    parent, child = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k != "COLUMNS"} | {"TERM": "xterm"}
    command = [
        sys.executable,
        "-c",
        "import fcntl, struct, termios; fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0));"
        f"from encyclo.cli import run_command; run_command(['show', {str(tiny_run)!r}, 'animal'])",
    ]
    with subprocess.Popen(command, stdout=child, stderr=subprocess.DEVNULL, env=environment) as process:
        os.close(child)
        text = b""
        try:
            while piece := os.read(parent, 4096):
                text += piece
        except OSError:  # the other end is closed
            pass
        assert process.wait() == 0
    os.close(parent)
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line).rstrip() for line in text.decode().splitlines()]
    start = next(place for place, line in enumerate(lines) if line.startswith("Nearest"))
    wrapped = lines[start : next(place for place, line in enumerate(lines) if line.startswith("Most"))]
    assert len(wrapped) > 1 and max(map(len, wrapped)) <= 80
    with open_run(tiny_run) as book:
        near = [f"{n.name} {n.cosine:.2f}" for n in book.entry("animal").nearest]
    assert " ".join(" ".join(wrapped).split()) == "Nearest " + ", ".join(near)


def test_run_and_read_say_what_a_confidence_is_among(encyclo, tiny_run: Path, tiny_flags: list[str]):
    with open_run(tiny_run) as book:
        own = book.own_readings
    assert own is not None and len(own) == 40 and 0 < own.sum() < 400
    result = encyclo("run", "--sampler", "templates", "--limit", "40", "--out", tiny_run, *tiny_flags)
    expected = (
        f"among 40 concepts, from {own.sum()} held-out readings, {own.sum() / 40:.1f} for an entry on average"
    )
    assert expected in " ".join(result.stdout.split())
    assert "without sampling and storing" in " ".join(result.stdout.split())
    read = encyclo("read", tiny_run, "The animal drank.", "--device", "cpu")
    assert f"among 40 concepts, calibrated on {own.sum()} held-out prompts" in read.stderr


def test_every_view_says_how_many_readings_are_an_entrys_own(encyclo, tiny_run: Path, tiny_flags: list[str]):
    with open_run(tiny_run) as book:
        entry, own = book["animal"], int(book.own_readings[book.index("animal")])
        assert entry.own_readings == own > 0
        assert all(f", {own} own reading" in text for text in (repr(entry), entry._repr_html_()))
        alone = replace(entry, neighbours=0)
        assert NO_NEIGHBOUR in alone._repr_html_() and "nearest" not in repr(alone)
    assert json.loads(encyclo("show", tiny_run, "animal", "--json").stdout)["own_readings"] == own
    run = encyclo("run", "--sampler", "templates", "--limit", "40", "--out", tiny_run, *tiny_flags).stdout
    heading = next(line for line in run.splitlines() if line.startswith("Concept "))
    row = next(line for line in run.splitlines() if line.startswith("animal "))
    assert row[heading.index("Own readings") :].split()[0] == str(own)
    read = encyclo("read", tiny_run, "The animal drank.", "--device", "cpu", "--at-least", "0")
    assert "n is the number of the entry's own held-out readings" in read.stderr
    assert re.search(rf" animal +\d+% +{own}  ", read.stdout), read.stdout


def test_a_run_without_its_metrics_still_shows_an_entry(encyclo, tiny_run: Path, tmp_path: Path):
    shutil.copytree(tiny_run, tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    for kept in (True, False):
        if not kept:
            (tmp_path / "run" / "details.json").unlink()
        result = encyclo("show", tmp_path / "run", "animal")
        sure = next(line for line in result.stdout.splitlines() if line.startswith("Confidence"))
        ending = "among 40 concepts, from 2 held-out readings of" if kept else "among 40 concepts"
        assert result.returncode == 0 and sure.rstrip().endswith(ending)


def test_an_entry_without_a_similar_one_has_no_neighbours():
    from encyclo.schema import SignatureTable
    from encyclo.statistics.similarity import Similarity

    mean = np.array([[[1.0, 0.0]], [[1.0, 0.1]], [[-1.0, 0.0]], [[-1.0, -0.1]]], np.float32)
    similarity = Similarity.of(SignatureTable(mean, np.ones_like(mean), np.full(4, 5, np.int32)))
    found = similarity.nearest(np.arange(4), 3)
    assert all(cosine >= 0.005 for near in found.values() for _, cosine in near)
    assert all(len(near) < 3 for near in found.values())
