"""A run on an object store: a working copy in this machine's cache, and each durable write goes to the store.

The store holds the run's directory file by file, under the same names: what is copied from there to a disk, or from
a disk to there, is the same run. A command works on the copy, like on a run on a disk. `WorkingCopy` is the `Disk` of
`encyclo.storage.files`: what a run makes durable with it is in the store when the call returns, and a commit record
is created in the store first. The store counts: before a command begins, the copy is made equal to it.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from encyclo.storage import files, lease
from encyclo.storage.objects import Found, Objects
from encyclo.storage.safe_read import parse_json
from encyclo.text import NAMES

RECORD, PARTS, COMMITS = "run.json", "parts", "commits"
COPYING = ".copying"
"""The object that names what `encyclo convert` uploads, until that is whole."""
HOLES = "holes"
"""The note of a file whose activations have not been copied yet."""
THREADS = 8

_FORBIDDEN = set("\\\0" if os.name == "posix" else "\\\0:")

Wanted = Callable[[str], bool]
"""Whether an object, by its name, is copied."""


def is_on_object_store(out: Path) -> bool:
    """Return whether `out` is the working copy of a run on an object store."""
    return str(out) in NAMES


def remove_half_a_copy(objects: Objects, there: dict[str, Found]) -> None:
    """Remove what a killed `encyclo convert` left of a run that is not whole, also from `there`. Raises OSError."""
    if COPYING not in there:
        return
    named = set()
    if RECORD not in there:
        with suppress(ValueError, TypeError):
            named = {name for name in parse_json(objects.read(COPYING)) if _is_safe(name)}
    for names in (named & there.keys(), {COPYING}):  # the list last, for a process that is killed here
        objects.delete(names)
        for name in names:
            del there[name]


def address_of(run: Path) -> str:
    """Return the URL of which `run` is a working copy; "" for any other folder."""
    return NAMES.get(str(run), "")


class WorkingCopy(files.Disk):
    """The calls that change a working copy; each durable one changes the object store, too."""

    def __init__(
        self, objects: Objects, root: Path, held: lease.Lease | None = None, alone: bool = False
    ) -> None:
        """`alone`: no other process works in this copy, and others write into the store."""
        self._objects, self.root, self._lease, self._alone = objects, root, held, alone
        self._notes_file = root.with_name(f"{root.name}.json")
        self._notes: dict[str, list[object]] = {}
        """Of each file that is as in the store: size, e_tag, and the copy's modification time in ns."""
        root.parent.mkdir(parents=True, exist_ok=True)
        NAMES[str(root)] = NAMES[str(Path(objects.url))] = objects.url

    def pull(self, there: dict[str, Found], wanted: Wanted, fresh: bool = False) -> None:
        """Make the wanted files of the copy equal to the objects that are `there`. Raises OSError."""
        noted = {} if fresh else self._read_notes()
        there = {name: found for name, found in there.items() if _is_safe(name)}
        for name in self._files():
            if wanted(name) and name not in there:
                (self.root / name).unlink()
        if RECORD not in there:  # what is left of another run: empty folders, hidden files
            shutil.rmtree(self.root, ignore_errors=True)
        self._notes = {name: noted[name] for name in noted.keys() & there.keys() if not wanted(name)}
        missing = []
        for name, found in there.items():
            if not wanted(name):
                continue
            path = self.root / name
            status = path.stat() if path.is_file() else None
            if status and noted.get(name) == [*found, status.st_mtime_ns]:
                self._notes[name] = noted[name]
            elif status and not fresh and is_part(name) and status.st_size == found.size:
                self._note(name, found.e_tag)  # no two parts share a name, and a commit has its checksums
            else:
                missing.append(name)
        with ThreadPoolExecutor(THREADS) as pool:
            for name, _ in zip(missing, pool.map(self._download, missing), strict=True):
                self._note(name, there[name].e_tag)

    def pull_without_bulk(
        self, there: dict[str, Found], outside: Mapping[str, Sequence[tuple[int, int]]]
    ) -> list[str]:
        """Copy only the byte ranges `outside` the bulk of files, by name; the rest is holes. Raises OSError.

        Returns the files that have holes, for `bring`.
        """
        noted = self._read_notes()
        late, missing = [], []
        for name in filter(_is_safe, outside):
            path = self.root / name
            known = [*there[name], path.stat().st_mtime_ns if path.is_file() else None]
            if noted.get(name) == known:
                continue
            late.append(name)
            if noted.get(name) != [*known, HOLES]:
                missing.append(name)
        with ThreadPoolExecutor(THREADS) as pool:
            saved = pool.map(lambda n: self._save_with_holes(n, there[n].size, outside[n]), missing)
            for name, _ in zip(missing, saved, strict=True):
                self._notes[name] = [*there[name], (self.root / name).stat().st_mtime_ns, HOLES]
        return late

    def bring(self, name: str) -> None:
        """Copy a file that has holes. Raises OSError."""
        e_tag = str(self._notes[name][1])
        self._download(name)
        self._notes |= self._read_notes()  # another process may have brought others
        self._note(name, e_tag)
        self.write_notes()

    def push_rest(self) -> None:
        """Upload what plugins wrote by themselves, and delete what they removed. Raises OSError."""
        self._check()
        here = self._files()
        self._delete(name for name in self._notes.keys() - here if not is_part(name))
        new = {name for name in here if not is_part(name) and not self._is_noted(name)}
        if any(name.startswith(COMMITS) for name in new):  # a worker's, which is there: its copy came later
            there = self._objects.list(COMMITS)
            for name in new & there.keys():
                self._note(name, there[name].e_tag)
            new -= there.keys()
        self._upload(new)

    def write_notes(self) -> None:
        """Note what is as in the store, so that the next command copies only what has changed."""
        with suppress(OSError):
            self._notes_file.write_text(json.dumps(self._notes))

    def replace(self, source: Path, target: Path) -> None:
        """Replace `target` here, then in the store: a folder's files one by one."""
        super().replace(source, target)
        name = self._name(target)
        if name is None:
            return
        self._check()
        if not target.is_dir():
            self._upload([name])
            return
        new = {found for found in self._files(target) if found != RECORD}
        if target == self.root:
            self._objects.put(COPYING, json.dumps(sorted(new)).encode())
        self._upload(new)
        if target == self.root:
            self._upload([RECORD])  # last: without it there is no run
            self._objects.delete([COPYING])
        else:
            self._delete(found for found in self._notes.keys() - new if _is_below(found, name))

    def link(self, source: Path, target: Path) -> None:
        """Create `target` in the store, then here. Raises FileExistsError, after copying it, if another is there."""
        name = self._name(target)
        if name is None:
            super().link(source, target)
            return
        self._check()
        content = source.read_bytes()
        while (e_tag := self._objects.create(name, content)) is None:
            if self._fetch_other(name):
                raise FileExistsError(target)
        with suppress(FileExistsError):  # another process has copied it from the store by now
            super().link(source, target)
        self._note(name, e_tag)

    def remove(self, path: Path) -> None:
        """Remove a file or a folder in the store, then here."""
        if (name := self._name(path)) is not None:
            self._check()
            noted = {found for found in self._notes if _is_below(found, name)}
            self._delete(noted | (self._files(path) if path.is_dir() else {name}))
        super().remove(path)

    def fetch(self, path: Path) -> None:
        """Copy a commit record that another machine may have written, and its part."""
        if (name := self._name(path)) is not None and not path.exists():
            self._fetch_other(name)

    def refresh(self) -> None:
        """Copy what others wrote into the store, but for parts, if this copy is this process's alone."""
        if self._alone:
            self.write_notes()
            self.pull(self._objects.list(), lambda name: not is_part(name))

    def fetch_parts(self, names: Iterable[str]) -> None:
        """Copy files of parts that are not here, if this copy is this process's alone."""
        wanted = (f"{PARTS}/{name}" for name in names if self._alone and _is_safe(name))
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(self._download, [name for name in wanted if not (self.root / name).exists()]):
                pass

    def _fetch_other(self, name: str) -> bool:
        """Copy another attempt's record, and its part; return False if there is none, or its part is gone.

        A process that lost its lease may commit a part that the next one has removed: such a commit is void.
        """
        try:
            content = self._objects.read(name)
        except FileNotFoundError:
            return False
        try:
            for part in _parts_named(content):
                if not (self.root / PARTS / part).exists():
                    self._download(f"{PARTS}/{part}")
        except FileNotFoundError:
            self._objects.delete([name])
            return False
        self._save(name, [content])  # last: here too, a record has its part
        return True

    def _upload(self, names: Iterable[str]) -> None:
        ordered = list(names)
        with ThreadPoolExecutor(THREADS) as pool:
            tags = pool.map(lambda name: self._objects.put(name, self.root / name), ordered)
            for name, tag in zip(ordered, tags, strict=True):
                self._note(name, tag)

    def _delete(self, names: Iterable[str]) -> None:
        gone = set(names)
        self._objects.delete(gone)
        for name in gone:
            self._notes.pop(name, None)

    def _download(self, name: str) -> None:
        self._save(name, self._objects.blocks(name))

    def _save(self, name: str, blocks: Iterable[bytes]) -> None:
        with self._replacing(name) as file:
            file.writelines(blocks)

    def _save_with_holes(self, name: str, size: int, ranges: Sequence[tuple[int, int]]) -> None:
        with self._replacing(name) as file:
            file.truncate(size)
            for start, content in self._objects.ranges(name, ranges):
                file.seek(start)
                file.write(content)

    @contextmanager
    def _replacing(self, name: str) -> Iterator[BinaryIO]:
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{files.TEMPORARY}{uuid.uuid4().hex[:12]}")
        try:
            with temporary.open("wb") as file:
                yield file
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def _check(self) -> None:
        if self._lease is not None:
            self._lease.check()

    def _name(self, path: Path) -> str | None:
        """Return the name of a file or folder in the store; None for what isn't copied: outside, temporary, hidden."""
        if not path.is_relative_to(self.root):
            return None
        name = path.relative_to(self.root).as_posix()
        return "" if name == "." else name if _is_copied(name) else None

    def _files(self, folder: Path | None = None) -> set[str]:
        """Return the names of the copy's files, or of those in a folder of it."""
        found = (p for p in (folder or self.root).rglob("*") if p.is_file() and not p.is_symlink())
        return {name for path in found if _is_copied(name := path.relative_to(self.root).as_posix())}

    def _is_noted(self, name: str) -> bool:
        status = (self.root / name).stat()
        noted = self._notes.get(name)
        return noted is not None and (noted[0], noted[2]) == (status.st_size, status.st_mtime_ns)

    def _note(self, name: str, e_tag: str) -> None:
        status = (self.root / name).stat()
        self._notes[name] = [status.st_size, e_tag, status.st_mtime_ns]

    def _read_notes(self) -> dict[str, list[object]]:
        with suppress(OSError, ValueError, TypeError):
            return dict(parse_json(self._notes_file.read_bytes()))
        return {}


def _parts_named(record: bytes) -> list[str]:
    """Return the paths below parts/ in a commit record; none of a damaged one, of which its reader says so."""
    with suppress(ValueError):
        found = parse_json(record)
        return [*filter(_is_safe, found.get("files", {}))] if isinstance(found, dict) else []
    return []


def _is_copied(name: str) -> bool:
    parts = name.split("/")
    return not parts[0].startswith(".") and not any(part.startswith(files.TEMPORARY) for part in parts)


def is_part(name: str) -> bool:
    """Return whether an object of this name belongs to a unit's part."""
    return name.startswith(f"{PARTS}/")


def _is_below(name: str, folder: str) -> bool:
    return not folder or name == folder or name.startswith(f"{folder}/")


def _is_safe(name: str) -> bool:
    """Return whether an object's name, which may be a stranger's, is a path inside the copy."""
    path = PurePosixPath(name)
    return (
        not path.is_absolute() and ".." not in path.parts and not set(name) & _FORBIDDEN and _is_copied(name)
    )
