"""The folder of a run's interpreter: the files that its plugin saved, and their sha256."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from encyclo.errors import DamagedError
from encyclo.plugins.manager import Plugins
from encyclo.storage import files, safe_read
from encyclo.types import Context, Interpreter

SUMS = "sha256.json"


def save_interpreter(plugins: Plugins, name: str, interpreter: Interpreter, folder: Path) -> None:
    """Let the plugin `name` write the interpreter's files, add their sha256, replace `folder`."""
    with files.replacing_folder(folder) as fresh:
        with plugins.blame(name):
            interpreter.save(fresh)
        sums = {
            path.relative_to(fresh).as_posix(): files.sha256_of(path)
            for path in sorted(fresh.rglob("*"))
            if path.is_file()
        }
        files.write_json(fresh / SUMS, sums)


def load_interpreter(
    plugins: Plugins, name: str, folder: Path, context: Context, concepts: Sequence[str]
) -> Interpreter:
    """Load an interpreter of `concepts` that `save_interpreter` wrote.

    Raises DamagedError if a file was changed, PluginError if the interpreter knows other concepts.
    """
    check_sums(folder)
    loaded: Interpreter = plugins.call("load_interpreter", name, folder=folder, context=context)
    return check_concepts(plugins, name, loaded, concepts)


def check_concepts(
    plugins: Plugins, name: str, interpreter: Interpreter, concepts: Sequence[str]
) -> Interpreter:
    """Return an interpreter that knows `concepts`, ids in their order. Raises PluginError for another."""
    if interpreter.concepts != list(concepts):
        raise plugins.fault(name, "returned an interpreter that doesn't know the run's concepts")
    return interpreter


def check_sums(folder: Path) -> list[Path]:
    """Compare a folder's files with their sha256; return their paths. Raises DamagedError naming a file."""
    path = folder / SUMS
    try:
        sums = dict(safe_read.read_json(path, at_most=safe_read.INTERPRETER_JSON, within=folder))
        names = [PurePosixPath(name) for name in sums]
    except (ValueError, TypeError) as error:
        raise safe_read.refusal(path, str(error), safe_read.RESTORE, DamagedError) from error
    for name, expected in zip(names, sums.values(), strict=True):
        path = folder / name
        inside = not name.is_absolute() and ".." not in name.parts
        linked = any(folder.joinpath(*name.parts[:end]).is_symlink() for end in range(1, len(name.parts) + 1))
        if (
            not inside
            or linked
            or not path.is_file()
            or files.sha256_of(path, safe_read.LARGEST_FILE) != expected
        ):
            raise DamagedError(
                f"{path} is not the file that the run wrote; repeat `encyclo run` with a new --out."
            )
    return [folder / name for name in names]
