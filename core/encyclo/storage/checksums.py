"""Checksums of a run's files: JSON records that contain their own, and the seal of the finished encyclopedia.

A JSON record has a key `sha256`, over the canonical JSON of its other keys. A commit record describes the files of a
committed part, and the seal (seal.json) those of the finished encyclopedia. For each file they record its length and
checksums that cover each byte once:

- a sha256 of everything outside the bulk (the byte ranges that hold activations), compared before any library parses
  a byte;
- a crc32 of each sample's activations at each layer (`encyclo.crc`), compared when these are read.

The seal also names the run and lists its other files (`run_files`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo import crc
from encyclo.errors import DamagedError, StoreError
from encyclo.regular_files import open_raw
from encyclo.storage import files, safe_read

SEAL = "seal.json"
OWN_NAMES = frozenset(
    {
        "run.json", "metrics.json", "calibration.json", "convergence.json", "details.json", "report.html", SEAL,
        "commits", "parts", "rounds", "interpreter", "plugins",
    }
)  # fmt: skip
"""The run's own names in its directory: no store may give its encyclopedia one of them."""
LISTED = (
    "run.json", "metrics.json", "calibration.json", "convergence.json", "details.json", "report.html", "interpreter",
)  # fmt: skip
"""The files that the seal lists beside the encyclopedia's, and the folder whose files it lists (see `run_files`)."""
BLOCK = 2**22
ADVICE = "`encyclo verify` says what can be recovered"
Ranges = Sequence[tuple[int, int]]
"""Byte ranges (offset, length), ascending; no two of them touch."""


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record with its own checksum."""
    return {**record, "sha256": _digest(record)}


def unsealed(record: Any) -> dict[str, Any]:
    """Return the record without its checksum. Raises ValueError if it is not what was sealed."""
    if not isinstance(record, dict):
        raise ValueError("it is not a JSON object")
    content = {key: value for key, value in record.items() if key != "sha256"}
    if "sha256" not in record:
        raise ValueError("it has no checksum")
    if record["sha256"] != _digest(content):
        raise ValueError("it differs from its checksum")
    return content


def read_sealed(path: Path, *, at_most: int, within: Path, advice: str = safe_read.RESTORE) -> dict[str, Any]:
    """Read a sealed JSON file of the run `within`. Raises DamagedError: what is wrong with it, and the `advice`."""
    content = safe_read.read_json(path, at_most=at_most, within=within, advice=advice)
    try:
        return unsealed(content)
    except ValueError as error:
        raise safe_read.refusal(path, str(error), advice, DamagedError) from error


def list_files(root: Path) -> dict[str, int]:
    """Return every file's size under `root` (or of `root`, a file, as ""), by relative POSIX path.

    Raises ValueError naming anything that is neither a plain file nor a folder, since a link could lead anywhere.
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


def describe(path: Path, size: int, bulk: Ranges) -> dict[str, Any]:
    """Return the record of a file of `size` bytes: bytes, sha256 (of everything outside `bulk`), bulk."""
    return {"bytes": size, "sha256": _hash_outside(path, size, bulk), "bulk": [list(item) for item in bulk]}


def fault(path: Path, size: int | None, described: Mapping[str, Any]) -> str | None:
    """Return how a file of `size` bytes (None: there is none) differs from `described`, its record by `describe`.

    Its bulk is not read here: its crc32 is compared when activations are read.
    """
    if size is None:
        return f"{path} is missing"
    try:
        expected, bulk = int(described["bytes"]), [(int(a), int(b)) for a, b in described["bulk"]]
        if size != expected:
            return f"{path} has {size:,} bytes, not the {expected:,} that were written"
        if _hash_outside(path, size, bulk) != described["sha256"]:
            return f"{path} differs from what was written"
    except (ValueError, KeyError, TypeError, ArithmeticError) as error:
        return f"the record of {path} is invalid ({error})"
    return None


