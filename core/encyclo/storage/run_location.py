"""The folder in which a command works on a run: the run's own, or a working copy of a run on an object store.

`opened` is for commands that write (they hold the run's lease), `fetched` for those that only read, `join` for workers
in other processes. All of them return a local path as it is.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, partial, wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from filelock import FileLock, Timeout

from encyclo.errors import RunDirectoryError, StoreError
from encyclo.storage import files, late_files, lease
from encyclo.storage.cache import cache_folder
from encyclo.storage.object_errors import ADVICE, ENDPOINTS
from encyclo.storage.objects import EXAMPLE, Found, Objects, url_of
from encyclo.storage.working_copy import (
    COPYING,
    RECORD,
    WorkingCopy,
    address_of,
    is_part,
    remove_half_a_copy,
)

P = ParamSpec("P")
T = TypeVar("T")
SEAL = "seal.json"
WORKER = "encyclo-worker-"
"""How the folder begins in which a worker has a copy of its own."""
SECONDS_TO_LOCK = 60.0
"""A worker has locked its folder by then."""


@contextmanager
def opened(out: Path | str, *, parts: bool = True, fresh: bool = False) -> Iterator[Path]:
    """Give the folder in which a command may change the run `out`; it is `out` itself unless that is a URL.

    Of a URL it is a working copy, without the parts if the command doesn't need them; with `fresh`, nothing of an
    earlier copy is trusted. Raises RunDirectoryError if another process changes the run or if other objects are there,
    StoreError if the object store can't be used.
    """
    if (url := url_of(out)) is None:
        yield Path(out)
        return
    root = _folder(url) / "run"
    with ExitStack() as stack:
        with _sentence("use", url):
            objects = Objects(url)
            stack.enter_context(_locked(root, url))
            copy = WorkingCopy(objects, root, stack.enter_context(lease.leased(objects)))
            there = objects.list()
            remove_half_a_copy(objects, there)
            if RECORD not in there and any(map(_is_other, there)):
                raise _other_files(url)
            copy.pull(there, lambda name: parts or not is_part(name), fresh)
        stack.callback(copy.write_notes)
        with files.using(copy):
            yield root
        with _sentence("write", url):
            copy.push_rest()


def join(run: Path, url: str, is_here: bool) -> Path:
    """Let this process, a worker of the command that works in `run`, write into the run at `url` until it ends.

    Returns the folder to work in: `run` if that `is_here`, on another machine a copy of its own. The store decides
    between two attempts at a unit. Raises StoreError if the object store can't be used.
    """
    if not url:
        return run
    with _sentence("use", url):
        copy = WorkingCopy(Objects(url), run if is_here else _worker_folder() / "run", alone=not is_here)
        copy.refresh()
    files.use(copy)
    return copy.root


def _worker_folder() -> Path:
    """Make a folder for this process; remove those of workers that were killed before they could."""
    for folder in Path(tempfile.gettempdir()).glob(f"{WORKER}*"):
        with suppress(OSError):  # it is another user's, or its worker lives
            if time.time() - folder.stat().st_mtime > SECONDS_TO_LOCK:
                with FileLock(folder / ".lock", blocking=False):
                    shutil.rmtree(folder)
    folder = Path(tempfile.mkdtemp(prefix=WORKER))
    lock = FileLock(folder / ".lock")
    lock.acquire()
    atexit.register(_remove, folder, lock)
    return folder


def _remove(folder: Path, lock: FileLock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()


def in_working_copy(
    parts: bool = True,
) -> Callable[[Callable[Concatenate[Path, P], T]], Callable[Concatenate[Path, P], T]]:
    """Let a function that changes a run, its first argument, also take a URL: it gets a folder from `opened`."""

    def decorated(command: Callable[Concatenate[Path, P], T]) -> Callable[Concatenate[Path, P], T]:
        @wraps(command)
        def call(run: Path, /, *more: P.args, **named: P.kwargs) -> T:
            with opened(run, parts=parts) as folder:
                return command(folder, *more, **named)

        return call

    return decorated


def fetched(run: Path | str, *, parts: bool = False, fresh: bool = False, record: bool = False) -> Path:
    """Return the folder with the run `run`, for reading: `run` itself, or of a URL a copy of it in the cache.

    A copy has the parts of an unfinished run; with `parts`, also those of a finished one, whose activations otherwise
    come when they are read (see `late_files`); with `record`, run.json alone, if there is a run. Raises StoreError if
    the object store can't be used, with `record` also RunDirectoryError if other objects are there.
    """
    if (url := url_of(run)) is None:
        return Path(run)
    root = _folder(url) / "read"  # apart from a running command's copy, which may be ahead of the store
    with _sentence("read", url), FileLock(f"{root}.lock"):
        objects = Objects(url, make=None if record else False)
        copy = WorkingCopy(objects, root)
        is_run = objects.has(RECORD)
        if not is_run:
            others = objects.holds_any(_is_other)  # also raises if there is no bucket
            if record and others and not objects.has(COPYING):  # a run removes half a copy
                raise _other_files(url)
        there = objects.list() if is_run else {}  # else it may be a bucket with much else in it
        if record or parts or SEAL not in there:
            if not record:
                late_files.forget(root)
            copy.pull(there, lambda name: not record or name == RECORD, fresh)
        else:
            _pull_without_activations(copy, there)
        copy.write_notes()
    return root


def _is_other(name: str) -> bool:
    """Return whether an object, by its name, shows that there is something, if it isn't a run."""
    return not lease.is_lease(name)


def _other_files(url: str) -> RunDirectoryError:
    return RunDirectoryError(
        f"--out {url} holds other files and no run.json; choose an empty or a new folder, {EXAMPLE}."
    )


def _pull_without_activations(copy: WorkingCopy, there: dict[str, Found]) -> None:
    """Copy a finished run without its parts, and its activations only when they are read. Raises OSError."""
    copy.pull(there, lambda name: name == SEAL)
    copy.write_notes()
    outside = {
        name: ranges for name, ranges in late_files.outside_activations(copy.root).items() if name in there
    }
    copy.pull(there, lambda name: not is_part(name) and name not in outside)
    copy.write_notes()
    late_files.forget(copy.root)
    for name in copy.pull_without_bulk(there, outside):
        late_files.expect(copy.root / name, partial(_bring, copy, name))


def _bring(copy: WorkingCopy, name: str) -> None:
    with _sentence("read", address_of(copy.root)), FileLock(f"{copy.root}.lock"):
        copy.bring(name)


def _folder(url: str) -> Path:
    """Return the cache's folder for a run; an in-memory one ends with the process, and so does its folder."""
    key = hashlib.sha256(
        "\n".join(
            [url, *(os.environ.get(name, "") for name in (*ENDPOINTS, "AZURE_STORAGE_ACCOUNT_NAME"))]
        ).encode()
    ).hexdigest()
    base = _temporary() if url.startswith("memory:") else cache_folder().absolute() / "objects"
    folder = base / key[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@cache
def _temporary() -> Path:
    folder = tempfile.mkdtemp(prefix="encyclo-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@contextmanager
def _locked(root: Path, url: str) -> Iterator[None]:
    """Lock a working copy on this machine. Raises RunDirectoryError if a process has it."""
    lock = FileLock(f"{root}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise RunDirectoryError(
            f"{url} is in use by another process of this machine; wait for it to end, or choose another --out."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _sentence(verb: str, url: str) -> Iterator[None]:
    """Turn an OSError into a StoreError of one sentence."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StoreError(
            f"Can't {verb} {url}: {reason}; {getattr(error, 'advice', ADVICE)} and run the same command again."
        ) from error
