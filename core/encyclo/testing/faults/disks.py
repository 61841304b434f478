"""Disks that fail, and what a power cut leaves. `files.using` replaces the disk of `encyclo.storage.files` by one.

`FailingDisk` lets the n-th call fail. `RecordingDisk` records a folder, and which parts of it are synced, after every
call. For each such `Moment`, `survivors` returns what a disk may hold if the power fails: names and data that were
never synced may be there, be missing or be torn, in any order of the writes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal

from encyclo.storage.files import Disk

Names = Literal["synced", "seen", "mixed"]
Data = Literal["synced", "torn", "seen", "mixed"]
SURVIVALS: tuple[tuple[Names, Data], ...] = (
    ("synced", "synced"),
    ("seen", "torn"),
    ("mixed", "mixed"),
    ("seen", "synced"),
    ("synced", "torn"),
    ("seen", "seen"),
)
"""What may survive of names (folders' entries) and data (files' bytes), the worst case first."""


class HastyDisk(Disk):
    """Syncs nothing: when a power cut is only simulated, waiting for the real disk proves nothing."""

    def sync_file(self, path: Path) -> None:
        """Only check that the file exists. Raises FileNotFoundError."""
        path.stat()

    def sync_folder(self, path: Path) -> None:
        """Only check that the folder exists. Raises FileNotFoundError."""
        path.stat()


def _counted(call: str) -> Any:
    """Return the method `call` of a disk between `step` and `done`, which get its path, of two the target."""

    def method(self: CountingDisk, *arguments: Any) -> None:
        path = arguments[0] if call == "write" else arguments[-1]
        self.step(call, path)
        getattr(HastyDisk, call)(self, *arguments)
        self.done(call, path)

    return method


class CountingDisk(HastyDisk):
    """Calls `step` before and `done` after every call, with the call's name and path."""

    def step(self, call: str, path: Path) -> None:
        """Do something before the call `call` on `path`."""

    def done(self, call: str, path: Path) -> None:
        """Do something after the call `call` on `path`."""

    write = _counted("write")
    begin = _counted("begin")
    written = _counted("written")
    sync_file = _counted("sync_file")
    sync_folder = _counted("sync_folder")
    replace = _counted("replace")
    link = _counted("link")
    make_folder = _counted("make_folder")
    remove = _counted("remove")


