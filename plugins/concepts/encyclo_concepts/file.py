"""A user's own list: CSV, TSV, JSON, JSON Lines, Parquet, or one name per line.

The columns are those of `Row`; only `name` is required. The whole list is read and checked before the first concept
is yielded, so that a mistake in the last line shows before any work.
"""

from __future__ import annotations

import codecs
import csv
import os
import re
import unicodedata
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from encyclo import hookimpl
from encyclo.errors import UsageError
from encyclo.table_files import FORMATS, Place, Record, content_of, decode, fault, read_records, shown, where
from encyclo.types import Concept
from encyclo_concepts.list_warnings import warn_of_markers, warn_of_names, warn_of_nouns, without_markers
from encyclo_concepts.structured_list import json_records, parquet_records

PARTS_OF_SPEECH = ("noun", "verb", "adjective", "adverb")
MORE_FORMATS = {".json": "json", ".parquet": "parquet"}
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
"""Control characters, except line ends and the tab, and surrogates, which UTF-8 can't encode."""
COUNTABLE = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False, "": None}


class Options(BaseModel):
    """Options of the concept list `file`."""

    model_config = ConfigDict(extra="forbid")

    path: Path | None = None
    """The file with the list."""
    format: Literal["csv", "tsv", "jsonl", "json", "parquet", "names"] | None = None
    """Format of the list; the default follows the extension (.csv, .tsv, .jsonl, .json, .parquet, .txt for names)."""
    encoding: str | None = None
    """Encoding, such as cp1252; the default follows a byte-order mark, else it is UTF-8."""
    delimiter: str | None = Field(None, min_length=1, max_length=1)
    """Delimiter between the cells of a csv or tsv file; the default is found in the first line."""
    separator: str = Field("|", min_length=1)
    """Separator between the aliases or the examples in a cell."""
    markers: Literal["strip", "keep"] | None = None
    """Whether names lose a bullet or a number before them, and comments are left out; the default keeps and warns."""

    @field_validator("encoding")
    @classmethod
    def _known(cls, encoding: str | None) -> str | None:
        if encoding is not None:
            try:
                codecs.lookup(encoding)
                "".encode(encoding)
            except (LookupError, ValueError) as error:  # rot13 and others are not text encodings
                raise ValueError("it is not a text encoding; common ones are utf-8 and cp1252") from error
        return encoding

    @field_validator("delimiter")
    @classmethod
    def _usable(cls, delimiter: str | None) -> str | None:
        if delimiter is not None:
            try:
                if delimiter in '"\r\n ':
                    raise ValueError(delimiter)
                csv.reader([], delimiter=delimiter)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    "it can't separate cells; use a character such as a comma or a semicolon"
                ) from error
        return delimiter


