"""The objects of a run on an object store: list, read, write, create and delete them, by their names in the run.

obstore reads the credentials from the environment. Every failure is one of the errors of `object_errors`.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from encyclo.errors import UsageError
from encyclo.optional_packages import require
from encyclo.storage.object_errors import (
    ENDPOINTS,
    ObjectMissingError,
    ObjectStoreError,
    explained,
    is_bucket_missing,
    reason,
)

T = TypeVar("T")
Version = dict[str, str]
"""What a store says of an object to tell it from those that had its name before."""
SCHEMES = ("s3", "gs", "az", "file", "memory")
EXAMPLE = "such as s3://bucket/run"
ONE_REQUEST = 2**27
"""A larger file is uploaded in several requests; a killed process may leave some of them in the bucket, unseen."""
PIECE = 2**26
"""How much of an object is read at a time if only some ranges of it are wanted, in bytes."""
WAITS = (0.1, 0.4, 1.6, 3.2)
"""Seconds before each further try of a write. obstore itself has tried again after most errors by then."""
RETRIES: Any = {"max_retries": 11, "retry_timeout": timedelta(minutes=2)}
"""What obstore does after an error of the network or the server."""
_URL = re.compile(r"([a-z][a-z0-9+.-]+):(/+)(.*)", re.DOTALL)
_memory: dict[str, Any] = {}
"""This process's in-memory stores, by bucket."""


class Found(NamedTuple):
    """What a listing says of an object."""

    size: int
    e_tag: str


def url_of(path: Path | str) -> str | None:
    """Return the URL that `path` is, without a slash at its end; None for a local path.

    pathlib joins slashes, so s3:/bucket/run is s3://bucket/run. Raises UsageError for a URL that can't hold a run; its
    text may have a password and is not shown then.
    """
    match = _URL.fullmatch(Path(path).as_posix() if isinstance(path, Path) else path)
    if match is None:
        return None
    scheme, _, rest = match.groups()
    place = rest.strip("/")
    if re.search(r"[?#\0]|^[^/]*@", place):
        raise UsageError(
            "The URL of a run has no user, password, query or fragment: name only bucket and folder, "
            f"{EXAMPLE}; credentials come from the environment (docs/object-stores.md)."
        )
    if scheme not in SCHEMES:
        raise UsageError(
            f"{scheme}://{place} is on no object store that encyclo knows; use {', '.join(SCHEMES)}, {EXAMPLE}."
        )
    if "/" not in place or {"", ".", ".."} & set(place.split("/")):
        raise UsageError(f"{scheme}://{place} names no folder in a bucket; name one, {EXAMPLE}.")
    return f"{scheme}://{'/' * (scheme == 'file')}{place}"


def folder_of(url: str) -> Path | None:
    """Return the folder that a file URL names; None for other URLs."""
    scheme, _, place = url.partition("://")
    return Path(place) if scheme == "file" else None


def is_remote(url: str | None) -> bool:
    """Return whether a URL, if it is one, names no folder of this machine, whose files other programs can open."""
    return url is not None and url != "" and folder_of(url) is None


