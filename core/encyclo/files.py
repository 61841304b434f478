"""Writes that survive a crash: temporary file in the same folder, fsync, atomic replace, fsync the folder."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TEMPORARY = ".tmp-"


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target`; what was written there replaces `target`, durably, at the end.

    On an error the temporary file is removed and `target` stays as it was.
    """
    temporary = target.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:12]}{target.suffix}")
    try:
        yield temporary
        sync_file(temporary)
        os.replace(temporary, target)
        sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Replace `target` with `text` (UTF-8), durably."""
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Replace `target` with `value` as indented JSON; a NaN raises ValueError (JSON has none)."""
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def create_json(target: Path, value: Any) -> bool:
    """Create `target` durably unless it exists; return whether this call created it. First wins."""
    temporary = target.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:12]}.json")
    try:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        sync_file(temporary)
        try:
            os.link(temporary, target)  # fails if the target exists, and the target is never half-written
        except FileExistsError:
            return False
        sync_folder(target.parent)
        return True
    finally:
        temporary.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Flush a file's data to the disk."""
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to the disk, where the system can open folders."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
