"""A lease on a run on an object store: one process at a time changes it, and a dead one's lease expires.

Leases are numbered objects. The one with the highest number counts, and each is created only if it doesn't exist, so
that of two processes that take over an expired lease exactly one succeeds. Its process renews it, and who takes over
ends it, only if it still is what was read. So one of both fails, except on a disk, which can't compare and write in
one step. Commits are safe even while two processes believe that they hold the lease (see `encyclo.storage.ledger`).
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from encyclo.errors import RunDirectoryError, StoreError
from encyclo.storage.objects import Objects
from encyclo.storage.safe_read import parse_json

FOLDER = ".lease"
SECONDS, RENEWED = 90.0, 15.0
"""How long a lease lasts, and how often it is renewed."""


class Lease:
    """A lease that a thread renews until `release`."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._own = {
            "owner": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "began": _began(os.getpid()),
        }
        begun = time.monotonic()
        self._number = self._acquire()
        self._until = begun + SECONDS
        self._lost = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="encyclo lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise StoreError if another process has taken over, or if the lease could not be renewed in time."""
        if not self._lost and time.monotonic() > self._until:
            self._lost = "this process could not renew its lease in time"
        if self._lost:
            raise StoreError(
                f"Can't go on writing {self._objects.url}: {self._lost}; run the same command again to continue."
            )

    def release(self) -> None:
        """End the lease; an object store that can't be reached keeps it until it expires."""
        self._ended.set()
        self._thread.join()
        with suppress(OSError):
            if self._is_own(self._objects.read(_name(self._number))):
                self._objects.delete([_name(self._number)])

    def _acquire(self) -> int:
        """Create a lease after the last one. Raises RunDirectoryError if that holds, OSError."""
        numbers = self._numbers()
        if numbers:
            self._end_old(numbers[-1])
        number = numbers[-1] + 1 if numbers else 1
        if self._objects.create(_name(number), self._content()) is None:
            raise self._in_use("a process that has just begun")
        self._objects.delete(map(_name, numbers))
        return number

    def _end_old(self, number: int) -> None:
        """Write into a lease that is over that it is: its process can't renew it any more. Raises RunDirectoryError."""
        try:
            content, version = self._objects.read_version(_name(number))
        except FileNotFoundError:
            return
        there = _parsed(content)
        if there is None:
            return
        if not _is_over(there):
            left = max(1, round(there["until"] - time.time()))
            raise RunDirectoryError(
                f"{self._objects.url} is in use by process {there['process']} on {there['host']}; wait for it to "
                f"end (its lease expires in {left} s if it is dead), or choose another --out."
            )
        if not self._objects.replace(_name(number), json.dumps({"ended by": self._own}).encode(), version):
            raise self._in_use("a process that has just begun or renewed its lease")

    def _in_use(self, who: str) -> RunDirectoryError:
        return RunDirectoryError(
            f"{self._objects.url} is in use by {who}; wait for it to end, or choose another --out."
        )

    def _is_own(self, content: bytes) -> bool:
        """Return whether it is this lease that was read; after a release, another one may have its number."""
        there = _parsed(content)
        return there is not None and there.get("owner") == self._own["owner"]

    def _numbers(self) -> list[int]:
        found = (name.rpartition("/")[2] for name in self._objects.list(FOLDER))
        return sorted(int(number) for number in found if number.isdecimal())

    def _content(self) -> bytes:
        return json.dumps({**self._own, "until": time.time() + SECONDS}).encode()

    def _renew(self) -> None:
        while not self._ended.wait(RENEWED):
            begun = time.monotonic()
            with suppress(OSError):
                if not self._is_renewed():
                    self._lost = "another process has taken over"
                    return
                self._until = begun + SECONDS

    def _is_renewed(self) -> bool:
        """Renew the lease, unless another one counts or has its name by then. Raises OSError."""
        while self._numbers()[-1:] == [self._number]:
            try:
                content, version = self._objects.read_version(_name(self._number))
            except FileNotFoundError:
                return False
            if not self._is_own(content):
                return False
            if self._objects.replace(_name(self._number), self._content(), version):
                return True
        return False


@contextmanager
def leased(objects: Objects) -> Iterator[Lease]:
    """Hold a lease for the block. Raises RunDirectoryError naming the process that has one, OSError."""
    lease = Lease(objects)
    try:
        yield lease
    finally:
        lease.release()


def is_lease(name: str) -> bool:
    """Return whether an object of this name is a lease."""
    return name.startswith(f"{FOLDER}/")


def _name(number: int) -> str:
    return f"{FOLDER}/{number:06d}"


def _parsed(content: bytes) -> dict[str, Any] | None:
    """Return what a lease says; None if it is nobody's."""
    try:
        found = parse_json(content)
        times = {key: float(found[key]) for key in ("until", "began")}
        return {"host": "another machine", "process": "?", **found, **times}
    except (ValueError, KeyError, TypeError):
        return None


def _is_over(there: dict[str, Any]) -> bool:
    """Return whether a lease has expired, or its process was one of this machine and is dead."""
    if time.time() > there["until"]:
        return True
    began = _began(there["process"]) if there["host"] == socket.gethostname() else there["began"]
    return began is None or abs(began - there["began"]) > 2


def _began(process: int) -> float | None:
    """Return when a process of this machine began; None if there is none."""
    import psutil

    try:
        return float(psutil.Process(process).create_time())
    except (psutil.Error, ValueError, TypeError):
        return None
