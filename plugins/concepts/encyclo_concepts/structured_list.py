"""Reads a user's list that is not made of lines: a .json or a .parquet file."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from encyclo.errors import MissingDependencyError, UsageError
from encyclo.table_files import Record, check_columns, fault, shown, without_repeats

PANDAS_INDEX = "__index_level_"
"""How the name of a column begins that pandas writes for its row numbers."""


def json_records(path: Path, text: str, columns: Sequence[str]) -> Iterator[Record]:
    """Yield the records of a JSON list, their places as "item 3"; `columns` begins with `name`.

    The list is an array of names or of objects with `name` (or `term`), or an object from names to definitions or to
    objects; either may stand under `concepts`. Raises UsageError, naming the line or the item, for anything else.
    """
    try:
        content = json.loads(text, object_pairs_hook=without_repeats)
    except RecursionError:
        raise fault(path, "content", "its JSON is nested too deeply; write an array of names") from None
    except json.JSONDecodeError as error:
        raise fault(path, error.lineno, f"it is not JSON: {error.msg}; correct this line") from None
    except ValueError as error:
        raise fault(path, "content", f"it is not JSON that can be read: {error}; correct the file") from None
    if isinstance(content, dict) and isinstance(content.get("concepts"), list | dict):
        content = content["concepts"]
    if isinstance(content, dict):
        items = [_of_entry(name, value) for name, value in content.items()]
    elif isinstance(content, list):
        items = [{"name": item} if isinstance(item, str) else item for item in content]
    else:
        raise fault(path, "content", 'it holds no list; write an array of names, such as ["dog", "cat"]')
    for number, item in enumerate(items, start=1):
        if not isinstance(item, dict):
            raise fault(
                path, f"item {number}", f"it can't be {shown(item)}; write a name or an object with a name"
            )
        yield _record(path, f"item {number}", item, columns)


def parquet_records(path: Path, content: bytes, columns: Sequence[str]) -> Iterator[Record]:
    """Yield the rows of a Parquet file, their places as "row 3"; empty cells are left out.

    Raises MissingDependencyError without pyarrow, UsageError if the file can't be read.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingDependencyError(
            f"{path} is a Parquet file, which needs the package pyarrow; install it with: pip install 'encyclo[export]'"
        ) from None
    try:
        rows = parquet.read_table(io.BytesIO(content)).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise UsageError(f"{path} can't be read as Parquet: {reason}; write it again, or as .csv.") from error
    for number, row in enumerate(rows, start=1):
        cells = {
            name.strip().lower().replace(" ", "_"): value
            for name, value in row.items()
            if value == value and not name.startswith(PANDAS_INDEX)  # pandas writes NaN for an empty cell
        }
        yield _record(path, f"row {number}", cells, columns)


def _of_entry(name: str, value: Any) -> Any:
    """Return the object that an entry `name: value` of a JSON object means."""
    if isinstance(value, dict):
        return {"name": name, **value}
    return {"name": name, "definition": value}


def _record(path: Path, place: str, item: dict[str, Any], columns: Sequence[str]) -> Record:
    found = {key: value for key, value in item.items() if value is not None}
    if "name" not in found and "term" in found:
        found["name"] = found.pop("term")
    check_columns(path, place, list(found), columns, "")
    return place, found
