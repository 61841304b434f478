"""Reads a user's list as records: decodes it and splits it into lines and cells.

Formats: csv and tsv (a header, then one record per row), jsonl (one JSON object per line), names (one name per line).
As spreadsheets write it, a table may separate its cells in another way, say so in a first line `sep=;`, and have empty
columns.
Blank lines are ignored in all formats. Anything else that can't be read raises UsageError with its line.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from encyclo.errors import UsageError
from encyclo.regular_files import read_bytes

FORMATS = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "names",
    ".names": "names",
}  # fmt: skip
"""Formats by file extension."""
LONGEST_LINE = 1_000_000
"""Maximum characters per line; a longer line means missing line ends or another kind of file."""
_LARGEST = 2**30
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))

_SEPARATOR = re.compile(r'\s*"?sep=(.)"?\s*', re.IGNORECASE)
"""The line in which a spreadsheet says what separates the cells."""
_LONGEST_HEADER = 100_000  # a longer one may hold a cell that the csv module refuses
_DELIMITERS = (",", ";", "\t", "|")

Place = int | str
"""The line where a record begins (from 1); in a file that has no lines, such as "item 3"."""
Record = tuple[Place, dict[str, Any]]
"""A record's place, and its values by column."""


def where(place: Place) -> str:
    """Return a place for a message: `line 3`."""
    return f"line {place}" if isinstance(place, int) else place


def fault(path: Path, place: Place, what: str) -> UsageError:
    """Return the error for a place in a list; `what` says what is wrong."""
    return UsageError(f"{path} {where(place)}: {what}.")


def shown(value: Any) -> str:
    """Return a value for an error message, in at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_records(
    path: Path,
    kind: str,
    columns: Sequence[str],
    flag: str,
    delimiter: str | None = None,
    encoding: str | None = None,
    encoding_option: str = "",
) -> Iterator[Record]:
    """Yield a list's records. Each has some of `columns`, always the first one.

    `delimiter` separates cells; the default is what a line `sep=;` says or the header shows. Error messages suggest
    `flag` (such as `-o file.path=FILE`) for the file and `encoding_option`, unless empty, for its encoding. Raises
    UsageError, naming the file and the line, if the list can't be read.
    """
    text = decode(path, content_of(path, flag), encoding, encoding_option)
    if kind == "names":
        return ((line, {"name": name}) for line, name in _lines(path, text) if name.strip())
    if kind == "jsonl":
        return _objects(path, text, columns)
    return _rows(path, text, columns, delimiter, "\t" if kind == "tsv" else ",")


def decode(path: Path, content: bytes, encoding: str | None, encoding_option: str = "") -> str:
    """Decode with `encoding`, else as a byte-order mark says, else as UTF-8. Raises UsageError if that fails."""
    marked = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    chosen = encoding or marked or "utf-8"
    try:
        text = content.decode(chosen)
    except UnicodeDecodeError as error:
        before = content[: error.start].decode(chosen, "replace")
        advice = f" or name its encoding, such as -o {encoding_option}=cp1252" if encoding_option else ""
        raise fault(
            path,
            _line_of(before, len(before)),
            f"it is not in {chosen.upper().removesuffix('-SIG')} ({error.reason}); save the file as UTF-8{advice}",
        ) from None
    except UnicodeError as error:  # some encodings don't give the position
        reason = " ".join(str(error).split())
        raise fault(path, 1, f"it is not in {chosen.upper()} ({reason}); save the file as UTF-8") from None
    text = text.removeprefix("\ufeff")
    if (place := text.find("\0")) >= 0:
        advice = (
            f"name its encoding with -o {encoding_option}, such as utf-16-le"
            if encoding_option
            else "use UTF-8"
        )
        raise fault(path, _line_of(text, place), f"it contains a NUL character; if it is text, {advice}")
    return text


def content_of(path: Path, flag: str) -> bytes:
    """Return a list's bytes. Raises UsageError, which suggests `flag`, if it can't be read."""
    advice = f"name a file of at most 1 GB with {flag}"
    return read_bytes(path, at_most=_LARGEST, advice=advice, error=UsageError)


def _line_of(text: str, place: int) -> int:
    """Return the line (from 1) of a position in a text, counted like `_lines`."""
    before = text[:place]
    return before.count("\n") + before.count("\r") - before.count("\r\n") + 1


def _lines(path: Path, text: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, line with its end). Lines end with a line feed, a carriage return or both."""
    for number, line in enumerate(io.StringIO(text, newline=""), start=1):
        if len(line) > LONGEST_LINE:
            raise fault(
                path,
                number,
                f"it has {len(line):,} characters, but at most {LONGEST_LINE:,} are allowed; put each entry on "
                "its own line",
            )
        yield number, line


