"""Writes that survive a crash: temporary file in the same folder, fsync, atomic replace, fsync the folder.

Every call that changes a run directory goes through the `Disk` in use, so that a test can make the n-th one
fail, or be the last one before a power cut (`encyclo.testing.faults.disks`). If the disk refuses a call (it is full,
read-only or broken), the error is one sentence that names the file and the remedy.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from encyclo.errors import StoreError
from encyclo.regular_files import open_file

TEMPORARY = ".tmp-"


class Disk:
    """The calls by which encyclo changes what is on the disk; a subclass may count them, fail or stop."""

    def write(self, path: Path, data: bytes) -> None:
        """Write a file; it may be lost in a power cut until it is synced."""
        path.write_bytes(data)

    def begin(self, path: Path) -> None:
        """Record that a library (h5py, zarr, safetensors) is about to write `path` by itself."""

    def written(self, path: Path) -> None:
        """Record that a library has written `path`; nothing of it is synced."""

    def sync_file(self, path: Path) -> None:
        """Flush a file's data to the disk."""
        with path.open("rb+") as handle:
            os.fsync(handle.fileno())

    def sync_folder(self, path: Path) -> None:
        """Flush a folder's entries to the disk, where the system can open folders."""
        if os.name == "nt":
            return
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def replace(self, source: Path, target: Path) -> None:
        """Give `source` the name `target`, atomically; a file or an empty folder there is replaced."""
        os.replace(source, target)

    def link(self, source: Path, target: Path) -> None:
        """Give `source` a second name. Raises FileExistsError if it is taken."""
        os.link(source, target)

    def make_folder(self, path: Path) -> None:
        """Make a folder whose parent exists."""
        path.mkdir()

    def fetch(self, path: Path) -> None:
        """Bring a commit record, and its part, from where the run is; do nothing if it is here, or nowhere."""

    def refresh(self) -> None:
        """Bring everything but parts that has changed where the run is."""

    def fetch_parts(self, names: Iterable[str]) -> None:
        """Bring files of parts, by their paths below parts/; do nothing for those that are here."""

    def remove(self, path: Path) -> None:
        """Remove a file, or a folder with its content; do nothing if it is missing."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


class LateFile(io.FileIO):
    """A new file whose first failed call raises nothing: the error is kept in `refusal`, and nothing more is written.

    For a library that can't handle a failed write: libhdf5 2.0 ends the process.
    """

    def __init__(self, path: Path) -> None:
        self.refusal: OSError | None = None
        super().__init__(path, "w+b")

    def write(self, data: Any) -> int:
        """Write all of `data`; keep the error if that fails."""
        view = memoryview(data).cast("B")
        length = len(view)
        while len(view) and self.refusal is None:
            try:
                view = view[super().write(view) :]
            except OSError as error:
                self.refusal = error
        return length

    def truncate(self, size: int | None = None) -> int:
        """Change the file's size; keep the error if that fails."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.refusal = self.refusal or error
            return self.tell() if size is None else size


@contextmanager
def late_file(path: Path) -> Iterator[LateFile]:
    """Give a file for a library that can't handle a failed write; raise the first OSError at the end."""
    with LateFile(path) as file:
        yield file
        if file.refusal is not None:
            raise file.refusal


_disk = Disk()


def use(disk: Disk) -> None:
    """Let every write of this process go through `disk` from now on."""
    global _disk
    _disk = disk


