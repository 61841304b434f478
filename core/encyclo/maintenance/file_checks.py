"""Checks the files of a run beside its encyclopedia and its parts: are they its own, and as they were written?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from encyclo.errors import EncycloError, without_advice
from encyclo.runs import calibration_file, metrics, round_files
from encyclo.runs.interpreter_folder import FOLDER, check_sums
from encyclo.storage import checksums, files, run_files


def run_file_faults(run: Path) -> Iterator[tuple[str, str]]:
    """Yield each file that a finished run's seal doesn't accept: its path in the run directory, and what is wrong.

    A seal of encyclo's first version lists no files: each is then checked by what it says itself. Raises StoreError if
    there is a seal and it can't be read.
    """
    if not (run / checksums.SEAL).exists():
        return
    seal = checksums.read_seal(run)
    if seal.run_files is not None:
        yield from run_files.faults(run, seal)
        return
    checks: dict[str, Callable[[], object]] = {
        FOLDER: lambda: check_sums(run / FOLDER),
        metrics.FILE: lambda: metrics.read_metrics(run) if (run / metrics.FILE).exists() else None,
        calibration_file.FILE: lambda: calibration_file.load_calibration(run),
    }
    for name, check in checks.items():
        try:
            check()
        except EncycloError as error:
            yield name, _without_path(error, run / name)


def round_faults(run: Path, run_id: str) -> Iterator[tuple[str, str]]:
    """Yield each record of a round that was changed or is another run's: its path, and what is wrong."""
    for name, error in round_files.problems(run, run_id):
        yield name, _without_path(error, run / name)


def leftovers(run: Path) -> list[str]:
    """Return the temporary files and folders in the run directory, by their paths in it."""
    found = sorted(path.relative_to(run).as_posix() for path in run.rglob(f"{files.TEMPORARY}*"))
    return [name for name in found if f"/{files.TEMPORARY}" not in f"/{name.rpartition('/')[0]}"]


def _without_path(error: EncycloError, path: Path) -> str:
    text, start = without_advice(error), f"{path} "
    return f"it {text.removeprefix(start)}" if text.startswith(start) else text
