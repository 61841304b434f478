"""Runs the command line as a user does: in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def in_own_process(
    *arguments: str | Path, env: Mapping[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run `python -m encyclo` and return what it printed and its exit code."""
    return subprocess.run(
        [sys.executable, "-m", "encyclo", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **(env or {})},
    )


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """Start `python -m encyclo` and return the process."""
    return subprocess.Popen(
        [sys.executable, "-m", "encyclo", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def one_sentence(stderr: str) -> str:
    """Return the error message; assert that it is one line, without a traceback."""
    lines = [line for line in stderr.splitlines() if line.startswith("encyclo: ")]
    assert len(lines) == 1, stderr
    assert "Traceback" not in stderr
    return lines[0].removeprefix("encyclo: ")
