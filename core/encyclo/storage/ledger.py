"""Units, commits, resume: which parts of a run are done, even after a crash.

A unit is the smallest piece of work that is committed whole: a slice of concepts in one stage. Its id is a
hash of everything that determines its content. A store writes the unit's samples as a part; then one commit
record is created exclusively, so that of two attempts the first wins. Readers trust commit records only,
never a listing of parts.

A record has two kinds of checksum. One is of the samples and does not depend on the file format: `Part.checksum`, with
a crc32 of each sample's activations at each layer. The other is of the bytes of each file parts/NAME, parts/NAME.* or
parts/NAME.*/**, compared before a library parses them. If the store gives the byte ranges of the activations, those
bytes are compared when they are read. A store that keeps its parts elsewhere has no files to compare, so only the
samples' checksums are checked.
"""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pydantic.dataclasses
from filelock import FileLock, Timeout
from pydantic import ConfigDict, StringConstraints, ValidationError

from encyclo import crc
from encyclo.errors import DamagedError, RunDirectoryError, StoreError
from encyclo.schema import Part
from encyclo.storage import checksums, files, safe_read
from encyclo.token_parts import TokenPart
from encyclo.types import Store

Name = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z_-]{1,200}$")]
"""The name of a unit or a part: it becomes a file's name, and a record may come from a stranger."""


AGAIN = "run the same `encyclo run` command again"


@dataclass(frozen=True)
class Unit:
    """A slice of concepts in one stage; `concepts` are indices into the run's concepts."""

    id: str
    stage: int
    concepts: tuple[int, ...]
    wanted: tuple[int, ...] = ()
    """How many new samples are wanted of each concept."""
    done: tuple[int, ...] = ()
    """Samples of the unit's sampler that each concept already has."""
    sampler: str = ""
    """The sampler, if several share the stage."""


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Commit:
    """A committed unit: which part holds it, what it must contain, what it cost. The record in commits/."""

    unit: Name
    stage: int
    part: Name
    rows: int
    checksum: str
    attempt: str
    seconds: float
    tokens: int
    tokens_computed: int
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The record by `checksums.describe` of each of the part's files, by its path below parts/."""
    crc32: str = ""
    """The crc32 of each row's activations at each layer, as text from `crc.pack`."""
    columns: str = ""
    """The part's `Columns.checksum`; like `prompts` empty in a record of encyclo's first version."""
    prompts: str = ""
    """The crc32 of each row's prompt, as text from `crc.pack`."""
    sampler: str = ""
    """The unit's sampler, if several share the stage."""

    @classmethod
    def of_nothing(cls, unit: Unit) -> Commit:
        """Return the commit of a unit without new samples: it has no part."""
        return cls(unit.id, unit.stage, f"{unit.id}-none", 0, "", "", 0.0, 0, 0, sampler=unit.sampler)


class Ledger:
    """The commit records of one run directory."""

    def __init__(self, run: Path, again: str = AGAIN) -> None:
        """`again` is how a unit is captured again, for messages."""
        self._again = again
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
            commit = read_record(path, self._again)
            found[commit.unit] = commit
        return found

    def has(self, unit: str) -> bool:
        """Return whether the unit with this id is committed."""
        record = self._record(unit)
        if not record.exists():
            files.fetch(record)
        return record.exists()

    def read(self, unit: str) -> Commit:
        """Return the commit of the unit with this id. Raises DamagedError if its record can't be read."""
        return read_record(self._record(unit), self._again)

    def _record(self, unit: str) -> Path:
        return self.commits_folder / f"{unit}.json"

    def ordered(self) -> list[Commit]:
        """Return every commit, by stage and unit."""
        return sorted(self.commits().values(), key=lambda commit: (commit.stage, commit.unit))

    def new_attempt(self, unit: Unit) -> tuple[str, str]:
        """Return (attempt, part name) for another try at `unit`; no two attempts share a part."""
        attempt = uuid.uuid4().hex[:8]
        return attempt, f"{unit.id}-{attempt}"

    def store(
        self, store: Store, unit: Unit, part: Part | TokenPart, seconds: float, tokens: int, computed: int
    ) -> Commit:
        """Write `part`, then its commit record; return the unit's commit (another attempt's if that was first).

        `seconds`, `tokens` and `computed` are the unit's cost, for the record.
        """
        attempt, name = self.new_attempt(unit)
        bulk = store.write_part(name, part) or {}
        sums = crc.of(part.activations)
        commit = Commit(
            unit.id, unit.stage, name, len(part), part.checksum(sums), attempt, seconds, tokens, computed,
            self.describe_part(name, bulk), crc.pack(sums), part.columns().checksum(),
            crc.pack(crc.of_texts(part.prompt)), unit.sampler,
        )  # fmt: skip
        if self.commit(commit):
            return commit
        for root in {path.split("/")[0] for path in commit.files}:  # another attempt was first
            files.remove(self.parts_folder / root)
        return self.read(unit.id)

    def commit(self, record: Commit) -> bool:
        """Record a unit whose part is durable; return False if another attempt was first."""
        content = dataclasses.asdict(record)
        if not record.sampler:
            del content["sampler"]
        return files.create_json(self.commits_folder / f"{record.unit}.json", checksums.sealed(content))

    def describe_part(self, part: str, bulk: Mapping[str, checksums.Ranges]) -> dict[str, dict[str, Any]]:
        """Return the records of a part's files; `bulk` has the byte ranges of the activations, by the files' paths.

        Raises DamagedError if one of them is a link.
        """
        return {
            name: checksums.describe(self.parts_folder / name, size, bulk.get(name, ()))
            for name, size in self._files(part).items()
        }

    def check_files(self, commit: Commit) -> None:
        """Compare a committed part's files, except for their activations, with its record. Raises DamagedError."""
        there = self._files(commit.part)
        if there.keys() != commit.files.keys() or any(
            checksums.fault(self.parts_folder / name, there[name], described)
            for name, described in commit.files.items()
        ):
            raise DamagedError(
                f"The files of part {commit.part} are not those that were committed; {_redo(commit)}"
            )

    def _files(self, part: str) -> dict[str, int]:
        """Return the sizes of a part's files by their paths below parts/. Raises DamagedError for a link."""
        found: dict[str, int] = {}
        for root in sorted(self.parts_folder.glob(f"{part}*")):
            if root.name != part and not root.name.startswith(f"{part}."):
                continue
            try:
                listed = checksums.list_files(root)
            except ValueError as error:
                raise DamagedError(
                    f"The saved samples in {self.parts_folder / part} can't be used: {error}; {safe_read.RESTORE}."
                ) from error
            found |= {f"{root.name}/{name}" if name else root.name: size for name, size in listed.items()}
        return found

    def keep(self, commits: Iterable[Commit]) -> None:
        """Remove every other unit, such as one that another version of a plugin gave; its record goes first.

        Only for the holder of the run's lock.
        """
        others = self.commits().keys() - {commit.unit for commit in commits}
        for unit in others:
            files.remove(self.commits_folder / f"{unit}.json")
        if others:
            self.sweep()

    def sweep(self) -> None:
        """Remove what killed processes left: parts that were never committed, temporary files in all of the run.

        Only for the holder of the run's lock.
        """
        for name in self.orphans():
            files.remove(self.parts_folder / name)
        for path in list(self.commits_folder.parent.rglob(f"{files.TEMPORARY}*")):
            files.remove(path)

    def orphans(self) -> list[str]:
        """Return the files and folders of parts/ that no commit names, except temporary ones. Raises DamagedError."""
        records = self.commits_folder.glob("*.json")  # one at a time: a capture's take gigabytes
        kept = {
            read_record(path, self._again).part
            for path in records
            if not path.name.startswith(files.TEMPORARY)
        }
        there = sorted(path.name for path in self.parts_folder.glob("*"))
        return [
            name for name in there if name.split(".")[0] not in kept and not name.startswith(files.TEMPORARY)
        ]


