"""`encyclo export`: write a run's results into files for other programs.

    vectors.safetensors   raw, centred [C, L, H], centre [L, H], scale [L, H] float32; count [C] int32
    interpreter/          as in the run: model.safetensors, config.json, sha256.json
    entries.csv           a row for each entry, with the columns of `to_pandas`; see `csv_cell`
    entries.parquet       the same
    control/*.gguf        a llama.cpp control vector for each chosen concept; see `encyclo.export.control_vectors`
    metadata.json         model, layers, site, pooling, echo, chat, hashes, licences, and every file's sha256

docs/export.md shows how to read each of them.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.errors import UsageError
from encyclo.export import control_vectors
from encyclo.optional_packages import require
from encyclo.plugins.manager import Plugins
from encyclo.query.encyclopedia import Encyclopedia, entry_columns, open_run
from encyclo.runs.interpreter_folder import SUMS, check_sums
from encyclo.runs.session import licence_of_lists
from encyclo.statistics.similarity import centre_and_scale
from encyclo.storage import files, safe_read
from encyclo.text import utf8

FORMAT = "encyclo-export/1"
NOT_RECORDED = "not recorded; see where it comes from"
_FORMULA = re.compile("'*[=+\\-@\t\r]")


def export(
    path: Path,
    out: Path,
    control: Sequence[str] = (),
    model_hint: str | None = None,
    parquet: bool = True,
) -> dict[str, Any]:
    """Export the finished run in `path` into the new folder `out`; return the content of metadata.json.

    The folder is written completely or not at all. `control` names the concepts of the control vectors.
    Raises UsageError for a folder that is not empty, an unknown concept, or a run without a layer that
    llama.cpp can shift; MissingDependencyError; StoreError for an unfinished run; DamagedError.
    """
    _check_free(out)
    _check_installed(control, parquet)
    with open_run(path) as book:
        vectors = concept_vectors(book)
        steering = [control_vectors.find(book, name, vectors["centred"]) for name in control]
        interpreter = book.path / "interpreter"
        metadata = describe(book)
        metadata["control"] = {vector.file: vector.json() for vector in steering}
        with files.new_folder(out) as folder:
            _write_vectors(folder / "vectors.safetensors", vectors, metadata)
            _copy_interpreter(interpreter, folder / "interpreter")
            columns = entry_columns(book.book.concepts, book.own_readings)
            write_csv(folder / "entries.csv", columns)
            if parquet:
                write_parquet(folder / "entries.parquet", columns)
            for vector in steering:
                control_vectors.write(folder, vector, model_hint or Path(metadata["model"]).name)
            metadata["files"] = {
                file.relative_to(folder).as_posix(): {
                    "bytes": file.stat().st_size,
                    "sha256": files.sha256_of(file),
                }
                for file in sorted(folder.rglob("*"))
                if file.is_file()
            }
            files.write_json(folder / "metadata.json", metadata)
    return metadata


def concept_vectors(book: Encyclopedia) -> dict[str, NDArray[Any]]:
    """Return the arrays of vectors.safetensors.

    centred is raw minus `centre`, the mean over the concepts that have samples; `scale` is each dimension's
    standard deviation over them. A concept without samples has zeros in raw and centred.
    """
    signatures = book.book.signatures
    seen = signatures.count > 0
    raw = np.ascontiguousarray(signatures.mean, np.float32)
    centre, scale = centre_and_scale(raw[seen])
    centred = np.where(seen[:, None, None], raw - centre, np.float32(0))
    count = signatures.count.astype(np.int32)
    return {"raw": raw, "centred": centred, "centre": centre, "scale": scale, "count": count}


def describe(book: Encyclopedia) -> dict[str, Any]:
    """Return the run's record in metadata.json."""
    attributes, provenance = book.book.attributes, book.record.get("provenance") or {}
    config, table = book.record["config"], book.book.concepts
    licences = provenance.get("licences") or {}
    lists = [config["concepts"]] if isinstance(config["concepts"], str) else config["concepts"]
    return {
        "format": FORMAT,
        "model": attributes.model,
        "model_source": provenance.get("model_source"),
        "weights_sha256": attributes.weights_sha256,
        "layers": list(attributes.layers),
        "layer_index": list(attributes.layer_index),
        "site": book.site,
        "pooling": attributes.pooling,
        "echo": book.echo,
        "chat": config.get("chat_frame"),
        "hidden_size": attributes.hidden_size,
        "interpreter": config["interpreter"],
        "concept_list": ", ".join(lists),
        "concepts_sha256": config.get("concepts_sha256"),
        "run_id": attributes.run_id,
        "created": attributes.created,
        "encyclo_version": attributes.encyclo_version,
        "licences": {
            "model": licences.get("model") or NOT_RECORDED,
            "concepts": licences.get("concepts") or licence_of_lists(Plugins(), lists) or NOT_RECORDED,
        },
        "concepts": [
            {"id": utf8(id), "name": utf8(name)} for id, name in zip(table.id, table.name, strict=True)
        ],
    }


def write_csv(path: Path, columns: Mapping[str, Any]) -> None:
    """Write the entries as CSV (UTF-8, RFC 4180 line ends); a figure that was not measured is empty."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow([csv_cell(value) for value in row])


def csv_cell(value: Any) -> str:
    """Return a cell that no spreadsheet reads as a formula.

    A text that begins with = + - @, a tab or a carriage return (after any apostrophes) gets an apostrophe in
    front; remove one apostrophe from such a cell to restore the text.
    """
    if isinstance(value, str):
        return f"'{utf8(value)}" if _FORMULA.match(value) else utf8(value)
    return "" if isinstance(value, np.floating) and np.isnan(value) else str(value)


def write_parquet(path: Path, columns: Mapping[str, Any]) -> None:
    """Write the entries as Parquet; texts are unchanged, and a figure that was not measured is NaN."""
    import pyarrow
    from pyarrow import parquet

    plain = {
        name: [utf8(text) for text in column] if isinstance(column, list) else column
        for name, column in columns.items()
    }
    parquet.write_table(pyarrow.table(plain), path)


def _copy_interpreter(source: Path, target: Path) -> None:
    """Copy the files that have checksums, and the checksums; nothing else, such as a link."""
    for path in (*check_sums(source), source / SUMS):
        copy = target / path.relative_to(source)
        files.make_folder(copy.parent)
        safe_read.copy_tree(path, copy, within=source)


def _write_vectors(path: Path, vectors: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> None:
    from safetensors.numpy import save_file

    plain = (
        "format",
        "model",
        "weights_sha256",
        "layers",
        "layer_index",
        "site",
        "pooling",
        "echo",
        "chat",
        "run_id",
        "encyclo_version",
    )
    # One key: safetensors writes several keys in an order that varies between processes.
    header = {"encyclo": json.dumps({key: metadata[key] for key in plain}, sort_keys=True)}
    save_file(vectors, path, metadata=header)


def _check_free(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out} is not empty; choose a new or an empty folder.")


def _check_installed(control: Sequence[str], parquet: bool) -> None:
    needed = [("pyarrow", "entries.parquet", " (or leave it out with --no-parquet)")] if parquet else []
    needed += [("gguf", "control vectors", "")] if control else []
    for package, what, instead in needed:
        require(package, f"Writing {what}", "export", instead)