class Objects:
    """The objects below a URL that `url_of` has checked.

    The folder of a file URL is made with `make`; without, it must exist, or with None counts as empty if it doesn't.
    Raises OSError, MissingDependencyError without obstore.
    """

    def __init__(self, url: str, make: bool | None = True) -> None:
        require("obstore", url, "objects")
        import obstore
        import obstore.store

        self.url, self._obstore = url, obstore
        scheme, _, place = url.partition("://")
        bucket, _, prefix = place.partition("/")
        self._prefix = ""
        with self._plain():
            if scheme == "memory":
                self._store: Any = _memory.setdefault(bucket, obstore.store.MemoryStore())
                self._prefix = f"{prefix}/"
            elif scheme == "file":
                folder = Path(place)
                while make is None and not folder.exists():
                    folder = folder.parent
                self._prefix = "".join(f"{part}/" for part in Path(place).relative_to(folder).parts)
                self._store = obstore.store.LocalStore(folder, automatic_cleanup=True, mkdir=bool(make))
            else:
                self._store = obstore.store.from_url(
                    f"{scheme}://{bucket}/{quote(prefix)}",
                    client_options={
                        "timeout": timedelta(minutes=5),
                        "connect_timeout": timedelta(seconds=10),
                        # A setting of its own in obstore; here a store whose URL says http is one without TLS.
                        "allow_http": any(os.environ.get(n, "").startswith("http://") for n in ENDPOINTS),
                    },
                    retry_config=RETRIES,
                )

    def ranges(self, name: str, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        """Yield the bytes in ascending ranges (start, end) of an object, in pieces, each with its start.

        They are fetched a piece of the object at a time, with the bytes between ranges that are close to each other.
        Raises FileNotFoundError, OSError.
        """
        for starts, ends in _within_pieces(ranges):
            with self._plain():
                found = self._obstore.get_ranges(self._store, self._prefix + name, starts=starts, ends=ends)
            for start, some in zip(starts, found, strict=True):
                yield start, bytes(some)

    def list(self, folder: str = "") -> dict[str, Found]:
        """Return every object, or those in a folder, by name. Raises OSError."""
        with self._plain():
            return {
                found["path"].removeprefix(self._prefix): Found(found["size"], str(found["e_tag"]))
                for block in self._obstore.list(self._store, prefix=self._prefix + folder or None)
                for found in block
            }

    def blocks(self, name: str) -> Iterator[bytes]:
        """Yield an object's bytes. Raises FileNotFoundError, OSError."""
        with self._plain():
            for block in self._obstore.get(self._store, self._prefix + name).stream():
                yield bytes(block)

    def read(self, name: str) -> bytes:
        """Return a small object's bytes. Raises FileNotFoundError, OSError."""
        return b"".join(self.blocks(name))

    def read_version(self, name: str) -> tuple[bytes, Version]:
        """Return a small object's bytes and which version they are. Raises FileNotFoundError, OSError."""
        with self._plain():
            found = self._obstore.get(self._store, self._prefix + name)
            known = {"e_tag": found.meta["e_tag"], "version": found.meta["version"]}
            return bytes(found.bytes()), {key: value for key, value in known.items() if value is not None}

    def has(self, name: str) -> bool:
        """Return whether there is an object of this name. Raises OSError."""
        try:
            with self._plain():
                self._obstore.head(self._store, self._prefix + name)
        except FileNotFoundError:
            return False
        return True

    def holds_any(self, wanted: Callable[[str], bool]) -> bool:
        """Return whether some object's name is wanted; list no further. Raises OSError, also if there is no bucket."""
        with self._plain():
            return any(
                wanted(found["path"].removeprefix(self._prefix))
                for block in self._obstore.list(self._store, prefix=self._prefix or None)
                for found in block
            )

    def put(self, name: str, content: Path | bytes) -> str:
        """Write an object, replacing an older one; return its e_tag. Raises OSError."""
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        return self._tried(lambda: str(self._put(name, content, use_multipart=size > ONE_REQUEST)["e_tag"]))

    def create(self, name: str, content: bytes) -> str | None:
        """Write an object unless it exists; return its e_tag, None if another call wrote it. Raises OSError.

        An equal object is this call's: an earlier try wrote it, and the answer was lost (its e_tag is "" then). So no
        two calls may have the same content.
        """
        taken = (self._obstore.exceptions.AlreadyExistsError, self._obstore.exceptions.PreconditionError)

        def attempt() -> str | None:
            try:
                return str(self._put(name, content, mode="create", use_multipart=False)["e_tag"])
            except taken:
                # obstore says so of a 409, too: if nothing is there, reading fails, for another try.
                return "" if self.read(name) == content else None

        return self._tried(attempt)

    def replace(self, name: str, content: bytes, version: Version) -> bool:
        """Write an object if it is there in this version; return whether it has this content now. Raises OSError.

        A disk can't compare and write in one step: there it is written whatever is there. An equal object is this
        call's, as in `create`.
        """
        errors = self._obstore.exceptions

        def attempt() -> bool:
            try:
                self._put(name, content, mode=version, use_multipart=False)
            except NotImplementedError:
                self._put(name, content)
            except (errors.PreconditionError, errors.NotFoundError) as error:
                if is_bucket_missing(error):
                    raise
                return self._holds(name, content)
            return True

        return self._tried(attempt)

    def _holds(self, name: str, content: bytes) -> bool:
        try:
            return self.read(name) == content
        except FileNotFoundError:
            return False

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; one that is gone is no error. Raises OSError."""
        paths = [self._prefix + name for name in names]
        try:
            with self._plain():
                self._obstore.delete(self._store, paths)
        except FileNotFoundError:  # which ends the call on a disk, perhaps before the last one
            for path in paths:
                with contextlib.suppress(FileNotFoundError), self._plain():
                    self._obstore.delete(self._store, path)

    def _put(self, name: str, content: Path | bytes, **how: Any) -> Any:
        return self._obstore.put(self._store, self._prefix + name, content, **how)

    def _tried(self, attempt: Callable[[], T]) -> T:
        """Call `attempt` until it succeeds, at most five times; 409 and lost connections are worth another try."""
        errors = self._obstore.exceptions
        again = (errors.GenericError, errors.AlreadyExistsError, errors.PreconditionError, FileNotFoundError)
        with self._plain():
            for wait in WAITS:
                try:
                    return attempt()
                except again as error:
                    if is_bucket_missing(error):
                        raise
                    time.sleep(wait)
            return attempt()

    @contextmanager
    def _plain(self) -> Iterator[None]:
        """Turn obstore's errors into an OSError of one short line."""
        errors = self._obstore.exceptions
        try:
            yield
        except (ObjectStoreError, ObjectMissingError):
            raise
        except (errors.BaseError, OSError, ValueError) as error:
            is_missing = isinstance(error, errors.NotFoundError | FileNotFoundError)
            if is_missing and not is_bucket_missing(error):
                raise ObjectMissingError(reason(error)) from None
            raise explained(error, self.url) from None


def _within_pieces(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[list[int], list[int]]]:
    """Cut ascending ranges into groups of starts and ends, none longer than PIECE from its begin to its end."""
    starts, ends = list[int](), list[int]()
    for first, last in ranges:
        for start in range(first, last, PIECE):
            end = min(last, start + PIECE)
            if starts and end - starts[0] > PIECE:
                yield starts, ends
                starts, ends = [], []
            starts.append(start)
            ends.append(end)
    if starts:
        yield starts, ends
