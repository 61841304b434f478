"""A user's list as records: its encoding, its lines, its cells. Each record knows the line where it begins.

Formats: csv and tsv (a header, then a record a row), jsonl (a JSON object a line), names (a name a line). Blank
lines stand for nothing, everywhere. Nothing else is passed over: what can't be read is refused with its line.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from encyclo.errors import UsageError

FORMATS = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "names",
    ".names": "names",
}  # fmt: skip
"""What a file's extension says of its format."""
LONGEST_LINE = 1_000_000
"""Characters. What is longer is no concept: a missing line end, or another kind of file."""
_LARGEST = 2**30
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))

Record = tuple[int, dict[str, Any]]
"""The line where a record begins (from 1), and its values by column."""


def fault(path: Path, line: int, what: str) -> UsageError:
    """Return the error that says what is wrong in a line of a list."""
    return UsageError(f"{path} line {line}: {what}.")


def shown(value: Any) -> str:
    """Return a value as an error names it: at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_records(
    path: Path,
    kind: str,
    columns: Sequence[str],
    delimiter: str | None = None,
    encoding: str | None = None,
    option: str = "file.path",
    encoding_option: str = "file.encoding",
) -> Iterator[Record]:
    """Yield a list's records, each with some of `columns`, the first of them among them.

    Without a `delimiter` a comma stands between cells, in a tsv file a tab. Errors name the options that say which
    file it is and (where there is one) in which encoding. Raises UsageError naming the file and the line that
    can't be read.
    """
    text = decode(path, _content(path, option), encoding, encoding_option)
    if kind == "names":
        return ((line, {"name": name}) for line, name in _lines(path, text) if name.strip())
    if kind == "jsonl":
        return _objects(path, text, columns)
    return _rows(path, text, columns, delimiter or ("\t" if kind == "tsv" else ","))


def decode(path: Path, content: bytes, encoding: str | None, encoding_option: str = "file.encoding") -> str:
    """Return the text: in `encoding`, or what a byte-order mark says, or UTF-8. Raises UsageError."""
    marked = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    chosen = encoding or marked or "utf-8"
    try:
        text = content.decode(chosen)
    except UnicodeDecodeError as error:
        before = content[: error.start].decode(chosen, "replace")
        named = f" or name its encoding, such as -o {encoding_option}=cp1252" if encoding_option else ""
        raise fault(
            path,
            _line_of(before, len(before)),
            f"it is not in {chosen.upper().removesuffix('-SIG')} ({error.reason}); save the file as UTF-8{named}",
        ) from None
    except UnicodeError as error:  # some encodings don't say where
        reason = " ".join(str(error).split())
        raise fault(path, 1, f"it is not in {chosen.upper()} ({reason})") from None
    text = text.removeprefix("\ufeff")
    if (place := text.find("\0")) >= 0:
        named = f"that -o {encoding_option} must name, such as utf-16-le" if encoding_option else "not UTF-8"
        raise fault(
            path,
            _line_of(text, place),
            f"it holds a NUL character; it is no text, or in an encoding {named}",
        )
    return text


def _content(path: Path, option: str) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"The list {path} can't be read: {reason}; name a file with -o {option}=FILE."
        ) from error
    if len(content) > _LARGEST:
        raise UsageError(f"The list {path} has more than 1 GB; split it into several lists.")
    return content


def _line_of(text: str, place: int) -> int:
    """Return the line (from 1) of a place in a text, as `_lines` counts."""
    before = text[:place]
    return before.count("\n") + before.count("\r") - before.count("\r\n") + 1


def _lines(path: Path, text: str) -> Iterator[tuple[int, str]]:
    """Yield (number, line with its end). Lines end with a line feed, a carriage return or both."""
    for number, line in enumerate(io.StringIO(text, newline=""), start=1):
        if len(line) > LONGEST_LINE:
            raise fault(
                path,
                number,
                f"it has {len(line):,} characters, more than the {LONGEST_LINE:,} that a concept may take; "
                "put each concept into a line of its own",
            )
        yield number, line


def _check_columns(path: Path, line: int, names: Sequence[str], columns: Sequence[str], hint: str) -> None:
    known = f"the columns are {', '.join(columns)}{hint}"
    if unknown := [name for name in names if name not in columns]:
        raise fault(path, line, f"there is no column {shown(unknown[0])}; {known}")
    if columns[0] not in names:
        raise fault(path, line, f"the column {columns[0]!r} is missing; {known}")


def _rows(path: Path, text: str, columns: Sequence[str], delimiter: str) -> Iterator[Record]:
    """Yield the rows of a table with a header; a cell in quotation marks may hold line ends."""
    reader = csv.reader((line for _, line in _lines(path, text)), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    begin = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise fault(path, begin, _csv_fault(error, reader.line_num, begin)) from None
        if any(cell.strip() for cell in cells):
            if header is None:
                header = _header(path, begin, cells)
                _check_columns(path, begin, header, columns, ", and the first line names them")
            elif len(cells) != len(header):
                raise fault(
                    path,
                    begin,
                    f"it has {len(cells)} cells and the header has {len(header)} columns; put a cell that holds "
                    f"the delimiter {delimiter!r} into quotation marks",
                )
            else:
                yield begin, dict(zip(header, cells, strict=True))
        begin = reader.line_num + 1


def _csv_fault(error: csv.Error, end: int, begin: int) -> str:
    """Return the csv module's error as the end of a sentence."""
    mark = 'a quotation mark that opens in this row is not closed; write a quotation mark in a cell as ""'
    if "field limit" in str(error):
        return f"a cell has more than {csv.field_size_limit():,} characters, or {mark}"
    if "unexpected end" in str(error):
        return mark
    where = f" (line {end})" if end != begin else ""
    return (
        f"its cells can't be told apart{where}: {error}; put a cell with quotation marks into quotation marks"
    )


def _header(path: Path, line: int, cells: list[str]) -> list[str]:
    """Return the columns' names, in lower case, blanks as underscores."""
    names = [cell.strip().lower().replace(" ", "_") for cell in cells]
    for place, name in enumerate(names):
        if not name:
            raise fault(path, line, f"column {place + 1} has no name")
        if name in names[:place]:
            raise fault(path, line, f"the column {shown(name)} is there twice")
    return names


def _objects(path: Path, text: str, columns: Sequence[str]) -> Iterator[Record]:
    for number, line in _lines(path, text):
        if not line.strip():
            continue
        try:
            value = json.loads(line, object_pairs_hook=_without_repeats)
        except RecursionError:
            raise fault(path, number, "it is nested too deeply for a concept") from None
        except ValueError as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise fault(path, number, f"it is no JSON object: {reason}") from None
        if not isinstance(value, dict):
            raise fault(path, number, 'it is no JSON object, such as {"name": "dog"}')
        value = {key: entry for key, entry in value.items() if entry is not None}
        _check_columns(path, number, list(value), columns, "")
        yield number, value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"it has the key {shown(twice)} twice")
    return found
