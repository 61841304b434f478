"""Reads texts from files, one after another: plain text, JSON Lines and Parquet.

Nothing is skipped without a word: whatever is no text is refused, with its file and line. Blank lines of a file whose
lines are texts or JSON objects separate and are no texts.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encyclo.corpus.settings import CaptureSettings
from encyclo.errors import UsageError
from encyclo.optional_packages import require
from encyclo.regular_files import open_file
from encyclo.table_files import json_reason, without_repeats
from encyclo.text import unstorable

FORMATS = {
    ".txt": "text", ".text": "text", ".md": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet",
}  # fmt: skip
"""Formats by file extension."""
LONGEST = 2**26
"""The most bytes of a text, and of a line: a text is tokenised as a whole."""
ROWS = 256
"""Rows of a Parquet file that are read at once."""
ADVICE = "name a file of texts"
BEGINNING = 2**20
"""About how many bytes of each file are read before a model is looked for."""
KINDS = {int: "a number", float: "a number", bool: "true or false", list: "a list", dict: "an object"}
"""What a field may hold instead of a text, for messages."""

Spans = tuple[tuple[int, int], ...]
Advance = Callable[[int], None]
"""Takes the bytes of a file that were read."""


@dataclass
class ByteCount:
    """Counts the bytes of files that were read."""

    bytes: int = 0

    def add(self, count: int) -> None:
        """Count more bytes; an `Advance`."""
        self.bytes += count


@dataclass(frozen=True, slots=True)
class SourceText:
    """A text, where it is (`line` counts lines or rows from 1; 1 for a file that is one text), and its spans."""

    file: str
    line: int
    text: str
    spans: Spans | None = None

    def fault(self, what: str) -> UsageError:
        """Return the error for this text; `what` ends with what to do."""
        return fault(self.file, self.line, what)


def fault(file: str | Path, line: int, what: str) -> UsageError:
    """Return the error for a line or a row of a file."""
    place = "row" if str(file).lower().endswith(".parquet") else "line"
    return UsageError(f"{file} {place} {line:,}: {what}.")


def format_of(path: Path) -> str:
    """Return a file's format by its extension. Raises UsageError for one that is unknown or can't be read here."""
    kind = FORMATS.get(path.suffix.lower())
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name the files in it, such as {path}/*.txt.")
    if kind is None:
        raise UsageError(
            f"{path} has none of the extensions {', '.join(FORMATS)}, which say what a file holds; name a file of one "
            "of these formats."
        )
    if kind == "parquet":
        require("pyarrow", f"Reading {path}", "export", ", or write JSON Lines")
    return kind


def read_texts(
    path: Path, settings: CaptureSettings, advance: Advance = lambda _: None
) -> Iterator[SourceText]:
    """Yield a file's texts. Raises UsageError, naming the file and the line, for what is no text."""
    kind = format_of(path)
    if kind == "parquet":
        return _rows(path, settings, advance)
    if kind == "jsonl":
        return _objects(path, settings, advance)
    return _lines(path, advance) if settings.lines else _whole(path, advance)


def check_text(source: SourceText, skip_empty: bool) -> bool:
    """Return whether a text has more than blanks, or raise UsageError without `skip_empty`.

    Raises UsageError for a text that can't be stored, or whose spans aren't characters of it.
    """
    if not source.text.strip():
        if not skip_empty:
            raise source.fault("its text is empty; remove it, or skip such texts with --skip-empty")
        return False
    if character := unstorable([source.text]):
        raise source.fault(f"its text has the character {character}, which can't be stored; remove it")
    for start, end in source.spans or ():
        if not 0 <= start < end <= len(source.text):
            raise source.fault(
                f"its span [{start}, {end}] is not inside the text, which has {len(source.text):,} characters; "
                "count characters from 0, the end not included"
            )
    return True


def check_beginnings(settings: CaptureSettings) -> None:
    """Check the first texts of each file: a wrong field or column is found before a model is looked for."""
    for path in settings.files:
        read = ByteCount()
        for source in read_texts(path, settings, read.add):
            check_text(source, settings.skip_empty)
            if read.bytes > BEGINNING:
                break