@contextmanager
def using(disk: Disk) -> Iterator[None]:
    """Let every write of this process go through `disk` while the block runs."""
    global _disk
    before, _disk = _disk, disk
    try:
        yield
    finally:
        _disk = before


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a temporary path in the folder of `target`; at the end, the file there replaces `target`, durably.

    On an error the temporary file is removed and `target` stays as it was. Raises StoreError if the disk
    refuses.
    """
    temporary = _temporary_path(target)
    with _explained(target), _removed(temporary):
        _disk.begin(temporary)
        yield temporary
        _disk.written(temporary)
        _put_in_place(temporary, target)


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Give a new, empty folder next to `target`; at the end it replaces `target` with its content, durably.

    A folder can't be replaced in one step: a crash between the two leaves no `target`, never a mixed one.
    Raises StoreError if the disk refuses.
    """
    temporary, old = _temporary_path(target), _temporary_path(target)
    with _explained(target), _removed(temporary), _removed(old):
        _disk.begin(temporary)
        _disk.make_folder(temporary)
        yield temporary
        _disk.written(temporary)
        sync_tree(temporary)
        if target.exists():
            _disk.replace(target, old)
        _disk.replace(temporary, target)
        _disk.sync_folder(target.parent)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a new, empty folder beside `target`; with what was written there it becomes `target`, durably.

    Its name depends on `target` alone, so the next call removes what a killed process left. Raises StoreError if
    `target` is there and not an empty folder, if another process writes it, or if the disk refuses.
    """
    target = target.absolute()
    make_folder(target.parent)
    temporary = target.with_name(f"{TEMPORARY}{target.name}")
    lock = FileLock(temporary.with_name(f"{temporary.name}.lock"))
    with _explained(target):
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise StoreError(f"Another process is writing {target}; wait for its end.") from error
        except NotImplementedError as error:  # a file system without locks
            raise StoreError(
                f"Can't write {target}: its file system has no locks; choose another."
            ) from error
        try:
            _disk.remove(temporary)
            with _removed(temporary):
                _disk.begin(temporary)
                _disk.make_folder(temporary)
                yield temporary
                _disk.written(temporary)
                sync_tree(temporary)
                _disk.replace(temporary, target)
                _disk.sync_folder(target.parent)
        finally:
            with contextlib.suppress(OSError):
                _disk.remove(Path(lock.lock_file))
            lock.release()


def write_text(target: Path, text: str) -> None:
    """Replace `target` with `text` (UTF-8), durably. Raises StoreError if the disk refuses."""
    temporary = _temporary_path(target)
    with _explained(target), _removed(temporary):
        _disk.write(temporary, text.encode("utf-8"))
        _put_in_place(temporary, target)


def write_json(target: Path, value: Any) -> None:
    """Replace `target` with `value` as indented JSON; a NaN raises ValueError (JSON has none)."""
    write_text(target, json_text(value))


def json_text(value: Any) -> str:
    """Return `value` as `write_json` writes it. Raises ValueError for a NaN."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def create_json(target: Path, value: Any) -> bool:
    """Create `target` durably unless it exists; return whether this call created it. First wins."""
    temporary = _temporary_path(target)
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    with _explained(target), _removed(temporary):
        _disk.write(temporary, text.encode("utf-8"))
        _disk.sync_file(temporary)
        try:
            _disk.link(temporary, target)  # fails if the target exists; the target is never half-written
        except FileExistsError:
            return False
        _disk.sync_folder(target.parent)
    return True


def make_folder(path: Path) -> None:
    """Make a folder and those above it, durably, unless they exist. Raises StoreError if the disk refuses."""
    if path.is_dir():
        return
    if path.parent != path:
        make_folder(path.parent)
    with _explained(path):
        try:
            _disk.make_folder(path)
        except FileExistsError:
            if not path.is_dir():  # if it is one, another process has just made it
                raise
        _disk.sync_folder(path.parent)


def remove(path: Path) -> None:
    """Remove a file, or a folder with its content; do nothing if it is missing. Raises StoreError."""
    with _explained(path):
        _disk.remove(path)


def fetch(path: Path) -> None:
    """Bring a commit record that another machine wrote, and its part, if the run is on an object store."""
    with _explained(path):
        _disk.fetch(path)


def refresh(run: Path) -> None:
    """Bring what other machines wrote, if this process has a copy of its own of a run on an object store.

    Parts come with `fetch_parts`.
    """
    with _explained(run):
        _disk.refresh()


def fetch_parts(run: Path, names: Iterable[str]) -> None:
    """Bring files of parts, by their paths below parts/, if this process has a copy of its own, as in `refresh`."""
    with _explained(run):
        _disk.fetch_parts(names)


def sync_file(path: Path) -> None:
    """Flush a file's data to the disk."""
    _disk.sync_file(path)


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to the disk, where the system can open folders."""
    _disk.sync_folder(path)


def sync_tree(folder: Path) -> None:
    """Flush a folder, the files in it and those in the folders below it."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            sync_tree(path)
        else:
            _disk.sync_file(path)
    _disk.sync_folder(folder)


def sha256_of(path: Path, at_most: int | None = None) -> str:
    """Return the sha256 of a regular file's bytes, in hexadecimal. Raises DamagedError beyond `at_most` bytes."""
    with open_file(path, at_most=at_most) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _temporary_path(target: Path) -> Path:
    return target.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:12]}{target.suffix}")


def _put_in_place(temporary: Path, target: Path) -> None:
    _disk.sync_file(temporary)
    _disk.replace(temporary, target)
    _disk.sync_folder(target.parent)


@contextmanager
def _removed(temporary: Path) -> Iterator[None]:
    """Remove what is left at the end; if the disk refuses that too, the first error must still be raised."""
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            _disk.remove(temporary)


_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or have the quota raised",
    errno.EACCES: "give this user permission to write there",
    errno.EPERM: "give this user permission to write there",
    errno.EROFS: "make the file system writable",
}


def remedy(error: OSError, otherwise: str) -> str:
    """Return what to do about the system's refusal to write; `otherwise` for an error of another kind."""
    return _REMEDIES.get(error.errno or 0, otherwise)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn an OSError into a StoreError: one sentence that names the file and the remedy."""
    try:
        yield
    except OSError as error:
        advice = getattr(error, "advice", None) or remedy(error, "check the disk")
        # A library's own text may have many lines and addresses; the system's is short.
        reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split()).rstrip(".")
        raise StoreError(
            f"Can't write {path}: {reason}; {advice} and run the same command again to continue."
        ) from error
