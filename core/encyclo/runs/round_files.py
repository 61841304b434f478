"""The records of a round: they name their run, and a result the interpreter beside it.

    rounds/0/plan.json, result.json   sealed records; `run` is the run's id
    rounds/0/interpreter/sha256.json  its own sha256 is `interpreter` in result.json

Records of encyclo's first version have neither key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from encyclo.errors import DamagedError, EncycloError
from encyclo.runs.interpreter_folder import FOLDER, SUMS, check_sums
from encyclo.storage import checksums, files, safe_read

RESULT = "result.json"


def write(path: Path, run_id: str, content: Mapping[str, Any]) -> None:
    """Write a record unless it is there. That of a result needs its interpreter in place."""
    record = {"run": run_id, **content}
    sums = path.parent / FOLDER / SUMS
    if path.name == RESULT and sums.exists():
        record["interpreter"] = files.sha256_of(sums)
    files.create_json(path, checksums.sealed(record))


def read(run: Path, path: Path, run_id: str) -> dict[str, Any]:
    """Return a record without what `write` added to it.

    Raises DamagedError if it was changed or is another run's.
    """
    content = _read(run, path)
    if content.pop("run", run_id) != run_id:
        raise DamagedError(f"{path} is another run's; {advice(run)}.")
    content.pop("interpreter", None)
    return content


def interpreter(run: Path, folder: Path) -> Path:
    """Return the folder of the interpreter of the round in `folder`. Raises DamagedError if it isn't the round's."""
    expected = _read(run, folder / RESULT).get("interpreter")
    sums = folder / FOLDER / SUMS
    if expected is not None and (not sums.is_file() or files.sha256_of(sums) != expected):
        raise DamagedError(f"{sums} is not what the run wrote; {advice(run)}.")
    return folder / FOLDER


def problems(run: Path, run_id: str) -> Iterator[tuple[str, EncycloError]]:
    """Yield what is wrong with the run's rounds: a path in the run directory, and the error."""
    for folder in sorted((run / "rounds").glob("[0-9]*")):
        for name in ("plan.json", RESULT):
            if (folder / name).exists():
                try:
                    read(run, folder / name, run_id)
                    if name == RESULT:
                        check_sums(interpreter(run, folder))
                except EncycloError as error:
                    yield (folder / name).relative_to(run).as_posix(), error


def _read(run: Path, path: Path) -> dict[str, Any]:
    return checksums.read_sealed(path, at_most=safe_read.ROUND_JSON, within=run, advice=advice(run))


def advice(run: Path) -> str:
    """Return what to do about a round that can't be read, as the end of a sentence."""
    return (
        f"delete the folder {run / 'rounds'} and run the same `encyclo run` command again: samples "
        "are kept, and only the rounds are decided anew"
    )
