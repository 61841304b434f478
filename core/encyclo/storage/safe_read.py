"""Reads what a run holds: regular files of limited size, and JSON of limited depth and number of values.

A limit for each kind of file stands here; `encyclo.regular_files` opens the files.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from encyclo.errors import DamagedError, EncycloError
from encyclo.regular_files import RESTORE, decode_utf8, open_file, read_bytes, read_text, refusal
from encyclo.storage.files import TEMPORARY

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = [
    "RESTORE",
    "copy_tree",
    "open_file",
    "parse_json",
    "read_bytes",
    "read_json",
    "read_text",
    "refusal",
    "refused",
]

TEXTS_RECORD = "capture.json"
"""What a capture of texts has in place of run.json."""
RUN_JSON = 2**24
METRICS_JSON = 2**26
SEAL_JSON = 2**29
"""Five bytes for each sample and layer: enough for 100 million vectors."""
CALIBRATION_JSON = 2**26
DETAILS_JSON = 2**28
"""Details of at most 2,000 entries, and some numbers for each concept."""
COMMIT_JSON = 2**26
ROUND_JSON = 2**28
"""plan.json and result.json have several numbers for each concept."""
INTERPRETER_JSON = 2**26
LARGEST_FILE = 2**34
"""Any other file beside the encyclopedia: an interpreter's weights, what a plugin keeps."""
PLUGIN_JSON = 2**26
"""What a plugin keeps in the run, such as the sentences that it generated."""
LOCK_FILE = 2**8

BLOCK = 2**20
MOST_LEVELS = 100
MOST_VALUES = 8_000_000
"""A value takes about 100 bytes of memory, a digit in the file one byte."""

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


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
        raise refusal(path, str(problem), advice, error) from problem


@contextmanager
def refused(path: Path, advice: str) -> Iterator[None]:
    """Turn an error about a file's content in the block into a DamagedError that names the file."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise refusal(path, str(error), advice, DamagedError) from error


def copy_tree(source: Path, target: Path, *, within: Path) -> None:
    """Copy a file, or a folder (`target` may exist) with all its files but temporary ones.

    Raises DamagedError, as `open_file` does.
    """
    waiting = [(source, target)]
    while waiting:
        path, copy = waiting.pop()
        if path.is_dir() and not path.is_symlink():
            copy.mkdir(exist_ok=True)
            waiting += [
                (entry, copy / entry.name) for entry in path.iterdir() if not entry.name.startswith(TEMPORARY)
            ]
            continue
        with open_file(path, within=within, at_most=LARGEST_FILE) as file, copy.open("xb") as written:
            shutil.copyfileobj(file, written, BLOCK)


def parse_json(data: bytes) -> Any:
    """Return what UTF-8 JSON says; every text in it can be written as UTF-8 again.

    Raises ValueError saying what is wrong.
    """
    check_bounds(data)
    text = decode_utf8(data)
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except ValueError as problem:  # of a number with thousands of digits it says what to do in Python
        raise ValueError(f"it is not valid JSON ({str(problem).partition(';')[0]})") from problem
    if _SURROGATE.search(data):  # a pair of them is one character, a single one is none
        _check_encodable(value)
    return value


def invalid(error: ValidationError) -> str:
    """Return the first of pydantic's problems with a file's content: where, and what."""
    first = error.errors()[0]
    what = first["msg"].removeprefix("Value error, ")
    return f"its {'.'.join(map(str, first['loc']))} is invalid ({what[:1].lower()}{what[1:]})"


def check_bounds(data: bytes) -> None:
    """Check depth and number of values of JSON without parsing it. Raises ValueError."""
    outside = _STRING.sub(b"", data)
    if sum(map(outside.count, b"[{,:")) > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES:,} values")
    marks = np.frombuffer(outside.translate(None, _NO_BRACKETS), np.uint8)
    opening = (marks == ord("[")) | (marks == ord("{"))
    closing = (marks == ord("]")) | (marks == ord("}"))
    levels = np.cumsum(opening.astype(np.int8) - closing.astype(np.int8), dtype=np.int64)
    if levels.max(initial=0) > MOST_LEVELS:
        raise ValueError(f"it is nested more than {MOST_LEVELS} levels deep")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def _check_encodable(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as problem:
        stray = ord(problem.object[problem.start])
        raise ValueError(f"it holds U+{stray:04X}, half of a character") from problem
