"""What else a finished run holds beside its encyclopedia: record, interpreter, calibration, figures, pages.

The seal lists the sha256 of each of these files by its path in the run directory. A file is replaced in three steps:
`accept` adds the new sha256 to the old one, the file is replaced, and the next `accept`, or `settle`, drops the old
one. So the seal fits whatever a process leaves that is killed. A run without a seal is not finished, and nothing of it
is listed. The seal of encyclo's first version lists nothing either.
"""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from encyclo.errors import DamagedError, EncycloWarning, StoreError, without_advice
from encyclo.storage import checksums, files, safe_read
from encyclo.storage.checksums import LISTED, SEAL, Seal, Sums

RECORD, PAGE, METRICS = "run.json", "report.html", "metrics.json"


def accept(run: Path, sums: Mapping[str, str], folder: str | None = None) -> None:
    """Let the seal accept files with these sha256, as well as those that are there; of `folder`, no others.

    Does nothing if the run has no seal, or one that lists no files. Only for the holder of the run's lock.
    """
    seal = _listing(run)
    if seal is None or seal.run_files is None:
        return
    listed = {name: _still_true(run, name, known) for name, known in seal.run_files.items()}
    added: dict[str, str | None] = {
        name: new for name, new in sums.items() if any(_is_in(name, root) for root in LISTED)
    }
    if folder is not None:
        added |= {name: None for name in listed if _is_in(name, folder) and name not in sums}
    finished = (run / METRICS).exists()
    for name, new in added.items():
        # A new file may be missing if the process is killed, but for those that end a run: it must go on anyway.
        missing = () if name in (PAGE, METRICS) and not finished else (None,)
        listed[name] = tuple(dict.fromkeys((*listed.get(name, missing), new)))
    listed = {name: known for name, known in listed.items() if known != (None,)}
    if listed != seal.run_files:
        checksums.save_seal(run, dataclasses.replace(seal, run_files=listed))


def settle(run: Path) -> None:
    """Let the seal accept only the files that are there, after some were replaced."""
    accept(run, {})


def write_text(run: Path, name: str, text: str) -> None:
    """Replace a file of the run, durably; its seal accepts it. Raises StoreError if the disk refuses."""
    accept(run, {name: hashlib.sha256(text.encode()).hexdigest()})
    files.write_text(run / name, text)


def write_json(run: Path, name: str, value: Any) -> None:
    """Replace a file of the run with `value` as JSON, as `write_text` does."""
    write_text(run, name, files.json_text(value))


def check(run: Path, name: str, content: bytes | None, seal: Seal | None = None) -> None:
    """Compare the content of a file (None: there is none) with the run's seal; pass `seal` if it was read.

    Raises DamagedError if the file was changed or is another run's. Warns if the seal lists no files.
    """
    if seal is not None and _is_listed(seal, name, content):
        return
    if not (run / SEAL).exists():
        return
    seal = checksums.read_seal(run)  # again: `encyclo evaluate` may have replaced file and seal meanwhile
    if seal.run_files is None:
        warn_first_version(run)
    elif not _is_listed(seal, name, content):
        fault = _fault(name, content, seal)
        raise DamagedError(f"{run / name}: {fault}; {checksums.ADVICE}.")


def read_json(run: Path, name: str, *, at_most: int, advice: str, seal: Seal | None = None) -> Any:
    """Return what a file of the run holds in JSON, after comparing it with the seal as `check` does.

    Raises DamagedError, with the `advice` if it can't be read.
    """
    content = safe_read.read_bytes(run / name, at_most=at_most, within=run, advice=advice)
    check(run, name, content, seal)
    try:
        return safe_read.parse_json(content)
    except ValueError as problem:
        raise safe_read.refusal(run / name, str(problem), advice, DamagedError) from problem


def check_record(run: Path, seal: Seal) -> None:
    """Compare run.json with the seal of the encyclopedia. Raises DamagedError if it is another run's."""
    content = None
    if (run / RECORD).exists():
        content = safe_read.read_bytes(run / RECORD, at_most=safe_read.RUN_JSON, within=run)
    check(run, RECORD, content, seal)


def check_finished_record(run: Path) -> None:
    """Compare run.json with the seal if the run is finished. Raises DamagedError if it is another run's."""
    if (run / METRICS).exists() and (run / SEAL).exists():
        check_record(run, checksums.read_seal(run))


def faults(run: Path, seal: Seal) -> Iterator[tuple[str, str]]:
    """Yield each file that is not as listed: its path in the run directory, and what is wrong.

    If metrics.json is missing, the run is not finished, and other files may be missing too.
    """
    found = list(_faults(run, seal))
    # A running command may have replaced file and seal meanwhile.
    again = checksums.read_seal(run) if found else seal
    yield from found if again.run_files == seal.run_files else _faults(run, again)


def _faults(run: Path, seal: Seal) -> Iterator[tuple[str, str]]:
    finished = (run / METRICS).exists()
    there: dict[str, str | None] = dict.fromkeys(seal.run_files or ())
    for root in LISTED:
        if not (run / root).is_symlink() and not (run / root).exists():
            continue
        try:
            names = checksums.names_under(run, root)
            there |= {name: files.sha256_of(run / name, safe_read.LARGEST_FILE) for name in names}
        except (OSError, ValueError, DamagedError) as error:
            there = {name: found for name, found in there.items() if not _is_in(name, root)}
            yield root, without_advice(error).removeprefix(f"{run}/")
    for name, found in sorted(there.items()):
        if (finished or found is not None) and found not in (seal.run_files or {}).get(name, (None,)):
            yield name, _fault(name, found, seal)


def seal_as_it_is(run: Path, run_id: str) -> None:
    """List the files that are there in the seal of a run of encyclo's first version. Only for the lock's holder."""
    seal = checksums.read_seal(run)
    checksums.save_seal(
        run, dataclasses.replace(seal, run_id=run_id, run_files=checksums.list_run_files(run))
    )


def warn_first_version(run: Path) -> None:
    """Warn of what isn't checked in a run of encyclo's first version: always the same of a run, so printed once."""
    seal = _listing(run)
    if seal is not None and seal.run_files is None:
        what = (
            "another run's interpreter, calibration or figures in it, or another tokenizer or configuration of its "
            "model"
        )
        advice = f"`encyclo verify {run}` says how to seal it"
    else:
        what = "another tokenizer or configuration of its model"
        advice = "make sure that its model is unchanged"
    warnings.warn(
        f"The run in {run} is of encyclo's first version: {what} would not be noticed; {advice}.",
        EncycloWarning,
        stacklevel=1,
    )


def _listing(run: Path) -> Seal | None:
    """Return the seal that a change must keep right; None if there is none, or none that can be read."""
    try:
        return checksums.read_seal(run)
    except StoreError:
        return None


def _still_true(run: Path, name: str, known: Sums) -> Sums:
    """Return the one of several sums that the file has, or all of them if it has another."""
    if len(known) == 1:
        return known
    found = files.sha256_of(run / name) if (run / name).is_file() else None
    return (found,) if found in known else known


def _is_listed(seal: Seal, name: str, content: bytes | None) -> bool:
    found = None if content is None else hashlib.sha256(content).hexdigest()
    return seal.run_files is not None and found in seal.run_files.get(name, (None,))


def _fault(name: str, found: object, seal: Seal) -> str:
    if found is None:
        return "it is missing"
    if name not in (seal.run_files or {}):
        return "it is not the run's, since seal.json doesn't list it"
    return "it is not what the run wrote, since it was changed or is another run's"


def _is_in(name: str, root: str) -> bool:
    return name == root or name.startswith(f"{root}/")
