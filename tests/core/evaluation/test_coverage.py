"""`encyclo evaluate --text`: the figures in metrics.json and on the page, the printed line, and refused files."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

import encyclo as package
from encyclo.cli.views.ladder import print_ladder
from encyclo.evaluation.coverage import coverage
from encyclo.runs.directory import read_record
from encyclo.runs.metrics import Metrics, read_metrics
from encyclo.runs.reopen import reopen_run
from encyclo.statistics.signatures import estimate_signatures
from encyclo.terminal import ConsoleProgress, console
from tests.commands import one_sentence

TEXT = (
    "The animal drank water near the mountain, and nobody saw 3 other dogs at the river or in a house. " * 6
)


@pytest.fixture
def copied(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def printed(metrics: dict, capsys: pytest.CaptureFixture[str]) -> str:
    print_ladder(Metrics.model_validate(metrics), console())
    return coverage_line(capsys.readouterr().out)


def coverage_line(out: str) -> str:
    return " ".join(out.split()).partition("Coverage: ")[2].partition(" Running text: ")[0]


def test_a_text_is_measured_written_and_printed(encyclo, copied: Path, tmp_path: Path):
    text = tmp_path / "some text.txt"
    text.write_text(TEXT, encoding="utf-8")
    result = encyclo("evaluate", copied, "--text", text, "--limit", "20")
    assert result.returncode == 0, result.stderr
    found = read_metrics(copied).coverage
    assert found.source == "some text.txt" and found.layers.keys() == {"1", "-2", "-1"}
    with package.open(copied) as book:
        assert book.coverage(TEXT, device="cpu").layers == found.layers, "Python gives the same"
    shares = [found.mean(name, 16) for name in ("entries", "shuffled", "random", "principal")]
    assert coverage_line(result.stdout) == (
        "16 entries rebuild {:.0%} of a token's activation in some text.txt, mean over layers (shuffled {:.0%}, random "
        "{:.0%}, principal components {:.0%})".format(*shares)
    )
    page = (copied / "report.html").read_text(encoding="utf-8")
    assert "How much do the entries explain?" in page and f">{shares[0]:.1%}</td>" in page
    # Without a text the run has nothing to measure: the earlier figures stay.
    again = json.loads(encyclo("evaluate", copied, "--limit", "20", "--json").stdout)
    assert again["coverage"] == found.as_json()


def test_the_line_says_why_there_is_no_figure(capsys: pytest.CaptureFixture[str]):
    assert printed({}, capsys) == "not measured; give evaluate a text with --text"
    short = {"tokens": 12, "measured": 0, "candidates": 40, "source": "a\nb", "layers": None, "kinds": None}
    said = printed({"coverage": short}, capsys)
    assert said.startswith("not measured; it takes at least 50 tokens") and r"a\nb has 12 tokens" in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "can't be read: No such file or directory"),
        (b"", "There is nothing to measure in text.txt: it is blank"),
        (b" \n\n", "There is nothing to measure in text.txt: it is blank"),
        ("Füße".encode("latin-1"), "is not UTF-8 text"),
        (b"a\0b", "has NUL bytes"),
    ],
)
def test_a_text_that_cannot_be_read_is_refused_and_changes_nothing(
    encyclo, copied: Path, tmp_path: Path, content: bytes | None, message: str
):
    text, before = tmp_path / "text.txt", (copied / "metrics.json").read_bytes()
    if content is not None:
        text.write_bytes(content)
    result = encyclo("evaluate", copied, "--text", text)
    assert result.returncode == 2 and message in one_sentence(result.stderr)
    assert (copied / "metrics.json").read_bytes() == before


def test_without_a_text_the_lists_sentences_are_measured(copied: Path):
    run = reopen_run(copied, read_record(copied), ConsoleProgress(quiet=True))
    samples = run.load_samples(run.ledger.ordered())
    own = run.load_interpreter(copied / "interpreter")
    signatures = estimate_signatures(samples, len(run.session.concepts))
    assert coverage(run, own, signatures, None) is None
    concepts = [
        dataclasses.replace(concept, examples=(f"Nobody there had any {concept.name} left.",))
        for concept in run.session.concepts
    ]
    listed = dataclasses.replace(run, session=dataclasses.replace(run.session, concepts=concepts))
    found = coverage(listed, own, signatures, None)
    assert found.source == "natural sentences" and found.tokens > 100 and found.layers