def read_record(path: Path, again: str = AGAIN) -> Commit:
    """Read one commit record. Raises DamagedError naming it; `again` is how the unit is captured again."""
    advice = f"delete it and {again} to capture the unit again"
    content = checksums.read_sealed(
        path, at_most=safe_read.COMMIT_JSON, within=path.parents[1], advice=advice
    )
    try:
        commit = Commit(**content)
        if f"{commit.unit}.json" != path.name:
            raise ValueError("it belongs to another unit")
    except (ValueError, TypeError) as error:
        reason = safe_read.invalid(error) if isinstance(error, ValidationError) else str(error)
        raise safe_read.refusal(path, reason, advice, DamagedError) from error
    return commit


def _redo(commit: Commit) -> str:
    return f"delete commits/{commit.unit}.json and {AGAIN} to capture the unit again."


def read_committed(store: Store, commit: Commit) -> Part:
    """Read a committed part and compare it with its commit record.

    Raises DamagedError naming the part.
    """
    part = store.read_part(commit.part)
    if len(part) != commit.rows or part.checksum() != commit.checksum:
        raise DamagedError(
            f"Part {commit.part} differs from what was committed ({len(part)} rows, {commit.rows} committed); "
            f"{_redo(commit)}"
        )
    return part


def sums_of(commit: Commit, layers: int) -> crc.Sums:
    """Return the crc32 of each committed row's activations at each of `layers` layers. Raises DamagedError."""
    return _unpacked(commit, commit.crc32, layers)


def prompt_sums(commit: Commit) -> crc.Sums | None:
    """Return the crc32 of each committed row's prompt, None if they weren't recorded. Raises DamagedError."""
    return _unpacked(commit, commit.prompts, 1)[:, 0] if commit.prompts else None


def _unpacked(commit: Commit, text: str, layers: int) -> crc.Sums:
    try:
        sums = crc.unpack(text, layers)
        if len(sums) != commit.rows:
            raise ValueError(f"it has checksums of {len(sums)} rows")
    except ValueError as error:
        raise DamagedError(
            f"The commit record of part {commit.part} is invalid ({error}); {_redo(commit)}"
        ) from error
    return sums


def refuse_part(commit: Commit, what: str = "activations") -> DamagedError:
    """Return the error for a part of which something differs from what was committed."""
    return DamagedError(f"The {what} of part {commit.part} differ from what was committed; {_redo(commit)}")


def _process(owner: Path) -> str:
    """Return the process that wrote its number into `owner`."""
    try:
        return safe_read.read_text(owner, at_most=safe_read.LOCK_FILE, within=owner.parent).strip()
    except StoreError:
        return "unknown"


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Lock the run directory for this process. Raises RunDirectoryError naming the process that holds the lock."""
    lock = FileLock(run / ".lock")
    owner = run / ".lock.pid"
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise RunDirectoryError(
            f"{run} is in use by process {_process(owner)}; wait for it to end, or choose another --out."
        ) from error
    except OSError as error:
        link = f"delete {run}/.lock, or choose another --out"
        raise RunDirectoryError(
            f"{run} can't be locked: {error.strerror or error}; {files.remedy(error, link)}."
        ) from error
    try:
        files.remove(owner)  # were it a link, the number would be written to where it leads
        owner.write_text(f"{os.getpid()}\n")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
