"""Units, commits, resume: what of a run is done, whatever happened to the process.

A unit is the smallest piece of work that is committed whole: a slice of concepts in one stage. Its id is a
hash of everything that determines its content. A store writes the unit's samples as a part; then one commit
record is created exclusively, so that of two attempts the first wins. Readers trust commit records only,
never a listing of parts.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from encyclo import files
from encyclo.errors import DamagedError, RunDirectoryError
from encyclo.schema import Part
from encyclo.types import Concept, Store

SAMPLES_A_UNIT = 2_000


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
            try:
                commit = Commit(**json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, TypeError) as error:
                raise DamagedError(
                    f"The commit record {path} can't be read ({error}); delete it and run the same command "
                    "again to redo that unit."
                ) from error
            found[commit.unit] = commit
        return found

    def new_attempt(self, unit: Unit) -> tuple[str, str]:
        """Return (attempt, part name) for another try at `unit`; no two attempts share a part."""
        attempt = uuid.uuid4().hex[:8]
        return attempt, f"{unit.id}-{attempt}"

    def commit(self, record: Commit) -> bool:
        """Record a unit whose part is durable; return False if another attempt was first."""
        return files.create_json(self.commits_folder / f"{record.unit}.json", dataclasses.asdict(record))

    def sweep(self) -> None:
        """Remove what attempts that never committed left behind. Only for the holder of the run's lock."""
        kept = {commit.part for commit in self.commits().values()}
        for path in self.parts_folder.iterdir():
            if path.name.split(".")[0] in kept and not path.name.startswith(files.TEMPORARY):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        for path in self.commits_folder.glob(f"{files.TEMPORARY}*"):
            path.unlink()


def read_committed(store: Store, commit: Commit) -> Part:
    """Read a committed part and check that it is what was committed.

    Raises DamagedError naming the part.
    """
    part = store.read_part(commit.part)
    if len(part) != commit.rows or part.checksum() != commit.checksum:
        raise DamagedError(
            f"Part {commit.part} differs from what was committed ({len(part)} rows, {commit.rows} committed); "
            f"delete commits/{commit.unit}.json and run the same command again to redo it."
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