class Row(BaseModel):
    """The columns of a list."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    """The word or words that prompts contain; a qualifier, as in "bank (slope)", is for showing only."""
    id: str = ""
    """The default is the name; concepts of one name need an id of their own."""
    definition: str = ""
    category: str = ""
    part_of_speech: str = "noun"
    """noun, verb, adjective or adverb."""
    broader: str = ""
    """Id or name of a broader concept, which may be missing from the list."""
    aliases: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    countable: bool | None = None
    """For nouns: whether they take `a` and a plural (yes or no); empty if unknown."""
    word_shares: tuple[float, ...] = ()
    """Which part of the uses of the name, and of each alias, means the concept."""

    @field_validator("*", mode="before")
    @classmethod
    def _tidy(cls, value: Any) -> Any:
        """Strip blanks around a text, and reduce blanks between words to one."""
        return _tidied(value) if isinstance(value, str) else value

    @field_validator("aliases", "examples", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise ValueError("it must be a list of strings")
        return tuple(text for text in map(_tidied, value) if text)

    @field_validator("word_shares", mode="before")
    @classmethod
    def _shares(cls, value: Any) -> Any:
        try:
            shares = tuple(float(share) for share in value if share != "")
        except (TypeError, ValueError):
            shares = (-1.0,)
        if not all(0 <= share <= 1 for share in shares):
            raise ValueError("it must be numbers from 0 to 1")
        return shares

    @field_validator("countable", mode="before")
    @classmethod
    def _yes_or_no(cls, value: Any) -> Any:
        if isinstance(value, str):
            if value.strip().lower() not in COUNTABLE:
                raise ValueError("it must be yes, no or empty")
            return COUNTABLE[value.strip().lower()]
        return value

    @field_validator("part_of_speech")
    @classmethod
    def _known(cls, part: str) -> str:
        if part and part.lower() not in PARTS_OF_SPEECH:
            raise ValueError(f"it must be one of {', '.join(PARTS_OF_SPEECH)}")
        return part.lower() or "noun"

    @model_validator(mode="after")
    def _meaningful(self) -> Row:
        if not any(_shows(character) for character in self.name):
            raise ValueError("the name is empty or has only invisible characters; write a name")
        if _bare(self.name) and _bare(self.definition) == _bare(self.name):
            raise ValueError(
                f"the definition of {shown(self.name)} is only its name; say what it means or leave it empty"
            )
        if self.word_shares and len(self.word_shares) != 1 + len(self.aliases):
            raise ValueError(
                f"word_shares has {len(self.word_shares)} numbers, but the name and {len(self.aliases)} aliases need "
                f"{1 + len(self.aliases)}"
            )
        self.id = self.id or self.name
        return self


@hookimpl
def load_concepts(options: Options) -> Iterator[Concept]:
    """Yield the concepts in the list's order.

    Raises UsageError, naming the file and the line, if the list is invalid.
    """
    if options.path is None:
        raise UsageError("The concept list 'file' needs a file; name it with -o file.path=FILE.")
    path = Path(os.path.expanduser(options.path))  # unlike Path.expanduser, no error for an unknown ~user
    kind = options.format or (FORMATS | MORE_FORMATS).get(path.suffix.lower())
    if kind is None:
        raise UsageError(
            f"The extension of {path} is not a known format; add -o file.format=csv (or tsv, jsonl, json, "
            "parquet, names)."
        )
    records = _records(path, kind, options)
    rows = [(record[0], parse_row(path, record, options.separator)) for record in records]
    if not rows:
        raise UsageError(f"{path} contains no concept; add at least one name.")
    concepts = _concepts(path, rows)
    warn_of_names(path, [(place, row.name) for place, row in rows])
    warn_of_nouns(path, records)
    return concepts


def _records(path: Path, kind: str, options: Options) -> list[Record]:
    """Return the list's records, in whichever format."""
    columns, flag, encoding = tuple(Row.model_fields), "-o file.path=FILE", "file.encoding"
    if kind == "parquet":
        return list(parquet_records(path, content_of(path, flag), columns))
    if kind == "json":
        text = decode(path, content_of(path, flag), options.encoding, encoding)
        return list(json_records(path, text, columns))
    records = list(read_records(path, kind, columns, flag, options.delimiter, options.encoding, encoding))
    if kind == "names" and options.markers == "strip":
        return without_markers(records)
    if kind == "names" and options.markers is None:
        warn_of_markers(path, records)
    return records


def parse_row(path: Path, record: Record, separator: str) -> Row:
    """Return a record as a row. Raises UsageError with the line and the reason."""
    line, values = record
    for column, value in values.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and (stray := UNPRINTABLE.search(text)):
                what = f"its {column} contains the invalid character U+{ord(stray[0]):04X}; delete it"
                raise fault(path, line, what)
    values = {
        column: value.split(separator)
        if column in ("aliases", "examples", "word_shares") and isinstance(value, str)
        else value
        for column, value in values.items()
    }
    try:
        return Row(**values)
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise fault(path, line, reason) from None
        given = shown(first["input"])
        raise fault(
            path, line, f"its {first['loc'][0]} can't be {given}: {reason[0].lower()}{reason[1:]}"
        ) from None


