"""Replace a file of a run by what hangs, or fills the machine of, a program that trusts it.

Whatever reads the file must refuse it in one sentence that names it: within seconds, and without much memory.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from encyclo.testing.faults.mutations import copy_run
from encyclo.testing.faults.processes import Ending, ForkServer

MEMORY = 2**31
SECONDS = 60.0
SPARSE = 100 * 2**30
NUMBERS = 500 * 2**20
LEVELS = 1_000_000
KINDS = ("device", "pipe", "sparse", "outside", "folder", "deep", "numbers", "surrogate")

Command = Callable[[Path], object]
"""Runs a command on a run directory and leaves with its exit code (SystemExit); picklable by name."""


def make_hostile(path: Path, kind: str, spare: Path) -> None:
    """Replace the file `path` by one of `KINDS`; `spare` is a folder beside the run for what it links to."""
    content = path.read_bytes()
    path.unlink()
    if kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(SPARSE)
    elif kind == "outside":  # the right content, but not the run's own
        (spare / "outside").write_bytes(content)
        path.symlink_to(spare / "outside")
    elif kind == "folder":
        path.mkdir()
    elif kind == "deep":
        path.write_bytes(b"[" * LEVELS)
    elif kind == "numbers":
        path.hardlink_to(_numbers(spare))
    elif kind == "surrogate":
        path.write_bytes(rb'{"config": "\ud800"}')
    else:
        raise ValueError(f"there is no kind {kind!r}")


def find_fault(
    server: ForkServer, command: Command, good: Path, work: Path, file: str, kind: str, named: str
) -> str | None:
    """Run `command` on a copy of the run `good` with a hostile `file`; return what is wrong, None if nothing is.

    The command must refuse what is `named`. It may write beside the run that it is given.
    """
    case = work / "case"
    case.mkdir()
    copy_run(good, case / "damaged")
    make_hostile(case / "damaged" / file, kind, work)
    try:
        return _judge(server.run(command, case / "damaged", limit=SECONDS, memory=MEMORY), named)
    finally:
        shutil.rmtree(case)


def _judge(ending: Ending, named: str) -> str | None:
    """Return why an ending is no refusal in one sentence that says what is `named`."""
    if ending.hung:
        return "it hung"
    if ending.status not in (1, 2):
        return f"it ended with {ending.status}: {ending.output[-500:]!r}"
    if named not in ending.output:
        return f"it doesn't name {named}: {ending.output[-500:]!r}"
    if "Traceback" in ending.output or "unexpected" in ending.output:
        return f"it is no refusal: {ending.output[-500:]!r}"
    return None


def _numbers(spare: Path) -> Path:
    """Return a file of 500 MB of JSON numbers, written once."""
    path = spare / "numbers.json"
    if not path.exists():
        block = b"1," * 2**19
        with path.open("wb") as file:
            file.write(b"[")
            for _ in range(NUMBERS // len(block)):
                file.write(block)
            file.write(b"1]")
    return path
