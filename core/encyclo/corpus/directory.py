"""The folder of a capture of texts: capture.json says what it is of, manifest.json lists its parts in order.

capture.json    the configuration, the versions, the self-test
manifest.json   what a complete capture holds; missing until then
commits/        a record for each part
parts/          the parts, one after another
"""

from __future__ import annotations

import json
import platform
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from encyclo.errors import DamagedError, RunDirectoryError
from encyclo.runs.config_differences import config_differences
from encyclo.runs.directory import check_usable, versions_of
from encyclo.storage import checksums, files, safe_read
from encyclo.storage.ledger import Commit, Ledger, locked
from encyclo.storage.safe_read import TEXTS_RECORD as RECORD
from encyclo.text import utf8

MANIFEST = "manifest.json"
AGAIN = "run the same `encyclo capture` command again"


Listed = tuple[str, int, str]
"""A unit's id, its rows and their checksum."""


@dataclass(frozen=True)
class Manifest:
    """What a complete capture holds: the texts, the skipped ones, and the units in the texts' order."""

    texts: int
    skipped: int
    units: tuple[Listed, ...]

    @property
    def tokens(self) -> int:
        """The stored tokens."""
        return sum(rows for _, rows, _ in self.units)


def is_capture(path: Path) -> bool:
    """Return whether a folder is a capture of texts."""
    return (path / RECORD).is_file()


def has_work(path: Path) -> bool:
    """Return whether a folder is a capture with something in it; one without takes another configuration."""
    return is_capture(path) and ((path / MANIFEST).exists() or bool(committed_units(path)))


@contextmanager
def claimed(
    out: Path, config: Mapping[str, Any], provenance: Mapping[str, Any], plugins: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Make or reopen the capture `out` and lock it for the block; give its record. Raises RunDirectoryError.

    `provenance` says where the model comes from; `plugins` are the packages that the capture depends on.
    """
    check_usable(out, RECORD)
    check_same(out, config)
    files.make_folder(out)
    with locked(out):
        check_same(out, config)
        if has_work(out):
            record = read_record(out)
        else:
            record = {**_new_record(config, plugins), "provenance": dict(provenance)}
            write_record(out, record)
        ledger = Ledger(out, AGAIN)
        ledger.create()
        ledger.sweep()
        yield record


def check_same(out: Path, config: Mapping[str, Any]) -> None:
    """Raise RunDirectoryError, saying what differs, if `out` holds a capture of another configuration."""
    if not has_work(out):
        return
    there, here = read_record(out)["config"], json.loads(json.dumps(config))
    if differences := config_differences(there, here):
        raise RunDirectoryError(
            f"{out} holds a capture with another configuration ({'; '.join(list(differences.values())[:6])}); "
            "use the same flags and files to continue it, or choose another --out."
        )


def read_record(out: Path) -> dict[str, Any]:
    """Return capture.json's content. Raises DamagedError if it can't be read."""
    record = _read(out, RECORD, safe_read.RUN_JSON, "capture the texts again into a new --out")
    if not isinstance(record.get("config"), dict) or not isinstance(record.get("run_id"), str):
        raise safe_read.refusal(
            out / RECORD, "it holds no configuration or no id", "capture the texts again", DamagedError
        )
    return record


def write_record(out: Path, record: Mapping[str, Any]) -> None:
    """Write capture.json, durably."""
    files.write_json(out / RECORD, checksums.sealed(record))


def write_manifest(out: Path, manifest: Manifest) -> None:
    """Write manifest.json, durably: the same texts and flags give the same bytes."""
    content = {
        "texts": manifest.texts,
        "skipped": manifest.skipped,
        "units": [list(u) for u in manifest.units],
    }
    files.write_text(out / MANIFEST, json.dumps(checksums.sealed(content), indent=1) + "\n")


def read_manifest(out: Path) -> Manifest | None:
    """Return manifest.json's content; None if the capture is not complete. Raises DamagedError."""
    if not (out / MANIFEST).exists():
        return None
    advice = f"delete it and {AGAIN} to write it again"
    content = _read(out, MANIFEST, safe_read.SEAL_JSON, advice)
    try:
        units = tuple((str(unit), int(rows), str(checksum)) for unit, rows, checksum in content["units"])
        return Manifest(int(content["texts"]), int(content["skipped"]), units)
    except (KeyError, TypeError, ValueError) as error:
        raise safe_read.refusal(out / MANIFEST, f"it is invalid ({error})", advice, DamagedError) from error


def units_of(out: Path, manifest: Manifest | None) -> tuple[Listed, ...]:
    """Return the units in the texts' order: the manifest's, or all that are committed if there is none.

    Raises DamagedError if there is no manifest and a commit record can't be read.
    """
    if manifest is not None:
        return manifest.units
    # One at a time: their checksums take gigabytes.
    commits = (Ledger(out, AGAIN).read(unit) for unit in sorted(committed_units(out)))
    return tuple((commit.unit, commit.rows, commit.checksum) for commit in commits)


def commit_of(out: Path, listed: Listed) -> Commit:
    """Return a unit's commit. Raises DamagedError if it can't be read, or is not the one that was listed.

    It is read when it is needed: the checksums in the records of a large capture take gigabytes.
    """
    unit, rows, checksum = listed
    path = Ledger(out).commits_folder / f"{unit}.json"
    if not path.exists():
        raise DamagedError(f"The record {path} is missing; {redo(unit)}.")
    commit = Ledger(out, AGAIN).read(unit)
    if (commit.rows, commit.checksum) != (rows, checksum):
        raise DamagedError(f"The record {path} is not the one that {MANIFEST} lists; {redo(unit)}.")
    return commit


def committed_units(out: Path) -> set[str]:
    """Return the names of the units that have a commit record."""
    found = (path.stem for path in Ledger(out).commits_folder.glob("*.json"))
    return {name for name in found if not name.startswith(files.TEMPORARY)}


def redo(unit: str) -> str:
    """Return how to capture a unit again, as the end of a sentence."""
    return f"delete {MANIFEST} and commits/{unit}.json, and {AGAIN} to capture that part again"


def _read(out: Path, name: str, at_most: int, advice: str) -> dict[str, Any]:
    return checksums.read_sealed(out / name, at_most=at_most, within=out, advice=advice)


def _new_record(config: Mapping[str, Any], plugins: Sequence[str]) -> dict[str, Any]:
    return {
        "run_id": uuid.uuid4().hex,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [utf8(word) for word in (Path(sys.argv[0]).name, *sys.argv[1:])],
        "config": json.loads(json.dumps(config)),
        "versions": versions_of({package.split()[0] for package in plugins}),
        "platform": {"python": platform.python_version(), "system": platform.platform()},
    }
