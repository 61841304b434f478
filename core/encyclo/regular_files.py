"""Opens and reads regular files only, without waiting: no named pipe, no device, no file beyond its limit.

What a run or a model holds may be downloaded, and a link to /dev/zero, a named pipe or a huge sparse file in it
would hang the process or fill the machine. Each is refused in one sentence that names the file.
"""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

from encyclo.errors import DamagedError, EncycloError

RESTORE = "restore it from a copy, or repeat `encyclo run` with a new --out"

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_FLAGS = sum(getattr(os, flag, 0) for flag in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"))
"""O_NONBLOCK: opening a named pipe would wait for its writer."""


def open_file(
    path: Path,
    *,
    within: Path | None = None,
    at_most: int | None = None,
    advice: str = RESTORE,
    error: type[EncycloError] = DamagedError,
) -> io.BufferedReader:
    """Open a regular file for reading, without waiting for anything.

    A link may lead to a regular file, with `within` only to one inside that folder. `at_most` limits the size in
    bytes. Raises `error`: what is wrong with the file, and the `advice` (the end of a sentence).
    """
    return io.BufferedReader(open_raw(path, within=within, at_most=at_most, advice=advice, error=error))


def open_raw(
    path: Path,
    *,
    within: Path | None = None,
    at_most: int | None = None,
    advice: str = RESTORE,
    error: type[EncycloError] = DamagedError,
) -> io.FileIO:
    """Open a regular file as `open_file` does, without a buffer: a read takes no more than it is asked for."""
    try:
        handle = os.open(path, os.O_RDONLY | _FLAGS)
    except (OSError, ValueError) as problem:  # ValueError: a NUL in the path
        raise refusal(path, _reason(problem), advice, error) from problem
    try:
        if reason := _fault(path, os.fstat(handle), within, at_most):
            raise refusal(path, reason, advice, error)
        return io.FileIO(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bytes(
    path: Path,
    *,
    at_most: int,
    within: Path | None = None,
    advice: str = RESTORE,
    error: type[EncycloError] = DamagedError,
) -> bytes:
    """Return the bytes of a regular file, at most `at_most`. Raises `error` as `open_file` does."""
    with open_file(path, within=within, at_most=at_most, advice=advice, error=error) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            data = file.read(size + 1)
        except OSError as problem:
            raise refusal(path, _reason(problem), advice, error) from problem
    if len(data) > size:
        raise refusal(path, "it grows while it is read", advice, error)
    return data


def read_text(
    path: Path,
    *,
    at_most: int,
    within: Path | None = None,
    advice: str = RESTORE,
    error: type[EncycloError] = DamagedError,
) -> str:
    """Return the text of a regular file in UTF-8. Raises `error` as `open_file` does."""
    data = read_bytes(path, at_most=at_most, within=within, advice=advice, error=error)
    try:
        return decode_utf8(data)
    except ValueError as problem:
        raise refusal(path, str(problem), advice, error) from problem


def refusal(path: Path, reason: str, advice: str, error: type[EncycloError]) -> EncycloError:
    """Return the error that says why a file can't be read, and what to do."""
    return error(f"{path} can't be read: {reason}; {advice}.")


def _fault(path: Path, status: os.stat_result, within: Path | None, at_most: int | None) -> str | None:
    """Return why an open file must not be read, None if it may be."""
    if not stat.S_ISREG(status.st_mode):
        return f"it is {_KINDS.get(stat.S_IFMT(status.st_mode), 'something else')}, not a file"
    if at_most is not None and status.st_size > at_most:
        return _too_large(status.st_size, at_most)
    if within is not None:
        real = os.path.realpath(path)
        # Looked up after the file was opened: what was opened is what lies there.
        inside = Path(real).is_relative_to(os.path.realpath(within))
        if not inside or not os.path.exists(real) or not os.path.samestat(os.stat(real), status):
            return f"it is a link that leads out of {within}"
    return None


def _reason(problem: OSError | ValueError) -> str:
    return os.strerror(problem.errno) if isinstance(problem, OSError) and problem.errno else str(problem)


def _too_large(size: int, at_most: int) -> str:
    return f"it has {size:,} bytes, more than the {at_most:,} that it may have"


def decode_utf8(data: bytes) -> str:
    """Return UTF-8 as text. Raises ValueError naming the first byte that is not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise ValueError(f"byte {problem.start:,} is not in UTF-8") from problem
