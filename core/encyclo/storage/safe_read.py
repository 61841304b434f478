"""Reads files that may be somebody else's: regular files of limited size, JSON of limited depth and number of values.

A run's folder may be downloaded, and a link to /dev/zero, a named pipe or a huge sparse file in it would hang the
process or fill the machine. `open_file` and what builds on it refuse these in one sentence that names the file.
"""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from encyclo.errors import DamagedError, EncycloError

RUN_JSON = 2**24
METRICS_JSON = 2**26
SEAL_JSON = 2**29
"""Five bytes for each sample and layer: enough for 100 million vectors."""
CALIBRATION_JSON = 2**26
COMMIT_JSON = 2**26
ROUND_JSON = 2**28
"""plan.json and result.json have several numbers for each concept."""
INTERPRETER_JSON = 2**26
INTERPRETER_FILE = 2**34
PLUGIN_JSON = 2**26
"""What a plugin keeps in the run, such as the sentences that it generated."""
LOCK_FILE = 2**8

MOST_LEVELS = 100
MOST_VALUES = 8_000_000
"""A value takes about 100 bytes of memory, a digit in the file one byte."""
RESTORE = "restore it from a copy, or run the command again in a new --out"

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_FLAGS = sum(getattr(os, flag, 0) for flag in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"))
"""O_NONBLOCK: opening a named pipe would wait for its writer."""
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NO_STRUCTURE = bytes(set(range(256)) - set(b"[]{},:"))
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def open_file(
    path: Path,
    *,
    within: Path | None = None,
    at_most: int | None = None,
    advice: str = RESTORE,
    error: type[EncycloError] = DamagedError,
) -> BinaryIO:
    """Open a regular file for reading, without waiting for anything.

    A link may lead to a regular file, with `within` only to one inside that folder. `at_most` limits the size in
    bytes. Raises `error`: what is wrong with the file, and the `advice` (the end of a sentence).
    """
    try:
        handle = os.open(path, os.O_RDONLY | _FLAGS)
    except (OSError, ValueError) as problem:  # ValueError: a NUL in the path
        raise _refused(path, _reason(problem), advice, error) from problem
    try:
        if reason := _fault(path, os.fstat(handle), within, at_most):
            raise _refused(path, reason, advice, error)
        return os.fdopen(handle, "rb")
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
        try:
            data = file.read(at_most + 1)
        except OSError as problem:
            raise _refused(path, _reason(problem), advice, error) from problem
    if len(data) > at_most:  # it has grown since it was opened
        raise _refused(path, _too_large(len(data), at_most), advice, error)
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
        return _decoded(data)
    except ValueError as problem:
        raise _refused(path, str(problem), advice, error) from problem


def read_json(
    path: Path,
    *,
    at_most: int,
    within: Path | None = None,
    advice: str = RESTORE,
    error: type[EncycloError] = DamagedError,
) -> Any:
    """Return what a regular file holds in JSON, read by `parse_json`. Raises `error` as `open_file` does."""
    data = read_bytes(path, at_most=at_most, within=within, advice=advice, error=error)
    try:
        return parse_json(data)
    except ValueError as problem:
        raise _refused(path, str(problem), advice, error) from problem


def parse_json(data: bytes) -> Any:
    """Return what UTF-8 JSON says; every text in it can be written as UTF-8 again.

    Depth and number of values are checked before anything is parsed. Raises ValueError saying what is wrong.
    """
    structure = _STRING.sub(b"", data).translate(None, _NO_STRUCTURE)
    marks = np.frombuffer(structure, np.uint8)
    opening = (marks == ord("[")) | (marks == ord("{"))
    closing = (marks == ord("]")) | (marks == ord("}"))
    if len(marks) - int(closing.sum()) > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES:,} values")
    levels = np.cumsum(opening.astype(np.int8) - closing.astype(np.int8), dtype=np.int64)
    if levels.max(initial=0) > MOST_LEVELS:
        raise ValueError(f"it is nested more than {MOST_LEVELS} levels deep")
    text = _decoded(data)
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except ValueError as problem:  # of a number with thousands of digits it says what to do in Python
        raise ValueError(f"it is not valid JSON ({str(problem).partition(';')[0]})") from problem
    if _SURROGATE.search(data):  # a pair of them is one character, a single one is none
        _check_encodable(value)
    return value


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


def _refused(path: Path, reason: str, advice: str, error: type[EncycloError]) -> EncycloError:
    return error(f"{path} can't be read: {reason}; {advice}.")


def _reason(problem: OSError | ValueError) -> str:
    if isinstance(problem, FileNotFoundError):
        return "there is no such file"
    return os.strerror(problem.errno) if isinstance(problem, OSError) and problem.errno else str(problem)


def _too_large(size: int, at_most: int) -> str:
    return f"it has {size:,} bytes, more than the {at_most:,} that it may have"


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise ValueError(f"byte {problem.start:,} is not in UTF-8") from problem


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def _check_encodable(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as problem:
        stray = ord(problem.object[problem.start])
        raise ValueError(f"it holds U+{stray:04X}, half of a character") from problem
