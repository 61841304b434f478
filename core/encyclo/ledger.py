"""Units, commits, resume: what of a run is done, whatever happened to the process.

A unit is the smallest piece of work that is committed whole: a slice of concepts in one stage. Its id is a
hash of everything that determines its content. A store writes the unit's samples as a part; then one commit
record is created exclusively, so that of two attempts the first wins. Readers trust commit records only,
never a listing of parts.

A record holds two kinds of checksum: one of the samples, whatever the format that keeps them, and one of the
bytes of each file parts/NAME, parts/NAME.* or parts/NAME.*/**, which is compared before a library parses them. A
store that keeps its parts elsewhere has no files to compare, and the samples' checksum stands alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from encyclo import files, sealing
from encyclo.errors import DamagedError, RunDirectoryError
from encyclo.schema import Part
from encyclo.types import Concept, Store

SAMPLES_A_UNIT = 2_000
_PLAIN = re.compile(r"[0-9A-Za-z_-]{1,200}")


@dataclass(frozen=True)
class Unit:
    """A slice of concepts in one stage; `concepts` are indices into the run's concepts."""

    id: str
    stage: int
    concepts: tuple[int, ...]


@dataclass(frozen=True)
class Commit:
    """A committed unit: which part holds it, what it must contain, what it cost."""

    unit: str
    stage: int
    part: str
    rows: int
    checksum: str
    attempt: str
    seconds: float
    tokens: int
    tokens_computed: int
    files: Mapping[str, str] = field(default_factory=dict)
    """The sha256 of each of the part's files, by its path below parts/."""
    crc32: str = ""
    """Of each row's activations at each layer, as `sealing.pack_crc` writes them."""

    def __post_init__(self) -> None:
        # Part and unit become file names; a record may be somebody else's.
        for name in (self.unit, self.part):
            if not _PLAIN.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a unit or a part")


def plan_units(
    concepts: Sequence[Concept],
    chosen: Sequence[int],
    stage: int,
    per_concept: int,
    recipe: Mapping[str, Any],
) -> list[Unit]:
    """Cut the `chosen` concepts (indices) into units of about SAMPLES_A_UNIT samples.

    `recipe` is everything else that determines a unit's content (model, layers, sampler, options, seed).
    """
    size = max(1, SAMPLES_A_UNIT // max(1, per_concept))
    units = []
    for start in range(0, len(chosen), size):
        slice_ = tuple(chosen[start : start + size])
        content = {
            "recipe": recipe,
            "stage": stage,
            "concepts": [dataclasses.asdict(concepts[i]) for i in slice_],
        }
        text = json.dumps(content, sort_keys=True, ensure_ascii=True)
        units.append(Unit(hashlib.sha256(text.encode()).hexdigest()[:32], stage, slice_))
    return units


class Ledger:
    """The commit records of one run directory."""

    def __init__(self, run: Path) -> None:
        self.commits_folder = run / "commits"
        self.parts_folder = run / "parts"

    def create(self) -> None:
        """Make the folders."""
        files.make_folder(self.commits_folder)
        files.make_folder(self.parts_folder)

    def commits(self) -> dict[str, Commit]:
        """Return every commit by unit id. Raises DamagedError naming a record that can't be read."""
        found = {}
        for path in sorted(self.commits_folder.glob("*.json")):
            if path.name.startswith(files.TEMPORARY):
                continue
            commit = read_record(path)
            found[commit.unit] = commit
        return found

    def new_attempt(self, unit: Unit) -> tuple[str, str]:
        """Return (attempt, part name) for another try at `unit`; no two attempts share a part."""
        attempt = uuid.uuid4().hex[:8]
        return attempt, f"{unit.id}-{attempt}"

    def store(
        self, store: Store, unit: Unit, part: Part, seconds: float, tokens: int, computed: int
    ) -> Commit:
        """Write `part` and then its commit record; return the unit's commit, another attempt's if it was first.

        `seconds` and the tokens say what the unit cost. The checksums are computed while the disk is busy.
        """
        attempt, name = self.new_attempt(unit)
        with ThreadPoolExecutor(1) as beside:
            checksum = beside.submit(part.checksum)
            crc = beside.submit(lambda: sealing.pack_crc(sealing.crc_of(part.activations)))
            store.write_part(name, part)
            hashes = self.hash_part(name)
            commit = Commit(
                unit.id, unit.stage, name, len(part), checksum.result(), attempt, seconds, tokens, computed,
                hashes, crc.result(),
            )  # fmt: skip
        return commit if self.commit(commit) else self.commits()[unit.id]

    def commit(self, record: Commit) -> bool:
        """Record a unit whose part is durable; return False if another attempt was first."""
        content = sealing.sealed(dataclasses.asdict(record))
        return files.create_json(self.commits_folder / f"{record.unit}.json", content)

    def hash_part(self, part: str) -> dict[str, str]:
        """Return the sha256 of each of a part's files. Raises DamagedError for a link among them."""
        found = {}
        for root in sorted(self.parts_folder.glob(f"{part}*")):
            if root.name != part and not root.name.startswith(f"{part}."):
                continue
            try:
                names = sealing.list_files(root)
            except ValueError as error:
                raise DamagedError(f"Part {part} can't be trusted: {error}.") from error
            for name in names:
                path = root / name if name else root
                found[path.relative_to(self.parts_folder).as_posix()] = files.sha256_of(path)
        return found

    def check_files(self, commit: Commit) -> None:
        """Compare the bytes of a committed part's files with its record. Raises DamagedError."""
        if self.hash_part(commit.part) != commit.files:
            raise DamagedError(
                f"The files of part {commit.part} are not those that were committed; {_redo(commit)}"
            )

    def sweep(self) -> None:
        """Remove what attempts that never committed left behind. Only for the holder of the run's lock."""
        kept = {commit.part for commit in self.commits().values()}
        for path in self.parts_folder.iterdir():
            if path.name.split(".")[0] in kept and not path.name.startswith(files.TEMPORARY):
                continue
            _remove(path)
        for folder in (self.commits_folder, self.commits_folder.parent):
            for path in folder.glob(f"{files.TEMPORARY}*"):
                _remove(path)


def read_record(path: Path) -> Commit:
    """Read one commit record. Raises DamagedError naming it."""
    try:
        commit = Commit(**sealing.read_sealed(path))
        if f"{commit.unit}.json" != path.name:
            raise ValueError("it is another unit's")
    except (ValueError, TypeError) as error:
        raise DamagedError(
            f"The commit record {path} can't be read ({error}); delete it and run the same command "
            "again to redo that unit."
        ) from error
    return commit


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _redo(commit: Commit) -> str:
    return f"delete commits/{commit.unit}.json and run the same command again to redo it."


def read_committed(store: Store, commit: Commit) -> Part:
    """Read a committed part and check that it is what was committed.

    Raises DamagedError naming the part.
    """
    part = store.read_part(commit.part)
    if len(part) != commit.rows or part.checksum() != commit.checksum:
        raise DamagedError(
            f"Part {commit.part} differs from what was committed ({len(part)} rows, {commit.rows} committed); "
            f"{_redo(commit)}"
        )
    return part


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run directory for this process. Raises RunDirectoryError naming the process that has it."""
    lock = FileLock(run / ".lock")
    owner = run / ".lock.pid"
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        pid = owner.read_text().strip() if owner.exists() else "unknown"
        raise RunDirectoryError(
            f"{run} is in use by process {pid}; wait for it to end, or choose another --out."
        ) from error
    try:
        owner.write_text(f"{os.getpid()}\n")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
