"""Which worker processes may write into a run: those of the command that runs it now.

A worker in another process holds a lock in .workers/ as long as it lives, and has read the token of its command there.
The next command removes the token, so that no further worker starts, and waits for the locks of those that live.
Only then may it remove parts that were never committed: nobody else is about to commit one of them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from encyclo.errors import RunDirectoryError, StoreError
from encyclo.storage import files, safe_read

FOLDER = ".workers"
TOKEN = "token"
PATIENCE = 60.0
"""Seconds to wait for an earlier command's workers: each ends by itself when it finds its command gone."""

SECONDS_UNTIL_SEEN = 30.0
"""How long another machine's file may take to appear here: a network file system keeps old listings."""


def admit(run: Path) -> str:
    """Let workers of this process's command into `run`; return the token that they must find there."""
    token = uuid.uuid4().hex
    files.make_folder(run / FOLDER)
    files.write_text(run / FOLDER / TOKEN, token)
    return token


def admits(run: Path, token: str) -> bool:
    """Return whether this machine finds a command's token in `run`."""
    try:
        return safe_read.read_text(run / FOLDER / TOKEN, at_most=safe_read.LOCK_FILE, within=run) == token
    except (OSError, StoreError):
        return False


def place() -> str:
    """Return this machine and process, for messages."""
    return f"{socket.gethostname()}, process {os.getpid()}"


def enter(run: Path, token: str) -> FileLock:
    """Return the lock of this process's worker, which it holds until it ends. Raises RunDirectoryError."""
    if not admits(run, token):
        raise unseen(run)
    lock = FileLock(run / FOLDER / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.lock")
    try:
        lock.acquire(blocking=False)
    except OSError as error:
        raise unseen(run) from error
    if not admits(run, token):  # any more: a later command removes the token before it looks for locks
        lock.release()
        raise unseen(run)
    return lock


def wait_for(look: Callable[[], object], missing: str) -> None:
    """Wait until `look` finds what another machine wrote. Raises RunDirectoryError, which begins with `missing`."""
    until = time.monotonic() + SECONDS_UNTIL_SEEN
    while not look():
        if time.monotonic() > until:
            raise RunDirectoryError(
                f"{missing}; give --out a folder on a file system that all machines share."
            )
        time.sleep(0.2)


def unseen(run: Path | str) -> RunDirectoryError:
    """Return the error of a worker that doesn't find its command's run."""
    return RunDirectoryError(
        f"The worker on {place()} doesn't see the run in {run}; give --out a folder on a file system that all "
        "machines share, under the same path, or on an object store."
    )


def clear(run: Path, patience: float = PATIENCE) -> None:
    """Wait until no worker of another command writes into `run`. Raises RunDirectoryError naming one that does.

    Only for the holder of the run's lock.
    """
    folder = run / FOLDER
    if not folder.is_dir():
        return
    (folder / TOKEN).unlink(missing_ok=True)
    for path in sorted(folder.glob("*.lock")):
        lock = FileLock(path)
        try:
            lock.acquire(timeout=patience)
        except Timeout as error:
            raise RunDirectoryError(
                f"{run} is still in use by a worker of an earlier command ({path.stem}); end that process, then run "
                "the same command again."
            ) from error
        lock.release()
    with contextlib.suppress(OSError):
        shutil.rmtree(folder)
