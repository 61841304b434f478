"""The folder of an interpreter: the files that its plugin saved, and their sha256.

Each round keeps one. That of the run itself lies beside its seal, which lists its files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from encyclo.errors import DamagedError
from encyclo.plugins.manager import Plugins
from encyclo.storage import files, run_files, safe_read
from encyclo.storage.checksums import Seal
from encyclo.types import Context, Interpreter

FOLDER, SUMS = "interpreter", "sha256.json"


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
        sums[SUMS] = files.sha256_of(fresh / SUMS)
        own = {f"{folder.name}/{path}": sum_ for path, sum_ in sums.items()}
        run_files.accept(folder.parent, own, folder.name)


def load_interpreter(
    plugins: Plugins,
    name: str,
    folder: Path,
    context: Context,
    concepts: Sequence[str],
    seal: Seal | None = None,
) -> Interpreter:
    """Load an interpreter of `concepts` that `save_interpreter` wrote.

    Raises DamagedError as `check_sums` does, PluginError if the interpreter knows other concepts.
    """
    check_sums(folder, seal)
    loaded: Interpreter = plugins.call("load_interpreter", name, folder=folder, context=context)
    return check_concepts(plugins, name, loaded, concepts)


def check_concepts(
    plugins: Plugins, name: str, interpreter: Interpreter, concepts: Sequence[str]
) -> Interpreter:
    """Return an interpreter that knows `concepts`, ids in their order. Raises PluginError for another."""
    if interpreter.concepts != list(concepts):
        raise plugins.fault(
            name,
            "returned an interpreter whose concepts are not the run's; list all ids that it was given, in their order",
        )
    return interpreter


def check_sums(folder: Path, seal: Seal | None = None) -> list[Path]:
    """Compare a folder's files with their sha256, and these with the run's seal (pass it if it was read).

    Returns the files' paths. Raises DamagedError naming a file that was changed or is another run's.
    """
    path, limit = folder / SUMS, safe_read.INTERPRETER_JSON
    listed = f"{folder.name}/{SUMS}"
    try:
        content = run_files.read_json(
            folder.parent, listed, at_most=limit, advice=safe_read.RESTORE, seal=seal
        )
        sums = dict(content)
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