def _whole(path: Path, advance: Advance) -> Iterator[SourceText]:
    with open_file(path, advice=ADVICE, error=UsageError) as file:
        data = file.read(LONGEST + 1)
    if len(data) > LONGEST:
        raise UsageError(
            f"{path} has more than {LONGEST:,} bytes, too many for one text; cut it, or take each line as a text with "
            "--lines."
        )
    advance(len(data))  # first: a reader may stop after any text
    yield SourceText(str(path), 1, _decoded(path, 1, data.removeprefix(b"\xef\xbb\xbf"), whole=True))


def _raw_lines(path: Path, advance: Advance) -> Iterator[tuple[int, str]]:
    """Yield a file's lines that are not blank, without their ends, with their numbers."""
    with open_file(path, advice=ADVICE, error=UsageError) as file:
        for number in itertools.count(1):
            data = file.readline(LONGEST + 1)
            if not data:
                return
            if len(data) > LONGEST:
                raise fault(path, number, f"it has more than {LONGEST:,} bytes; cut it into several texts")
            line = _decoded(path, number, data.removeprefix(b"\xef\xbb\xbf") if number == 1 else data)
            advance(len(data))
            if line.strip():
                yield number, line.rstrip("\r\n")


def _lines(path: Path, advance: Advance) -> Iterator[SourceText]:
    for number, line in _raw_lines(path, advance):
        yield SourceText(str(path), number, line)


def _objects(path: Path, settings: CaptureSettings, advance: Advance) -> Iterator[SourceText]:
    for number, line in _raw_lines(path, advance):
        try:
            value = json.loads(line, object_pairs_hook=without_repeats)
        except (ValueError, RecursionError) as error:
            raise fault(
                path, number, f"it is not a JSON object: {json_reason(error)}; correct this line"
            ) from None
        if not isinstance(value, dict):
            raise fault(path, number, f'it is not a JSON object, such as {{"{settings.field}": "a text"}}')
        yield _source(path, number, value, settings)


def _rows(path: Path, settings: CaptureSettings, advance: Advance) -> Iterator[SourceText]:
    import pyarrow
    import pyarrow.parquet

    open_file(path, advice=ADVICE, error=UsageError).close()
    wanted = [settings.field, settings.spans_field] if settings.tokens == "spans" else [settings.field]
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            for name in wanted:
                if name not in names:
                    raise UsageError(
                        f"{path} has no column {name!r}; its columns are {', '.join(names)}: name one with "
                        f"--{'field' if name == settings.field else 'spans-field'}."
                    )
            count, size, number = file.metadata.num_rows, path.stat().st_size, 0
            for batch in file.iter_batches(ROWS, columns=wanted):
                for row in batch.to_pylist():
                    number += 1
                    advance(size * number // count - size * (number - 1) // count)
                    yield _source(path, number, row, settings)
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} can't be read as Parquet: {reason}; {ADVICE}.") from error


def _source(path: Path, number: int, value: dict[str, Any], settings: CaptureSettings) -> SourceText:
    """Return the text of a JSON object or a row."""
    text = value.get(settings.field)
    if not isinstance(text, str):
        found = "no" if text is None else f"{KINDS.get(type(text), 'no text')} in its"
        raise fault(
            path, number, f"it has {found} field {settings.field!r}; name the text's field with --field"
        )
    if len(text) > LONGEST:
        raise fault(path, number, f"its text has more than {LONGEST:,} characters; cut it into several texts")
    if settings.tokens != "spans":
        return SourceText(str(path), number, text)
    spans = value.get(settings.spans_field)
    if not isinstance(spans, list) or not all(_is_span(span) for span in spans):
        raise fault(
            path,
            number,
            f"its field {settings.spans_field!r} is not a list of spans such as [[0, 4], [10, 14]]; correct it, or "
            "name another with --spans-field",
        )
    return SourceText(str(path), number, text, tuple((start, end) for start, end in spans))


def _is_span(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(place) is int for place in value)


def _decoded(path: Path, number: int, data: bytes, whole: bool = False) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        number += data[: error.start].count(b"\n") if whole else 0
        raise fault(path, number, "it is not in UTF-8; save the file as UTF-8") from None