@dataclass
class FailingDisk(CountingDisk):
    """Lets call number `fails_at` (from 1; 0: none) fail with `code`; a full disk stays full.

    If a library writes by itself, half of what it wrote is cut off, as if the write had failed midway.
    """

    fails_at: int = 0
    code: int = errno.EIO
    calls: list[str] = field(default_factory=list)

    def step(self, call: str, path: Path) -> None:
        """Count the call. Raises OSError if it is to fail."""
        self.calls.append(f"{call} {path.name}")
        number = len(self.calls)
        full = self.code == errno.ENOSPC
        if full and call == "remove":
            return
        if number == self.fails_at or (full and 0 < self.fails_at < number):
            if call == "written":
                for file in _files(path):
                    os.truncate(file, file.stat().st_size // 2)
            raise OSError(self.code, os.strerror(self.code), str(path))


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from (file for file in sorted(path.rglob("*")) if file.is_file())
    elif path.exists():
        yield path


def telling(calls: Sequence[str], every: bool) -> list[int]:
    """Return the indices of the calls to try: with `every`, all; else only the first and last of many syncs in a row.

    A store of many files syncs each of them before one rename; the calls in between add little.
    """
    syncs = [call.startswith("sync_") for call in calls]
    inner = [0 < i < len(calls) - 1 and syncs[i - 1] and syncs[i] and syncs[i + 1] for i in range(len(calls))]
    return [i for i in range(len(calls)) if every or not inner[i]]


@dataclass(frozen=True)
class Moment:
    """The disk's content after one call, and which parts of it were synced. Keys are inode numbers."""

    call: str
    root: int
    promised: int
    """How many of the program's writes were promised to be durable at this moment, as its caller counts them."""
    seen_names: dict[int, dict[str, int]]
    synced_names: dict[int, dict[str, int]]
    seen_data: dict[int, bytes]
    synced_data: dict[int, bytes]


class RecordingDisk(CountingDisk):
    """Records a `Moment` of `folder` after every call. Close it: it holds files open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.promised = 0
        self.moments: list[Moment] = []
        self._seen_names: dict[int, dict[str, int]] = {}
        self._synced_names: dict[int, dict[str, int]] = {}
        self._seen_data: dict[int, bytes] = {}
        self._synced_data: dict[int, bytes] = {}
        self._open: dict[int, int] = {}  # no other file gets the number of an open inode

    def done(self, call: str, path: Path) -> None:
        """Record the whole folder."""
        if call == "begin":
            return
        self._look(self.folder)
        if call == "sync_file":
            inode = path.stat().st_ino
            if inode in self._seen_data:  # else it is elsewhere
                self._synced_data[inode] = self._seen_data[inode]
        elif call == "sync_folder" and path.stat().st_ino in self._seen_names:
            inode = path.stat().st_ino
            self._synced_names[inode] = dict(self._seen_names[inode])
        self.moments.append(
            Moment(
                f"{call} {path.name}",
                self.folder.stat().st_ino,
                self.promised,
                dict(self._seen_names),
                dict(self._synced_names),
                dict(self._seen_data),
                dict(self._synced_data),
            )
        )

    def close(self) -> None:
        """Close the files."""
        for handle in self._open.values():
            os.close(handle)
        self._open.clear()

    def _look(self, folder: Path) -> int:
        inode = self._hold(folder)
        names = {}
        for path in sorted(folder.iterdir()):
            if path.is_dir():
                names[path.name] = self._look(path)
            else:
                names[path.name] = self._hold(path)
                self._seen_data[names[path.name]] = path.read_bytes()
        self._seen_names[inode] = names
        return inode

    def _hold(self, path: Path) -> int:
        inode = path.stat().st_ino
        if inode not in self._open:
            self._open[inode] = os.open(path, os.O_RDONLY)
        return inode


def survivors(moment: Moment, names: Names, data: Data, seed: int = 0) -> dict[str, bytes | None]:
    """Return what a power cut at `moment` may leave (see `SURVIVALS`): bytes by path, None for a folder."""
    random = Random(seed)
    contents: dict[int, bytes] = {}  # two names of one file show the same bytes
    left: dict[str, bytes | None] = {}

    def survive(inode: int, prefix: str) -> None:
        synced, seen = moment.synced_names.get(inode, {}), moment.seen_names.get(inode, {})
        for name in sorted(synced.keys() | seen.keys()):
            kept = seen if names == "seen" else synced
            if names == "mixed":
                kept = random.choice((synced, seen))
            child = kept.get(name)
            if child is None:
                continue
            if child in moment.seen_names:
                left[prefix + name] = None
                survive(child, f"{prefix}{name}/")
            else:
                if child not in contents:
                    contents[child] = _survived(moment, child, data, random)
                left[prefix + name] = contents[child]

    survive(moment.root, "")
    return left


def restore(left: Mapping[str, bytes | None], folder: Path) -> None:
    """Fill the empty `folder` with what `survivors` returned."""
    for name, content in left.items():
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)


def _survived(moment: Moment, inode: int, data: Data, random: Random) -> bytes:
    synced, seen = moment.synced_data.get(inode, b""), moment.seen_data.get(inode, b"")
    how = random.choice(("synced", "torn", "seen")) if data == "mixed" else data
    if how == "synced" or synced == seen:
        return synced
    if how == "seen":
        return seen
    half = len(seen) // 2
    return seen[:half] + synced.ljust(len(seen), b"\0")[half:]