def outside(described: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Return the byte ranges (start, end) outside the bulk of a file, from its record by `describe`.

    Raises ValueError, KeyError or TypeError for an invalid record.
    """
    bulk = [(int(start), int(length)) for start, length in described["bulk"]]
    found, at = [], 0
    for length, in_bulk in _segments(int(described["bytes"]), bulk):
        if length and not in_bulk:
            found.append((at, at + length))
        at += length
    return found


def join_ranges(offsets: NDArray[np.int64], lengths: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return byte ranges in ascending order, without empty ones; ranges that touch are joined."""
    joined: list[tuple[int, int]] = []
    for place in np.argsort(offsets, kind="stable"):
        start, length = int(offsets[place]), int(lengths[place])
        if joined and sum(joined[-1]) == start:
            start, length = joined[-1][0], joined.pop()[1] + length
        if length:
            joined.append((start, length))
    return joined


def _hash_outside(path: Path, size: int, bulk: Ranges) -> str:
    """Return the sha256 of a file's bytes outside `bulk`; read only those."""
    digest = hashlib.sha256()
    with open_raw(path, advice=ADVICE) as file:
        for length, in_bulk in _segments(size, bulk):
            if in_bulk:
                file.seek(length, os.SEEK_CUR)
                continue
            for block in _blocks(file, length):
                digest.update(block)
    return digest.hexdigest()


Sums = tuple[str | None, ...]
"""The sha256 that a file may have: two while it is replaced; None where it may be missing."""


@dataclass(frozen=True)
class SampleSums:
    """What the encyclopedia's samples must be: n samples, L layers."""

    crc: NDArray[np.uint32]
    """`crc.of` each sample's activations: [n, L]."""
    columns: str
    """`Columns.checksum` of all of them; like `prompts` empty or None in a seal of encyclo's first version."""
    prompts: NDArray[np.uint32] | None
    """`crc.of_texts` of their prompts: [n]."""


@dataclass(frozen=True)
class Seal:
    """What the finished encyclopedia, and what lies beside it, must be."""

    path: str
    """Its name in the run directory."""
    files: Mapping[str, Mapping[str, Any]]
    """Each file's record by `describe`, by path relative to the encyclopedia."""
    samples: SampleSums
    run_id: str | None
    """The run that it belongs to, as in run.json; None in a seal of encyclo's first version."""
    run_files: Mapping[str, Sums] | None
    """The run's other files by path (see `run_files`); None in a seal of encyclo's first version."""


def write_seal(run: Path, run_id: str, path: Path, bulk: Mapping[str, Ranges], sums: SampleSums) -> None:
    """Write the seal of the encyclopedia `path`, directly in the run directory `run`.

    It lists the run's other files: those that the seal before listed, or all if there was none. Raises StoreError
    if the store wrote the encyclopedia elsewhere, under one of the run's own names, or not at all.
    """
    try:
        listed = {
            name: describe(path / name if name else path, size, bulk.get(name, ()))
            for name, size in list_encyclopedia(run, path).items()
        }
    except (OSError, ValueError) as error:
        raise StoreError(
            f"The encyclopedia that the store wrote, {path}, can't be sealed: {error}; correct that "
            "plugin, or choose another --store."
        ) from error
    before: Mapping[str, Sums] | None = None
    with contextlib.suppress(StoreError):  # there is none, or it is damaged
        seal = read_seal(run)
        before = seal.run_files if seal.run_id == run_id else None
    save_seal(run, Seal(path.name, listed, sums, run_id, list_run_files(run) if before is None else before))


def list_run_files(run: Path) -> dict[str, Sums]:
    """Return the sha256 of each of `LISTED` that is there. Raises DamagedError for a link."""
    try:
        names = [name for root in LISTED if (run / root).exists() for name in names_under(run, root)]
    except ValueError as error:
        raise DamagedError(f"{run} can't be sealed: {error}; {safe_read.RESTORE}.") from error
    return {name: (files.sha256_of(run / name),) for name in names}


def names_under(run: Path, root: str) -> list[str]:
    """Return the files of LISTED's `root` by their paths in the run directory. Raises ValueError for a link."""
    return [f"{root}/{name}" if name else root for name in list_files(run / root)]


def save_seal(run: Path, seal: Seal) -> None:
    """Write a seal, durably."""
    samples = seal.samples
    record = {
        "run": seal.run_id,
        "path": seal.path,
        "files": seal.files,
        "layers": samples.crc.shape[1],
        "crc32": crc.pack(samples.crc),
        "columns": samples.columns,
        "prompts": None if samples.prompts is None else crc.pack(samples.prompts),
        "run_files": seal.run_files,
    }
    files.write_json(run / SEAL, sealed(record))


def list_encyclopedia(run: Path, path: Path) -> dict[str, int]:
    """Return `list_files` of an encyclopedia. Raises ValueError if it isn't one of `run` by place and name."""
    _check_name(path.name)
    if path.parent.resolve() != run.resolve():
        raise ValueError(f"it is not directly in {run}")
    return list_files(path)


def read_seal(run: Path) -> Seal:
    """Read the seal. Raises StoreError if there is none, DamagedError if it can't be trusted."""
    path = run / SEAL
    if not path.exists():
        raise StoreError(f"There is no {path}; run the same `encyclo run` command again to finish the run.")
    try:
        record = read_sealed(path, at_most=safe_read.SEAL_JSON, within=run, advice=ADVICE)
        name = record["path"]
        _check_name(name)
        if not isinstance(record["files"], dict):
            raise ValueError("it lists no files")
        return Seal(
            name,
            record["files"],
            _read_sums(record),
            record.get("run"),
            _read_listed(record.get("run_files")),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise safe_read.refusal(path, str(error), ADVICE, DamagedError) from error


def check_opening(run: Path) -> Seal:
    """Check the finished encyclopedia, except for its bulk, before anything is parsed. Raises DamagedError."""
    seal = read_seal(run)
    for found in seal_faults(run, seal):
        # A process that was killed while it replaced the encyclopedia leaves the seal of the old one.
        finished = (run / "metrics.json").exists()
        raise DamagedError(
            f"{found}; {ADVICE if finished else 'run the same `encyclo run` command again to finish it'}."
        )
    return seal


def seal_faults(run: Path, seal: Seal) -> Iterator[str]:
    """Yield what is wrong with the finished encyclopedia's files, except for their bulk: one text per file."""
    root = run / seal.path
    try:
        there = list_files(root)
    except (OSError, ValueError) as error:
        yield f"{root} can't be read: {error}"
        return
    for name in sorted(there.keys() - seal.files.keys()):
        yield f"{root / name} does not belong to the encyclopedia"
    for name, described in seal.files.items():
        found = fault(root / name if name else root, there.get(name), described)
        if found:
            yield found


def _read_sums(record: Mapping[str, Any]) -> SampleSums:
    """Return what a seal says of samples. Raises ValueError, KeyError or TypeError."""
    sums, prompts = crc.unpack(record["crc32"], record["layers"]), None
    if record.get("prompts") is not None:
        prompts = crc.unpack(record["prompts"], 1)[:, 0]
        if len(prompts) != len(sums):
            raise ValueError(f"it has {len(prompts)} checksums of prompts and {len(sums)} of samples")
    return SampleSums(sums, str(record.get("columns", "")), prompts)


def _read_listed(given: Any) -> dict[str, Sums] | None:
    """Return the run's files as a seal lists them. Raises ValueError for what can't be such a list."""
    if given is None:
        return None
    for name, sums in given.items():
        parts = name.split("/")
        if parts[0] not in LISTED or ".." in parts or not all(isinstance(s, str | None) for s in sums):
            raise ValueError(f"it lists the file {name!r:.80}")
    return {name: tuple(sums) for name, sums in given.items()}


def _check_name(name: str) -> None:
    """Refuse a path, a hidden file and the run's own names. Raises ValueError."""
    if not name or Path(name).name != name or name.startswith(".") or name in OWN_NAMES:
        raise ValueError(f"{name!r:.80} is not a valid name for an encyclopedia")


def _segments(size: int, bulk: Ranges) -> Iterator[tuple[int, bool]]:
    """Cut a file of `size` bytes into (length, whether it is bulk). Raises ValueError for impossible ranges."""
    at = 0
    for start, length in bulk:
        if start < at or length < 0 or start + length > size:
            raise ValueError("the ranges of its activations overlap or pass the file's end")
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
