"""What a person sees of long work: a bar on a terminal, lines elsewhere, nothing where quiet."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from encyclo import terminal as progress
from encyclo.terminal import ConsoleProgress

SHOW = """
import time
from encyclo.terminal import ConsoleProgress
shown = ConsoleProgress()
shown.stage("Stage 1 [templates]")
with shown.track("Capturing", 400, "prompts") as advance:
    for _ in range(4):
        time.sleep(0.03)
        advance(100)
"""


def test_only_this_module_prints():
    """What the core's other modules print would not be escaped."""
    core = Path(progress.__file__).parent
    for path in sorted(core.rglob("*.py")):
        if path == Path(progress.__file__) or path.is_relative_to(core / "testing"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "Console", path
                constant = node.args and isinstance(node.args[0], ast.Name) and node.args[0].id == "STOPPED"
                assert node.func.id != "print" or constant, f"{path}, line {node.lineno}"


def work(shown: ConsoleProgress, total: int = 1000, step: int = 250) -> None:
    with shown.track("Capturing", total, "prompts") as advance:
        for _ in range(0, total, step):
            advance(step)


def test_elsewhere_than_on_a_terminal_the_end_is_one_plain_line(capsys):
    work(ConsoleProgress())
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("Capturing: 1,000 of 1,000, ")
    assert line.endswith(" prompts/s")
    assert "\x1b" not in captured.err


def test_lines_come_no_more_often_than_the_time_between_them(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    work(ConsoleProgress())
    done = [line.split(" ")[1] for line in capsys.readouterr().err.splitlines()]
    assert done == ["250", "500", "750", "1,000"]


def test_the_rate_is_amounts_over_time(capsys, monkeypatch):
    clock = iter([100.0, 100.0, 104.0, 104.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    work(ConsoleProgress(), total=1000, step=1000)
    assert capsys.readouterr().err == "Capturing: 1,000 of 1,000, 250 prompts/s\n"


def test_work_may_say_its_own_rate(capsys):
    with ConsoleProgress().track("Capturing", 10, "bytes", lambda: "3 windows") as advance:
        advance(10)
    assert capsys.readouterr().err == "Capturing: 10 of 10 bytes, 3 windows\n"


def test_quiet_shows_nothing(capsys):
    quiet = ConsoleProgress(quiet=True)
    quiet.stage("Stage 1")
    work(quiet)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_no_work_shows_nothing_and_does_not_fail(capsys):
    with ConsoleProgress().track("Capturing", 0, "prompts") as advance:
        advance(0)
    assert capsys.readouterr().err == ""


def test_a_stages_title_is_printed_as_it_is_on_stderr(capsys):
    title = "Stage 1 [bold](templates)[/bold]: " + "1,000 concepts, " * 20
    ConsoleProgress().stage(title)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == title + "\n", "neither taken for markup nor wrapped"


def test_an_error_in_the_work_comes_out(capsys):
    with pytest.raises(ValueError), ConsoleProgress().track("Capturing", 3, "prompts") as advance:
        advance(1)
        raise ValueError


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_a_terminal_gets_a_bar_with_rate_and_time_left():
    controller, terminal = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(
        [sys.executable, "-c", SHOW],
        stderr=terminal, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    os.close(terminal)
    seen = b""
    try:
        while data := os.read(controller, 4096):
            seen += data
    except OSError:  # how Linux says that the other end closed
        pass
    finally:
        os.close(controller)
    assert process.communicate(timeout=30)[0] == b""
    assert process.returncode == 0
    text = seen.decode()
    assert "Stage 1 [templates]" in text
    for part in ("Capturing", "400/400", "prompts/s", "━", "0:0"):
        assert part in text