def _concepts(path: Path, rows: list[tuple[Place, Row]]) -> Iterator[Concept]:
    """Check the list for duplicates and circles; return an iterator over the concepts."""
    names = _by_name(path, rows)
    ids = _distinct_ids(path, rows)
    broader: dict[int, int] = {}
    for place, (line, row) in enumerate(rows):
        above = names.get(_key(row.broader), [])
        if _key(row.broader) in ids:
            above = [ids[_key(row.broader)]]
        if len(above) > 1:
            options = ", ".join(shown(rows[other][1].id) for other in above)
            raise fault(
                path, line, f"its broader {shown(row.broader)} names several concepts; give an id: {options}"
            )
        if above:
            broader[place] = above[0]
    _refuse_circles(path, rows, broader)
    return (
        _concept(row, rows[broader[place]][1] if place in broader else None)
        for place, (_, row) in enumerate(rows)
    )


def _concept(row: Row, broader: Row | None) -> Concept:
    aliases = tuple(dict.fromkeys(alias for alias in row.aliases if alias != row.name))
    places = [0, *(1 + row.aliases.index(alias) for alias in aliases)]
    return Concept(
        id=row.id,
        name=row.name,
        definition=row.definition,
        category=row.category,
        part_of_speech=row.part_of_speech,
        broader=broader.id if broader else None,
        aliases=aliases,
        word_shares=tuple(row.word_shares[place] for place in places) if row.word_shares else (),
        countable=row.countable,
        examples=tuple(dict.fromkeys(row.examples)),
        broader_name=broader.name if broader else row.broader,
    )


def _by_name(path: Path, rows: list[tuple[Place, Row]]) -> dict[str, list[int]]:
    """Return {name: places}. Raises UsageError if a concept that shares its name has no id beside it."""
    places: dict[str, list[int]] = {}
    for place, (_, row) in enumerate(rows):
        places.setdefault(_key(row.name), []).append(place)
    for name, (first, *others) in places.items():
        if others and any(_key(rows[place][1].id) == name for place in (first, *others)):
            raise fault(
                path,
                rows[others[0]][0],
                f"the name {shown(rows[first][1].name)} also appears in {where(rows[first][0])}; remove one, or give "
                "each an id that is not the name",
            )
    return places


def _distinct_ids(path: Path, rows: list[tuple[Place, Row]]) -> dict[str, int]:
    """Return {id: place}. Raises UsageError with both lines if an id appears twice."""
    places: dict[str, int] = {}
    for place, (line, row) in enumerate(rows):
        first = places.setdefault(_key(row.id), place)
        if first != place:
            raise fault(
                path,
                line,
                f"the id {shown(row.id)} also appears in {where(rows[first][0])}; remove or change one",
            )
    return places


def _refuse_circles(path: Path, rows: list[tuple[Place, Row]], broader: dict[int, int]) -> None:
    """Raise UsageError if a concept is its own broader concept, directly or through others."""
    try:
        TopologicalSorter({place: [above] for place, above in broader.items()}).prepare()
    except CycleError as error:
        line, row = rows[min(error.args[1])]
        raise fault(
            path, line, f"{shown(row.name)} is its own broader concept through a circle; break it"
        ) from None


def _tidied(text: str) -> str:
    return " ".join(text.split())


def _key(text: str) -> str:
    """Return the key by which texts are equal: NFC joins a letter and its accent to one character."""
    return unicodedata.normalize("NFC", text)


def _bare(text: str) -> str:
    """Return a text's words of letters and digits, without a leading article or `to`."""
    words = "".join(c if c.isalnum() else " " for c in _key(text).casefold()).split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in ("a", "an", "the", "to") else words)


def _shows(character: str) -> bool:
    return unicodedata.category(character)[0] not in "CZ"
