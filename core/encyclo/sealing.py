"""Checksums over everything that a run leaves: records that hold their own, and the finished encyclopedia's seal.

A JSON record carries `sha256`, over the canonical JSON of its other keys. The seal, seal.json, says of
every file of the finished encyclopedia how long it is and what its bytes hash to, twice: the whole file, which
`encyclo verify` compares, and the file without its bulk (the byte ranges that hold activations), which opening
compares before any library parses a byte. What is read of the bulk later is compared row by row, with the crc32
of each sample's activations at each layer.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo import files
from encyclo.errors import DamagedError, StoreError

SEAL = "seal.json"
BLOCK = 2**22
Ranges = Sequence[tuple[int, int]]
"""Byte ranges (offset, length), rising, none touching another."""


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record with its own checksum."""
    return {**record, "sha256": _digest(record)}


def unsealed(record: Any) -> dict[str, Any]:
    """Return the record without its checksum. Raises ValueError if it is not what was sealed."""
    if not isinstance(record, dict):
        raise ValueError("it is no JSON object")
    content = {key: value for key, value in record.items() if key != "sha256"}
    if "sha256" not in record:
        raise ValueError("it has no checksum")
    if record["sha256"] != _digest(content):
        raise ValueError("it differs from its checksum")
    return content


def read_sealed(path: Path) -> dict[str, Any]:
    """Read a sealed JSON file. Raises ValueError saying what is wrong with it."""
    try:
        return unsealed(json.loads(path.read_text(encoding="utf-8")))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def list_files(root: Path) -> dict[str, int]:
    """Return every file's size under `root` (or of `root`, a file, as ""), by relative POSIX path.

    Raises ValueError naming what is neither a plain file nor a folder: a link could lead anywhere.
    """
    found: dict[str, int] = {}
    waiting = [(root, "")]
    while waiting:
        path, name = waiting.pop()
        status = os.lstat(path)
        if stat.S_ISDIR(status.st_mode):
            with os.scandir(path) as entries:
                waiting += [(Path(e.path), f"{name}/{e.name}" if name else e.name) for e in entries]
        elif stat.S_ISREG(status.st_mode):
            found[name] = status.st_size
        else:
            raise ValueError(f"{path} is neither a file nor a folder")
    return dict(sorted(found.items()))


def hash_file(path: Path, bulk: Ranges = ()) -> tuple[str, str]:
    """Return the sha256 of a file's bytes: of all, and of those outside `bulk`."""
    whole, opening = hashlib.sha256(), hashlib.sha256()
    with path.open("rb") as file:
        for length, in_bulk in _segments(path.stat().st_size, bulk):
            for block in _blocks(file, length):
                whole.update(block)
                if not in_bulk:
                    opening.update(block)
    return whole.hexdigest(), opening.hexdigest()


def hash_opening(path: Path, size: int, bulk: Ranges) -> str:
    """Return the sha256 of a file's bytes outside `bulk`, reading no others."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for length, in_bulk in _segments(size, bulk):
            if in_bulk:
                file.seek(length, os.SEEK_CUR)
                continue
            for block in _blocks(file, length):
                digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class Seal:
    """What the finished encyclopedia must be."""

    path: str
    """Its name in the run directory."""
    files: Mapping[str, Mapping[str, Any]]
    """By path relative to it: bytes, sha256, opening (sha256 outside the bulk), bulk ranges."""
    crc: NDArray[np.uint32]
    """The crc32 of each sample's activations at each layer (float16, little-endian): [n, L]."""


def write_seal(run: Path, path: Path, bulk: Mapping[str, Ranges], crc: NDArray[np.uint32]) -> None:
    """Write the seal of the encyclopedia `path`, in the run directory `run`."""
    listed = {}
    for name, size in list_files(path).items():
        ranges = [list(item) for item in bulk.get(name, ())]
        whole, opening = hash_file(path / name if name else path, bulk.get(name, ()))
        listed[name] = {"bytes": size, "sha256": whole, "opening": opening, "bulk": ranges}
    record = {"path": path.name, "files": listed, "layers": crc.shape[1], "crc32": pack_crc(crc)}
    files.write_json(run / SEAL, sealed(record))