def check_columns(path: Path, place: Place, names: Sequence[str], columns: Sequence[str], hint: str) -> None:
    """Raise UsageError if a name is not in `columns`, or if the first of these is missing."""
    known = f"the columns are {', '.join(columns)}{hint}"
    if unknown := [name for name in names if name not in columns]:
        raise fault(path, place, f"there is no column {shown(unknown[0])}; {known}")
    if columns[0] not in names:
        raise fault(path, place, f"the column {columns[0]!r} is missing; {known}")


def _rows(
    path: Path, text: str, columns: Sequence[str], delimiter: str | None, usual: str
) -> Iterator[Record]:
    """Yield the rows of a table with a header; a cell in quotation marks may contain line ends."""
    begin, first = next(((n, line) for n, line in _lines(path, text) if line.strip()), (1, ""))
    if said := _SEPARATOR.fullmatch(first):
        begin += 1
        delimiter = delimiter or said[1]
    skipped = begin - 1
    lines = (line for number, line in _lines(path, text) if number > skipped)
    delimiter = delimiter or _delimiter(first, columns, usual)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise fault(path, begin, _csv_fault(error, skipped + reader.line_num, begin)) from None
        if any(cell.strip() for cell in cells):
            if header is None:
                header = _header(path, begin, cells)
                check_columns(
                    path, begin, list(filter(None, header)), columns, ", and the first line names them"
                )
            elif _fits(path, begin, cells, header):
                yield begin, {name: cell for name, cell in zip(header, cells, strict=False) if name}
            else:
                raise fault(
                    path,
                    begin,
                    f"it has {len(cells)} cells and the header has {len(header)} column"
                    f"{'s' * (len(header) != 1)}; put a cell that contains "
                    f"the delimiter {delimiter!r} in quotation marks",
                )
        begin = skipped + reader.line_num + 1


def _delimiter(header: str, columns: Sequence[str], usual: str) -> str:
    """Return the delimiter that makes known columns of the header, else that of most known ones, else the usual one."""
    known: dict[str, int] = {}
    for delimiter in (usual, *_DELIMITERS):
        cells = next(csv.reader([header[:_LONGEST_HEADER].rstrip("\r\n")], delimiter=delimiter), [])
        names = [name for name in map(_column, cells) if name]
        if columns[0] in names and set(names) <= set(columns):
            return delimiter
        known[delimiter] = len(set(names) & set(columns))
    return max(known, key=known.__getitem__)  # the usual one comes first


def _fits(path: Path, line: int, cells: Sequence[str], header: Sequence[str]) -> bool:
    """Return whether a row has a cell for each named column, and others only if they are empty.

    Raises UsageError for a cell in a column without a name.
    """
    for place, (cell, name) in enumerate(zip(cells, header, strict=False), start=1):
        if cell.strip() and not name:
            raise fault(
                path, line, f"column {place} has the cell {shown(cell)} and no name; name or remove it"
            )
    return not any(header[len(cells) :]) and not any(cell.strip() for cell in cells[len(header) :])


def _column(cell: str) -> str:
    """Return a column's name in lower case, with underscores for blanks."""
    return cell.strip().lower().replace(" ", "_")


def _csv_fault(error: csv.Error, end: int, begin: int) -> str:
    """Return the csv module's error as a description for `fault`."""
    unclosed = 'a quotation mark that opens in this row is not closed; write a quotation mark in a cell as ""'
    if "field limit" in str(error):
        return f"a cell has more than {csv.field_size_limit():,} characters, or {unclosed}"
    if "unexpected end" in str(error):
        return unclosed
    where = f" (line {end})" if end != begin else ""
    return f"its cells can't be separated{where}: {error}; put a cell with quotation marks in quotation marks"


def _header(path: Path, line: int, cells: list[str]) -> list[str]:
    """Return the column names; that of an empty column is empty."""
    names = list(map(_column, cells))
    for place, name in enumerate(names):
        if name and name in names[:place]:
            raise fault(path, line, f"the column {shown(name)} appears twice; remove or rename one")
    return names


def _objects(path: Path, text: str, columns: Sequence[str]) -> Iterator[Record]:
    for number, line in _lines(path, text):
        if not line.strip():
            continue
        try:
            value = json.loads(line, object_pairs_hook=without_repeats)
        except RecursionError:
            raise fault(
                path,
                number,
                'its JSON is nested too deeply; write an object such as {"name": "dog"}',
            ) from None
        except ValueError as error:
            raise fault(
                path, number, f"it is not a JSON object: {json_reason(error)}; correct this line"
            ) from None
        if not isinstance(value, dict):
            raise fault(
                path, number, 'it is not a JSON object, such as {"name": "dog"}; write one in each line'
            )
        value = {key: entry for key, entry in value.items() if entry is not None}
        check_columns(path, number, list(value), columns, "")
        yield number, value


def json_reason(error: Exception) -> str:
    """Return why one line is no JSON, and at which of its characters (from 1)."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg.removesuffix(' at')} at character {error.colno:,}"
    return str(error)


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object's entries; for `object_pairs_hook`. Raises ValueError if it has a key twice."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"it has the key {shown(repeated)} twice")
    return entries
