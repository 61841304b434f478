"""Activations of a run on an object store that come when they are read.

A copy for reading has the files that hold them in full length, with the bytes that the seal's sha256 covers; the
activations themselves are holes. `raw_arrays` brings a file whole before it reads it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from encyclo.errors import StoreError
from encyclo.storage import checksums

_late: dict[Path, Callable[[], None]] = {}
_bringing = threading.Lock()


def expect(path: Path, bring_it: Callable[[], None]) -> None:
    """Let `bring_it` be called before `path` is read."""
    _late[path] = bring_it


def forget(folder: Path) -> None:
    """Expect no file below a folder any more."""
    for path in [path for path in list(_late) if path.is_relative_to(folder)]:
        _late.pop(path, None)


def bring(path: Path) -> None:
    """Bring a file if it isn't here yet. Raises StoreError."""
    if path not in _late:
        return
    with _bringing:
        if (bring_it := _late.get(path)) is not None:
            bring_it()
            _late.pop(path, None)


def bring_all(folder: Path) -> None:
    """Bring every file below a folder, for a reader that doesn't use `raw_arrays`. Raises StoreError."""
    for path in [path for path in list(_late) if path.is_relative_to(folder)]:
        bring(path)


def outside_activations(run: Path) -> dict[str, list[tuple[int, int]]]:
    """Return the byte ranges (start, end) that are no activations, of each file that has some, by its path in the run.

    Of a run whose seal can't be trusted there are none: whoever opens it says so.
    """
    try:
        seal = checksums.read_seal(run)
        return {
            f"{seal.path}/{name}" if name else seal.path: checksums.outside(described)
            for name, described in seal.files.items()
            if described["bulk"]
        }
    except (StoreError, ValueError, KeyError, TypeError):
        return {}