def read_seal(run: Path) -> Seal:
    """Read the seal. Raises StoreError if there is none, DamagedError if it can't be trusted."""
    path = run / SEAL
    if not path.exists():
        raise StoreError(f"There is no {path}; run the same `encyclo run` command again to finish the run.")
    try:
        record = read_sealed(path)
        name = record["path"]
        if Path(name).name != name or not name.startswith("encyclopedia."):
            raise ValueError("it names another place")
        return Seal(name, record["files"], unpack_crc(record["crc32"], record["layers"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{path} can't be read ({error}); {_ADVICE}") from error


def check_opening(run: Path) -> Seal:
    """Check all of the finished encyclopedia but its bulk, before anything is parsed. Raises DamagedError."""
    seal = read_seal(run)
    for fault in seal_faults(run, seal, whole=False):
        raise DamagedError(f"{fault}; {_ADVICE}")
    return seal


def seal_faults(run: Path, seal: Seal, whole: bool) -> Iterator[str]:
    """Yield what is wrong with the finished encyclopedia's files, a line a file; `whole`: every byte is read."""
    root = run / seal.path
    try:
        there = list_files(root)
    except (OSError, ValueError) as error:
        yield f"{root} can't be read: {error}"
        return
    for name in sorted(there.keys() - seal.files.keys()):
        yield f"{root / name} does not belong to the encyclopedia"
    for name, expected in seal.files.items():
        path = root / name if name else root
        if name not in there:
            yield f"{path} is missing"
            continue
        size, bulk = int(expected["bytes"]), [(int(a), int(b)) for a, b in expected["bulk"]]
        if there[name] != size:
            yield f"{path} has {there[name]:,} bytes, not the {size:,} that were written"
            continue
        found = hash_file(path)[0] if whole else hash_opening(path, size, bulk)
        if found != expected["sha256" if whole else "opening"]:
            yield f"{path} differs from what was written"


def crc_of(activations: NDArray[np.float16]) -> NDArray[np.uint32]:
    """Return the crc32 of each vector's bytes (float16, little-endian): [n, L, H] -> uint32 [n, L]."""
    flat = np.ascontiguousarray(activations, "<f2").reshape(-1, activations.shape[-1]).view(np.uint8)
    return np.array([zlib.crc32(row.data) for row in flat], np.uint32).reshape(activations.shape[:2])


def pack_crc(crc: NDArray[np.uint32]) -> str:
    """Return the checksums as text: base64 of little-endian uint32."""
    return base64.b64encode(crc.astype("<u4").tobytes()).decode("ascii")


def unpack_crc(text: str, layers: int) -> NDArray[np.uint32]:
    """Return what `pack_crc` was given, [n, layers]. Raises ValueError."""
    return np.frombuffer(base64.b64decode(text, validate=True), "<u4").astype(np.uint32).reshape(-1, layers)


_ADVICE = "`encyclo verify` says what can be recovered."


def _segments(size: int, bulk: Ranges) -> Iterator[tuple[int, bool]]:
    """Cut a file of `size` bytes into (length, whether it is bulk). Raises ValueError for impossible ranges."""
    at = 0
    for start, length in bulk:
        if start < at or length < 0 or start + length > size:
            raise ValueError("its bulk ranges overlap or pass the file's end")
        yield start - at, False
        yield length, True
        at = start + length
    yield size - at, False


def _blocks(file: Any, length: int) -> Iterator[bytes]:
    while length > 0:
        block = file.read(min(BLOCK, length))
        if not block:
            return
        length -= len(block)
        yield block


def _digest(record: Mapping[str, Any]) -> str:
    text = json.dumps(record, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
