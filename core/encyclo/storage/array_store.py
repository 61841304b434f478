"""Common code of stores that keep a part in one file, and the encyclopedia in one file or folder, as named arrays.

Nothing is ever changed in place: a file is written under a temporary name, flushed to the disk and renamed (see
`encyclo.storage.files`).
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from encyclo.errors import StoreError
from encyclo.schema import Book, Columns, ConceptTable, Part, Schema
from encyclo.storage import files
from encyclo.storage.array_reader import Arrays, EncyclopediaReader, PartReader, TokenReader, explained
from encyclo.storage.raw_arrays import joined_blocks
from encyclo.text import unstorable
from encyclo.token_parts import TokenPart
from encyclo.types import Bulk

AnyPart = Part | TokenPart
"""What a store writes as a part."""


class JoinedSamples:
    """The samples of several parts one after another (at least one part), for a store that writes them."""

    def __init__(self, parts: Sequence[PartReader]) -> None:
        self._parts = parts
        self.columns = Columns.join([part.columns() for part in parts])
        self.shape = (len(self.columns), *parts[0].shape[1:])
        """The activations' shape: n, L, H."""

    def prompts(self) -> Iterator[list[str]]:
        """Yield the prompts, a part at a time."""
        return (part.prompts() for part in self._parts)

    def blocks(self, rows: int) -> Iterator[NDArray[np.float16]]:
        """Yield the activations `rows` samples at a time; the last block may be smaller."""
        return joined_blocks(self._parts, rows)


class ArrayStore(ABC):
    """The store of one run directory; a format says how its arrays are opened and written."""

    ENCYCLOPEDIA: ClassVar[str]
    """The encyclopedia's name in the run directory."""
    IS_FOLDER: ClassVar[bool] = False
    PART_SUFFIX: ClassVar[str]

    def __init__(self, location: Path, schema: Schema) -> None:
        self.location = location
        self.schema = schema

    @abstractmethod
    def open_arrays(self, path: Path, part: bool) -> Arrays:
        """Open a part or an encyclopedia. Raises OSError, and ValueError for anything that the schema forbids."""

    @abstractmethod
    def write_part_file(self, path: Path, part: AnyPart) -> int:
        """Write a part; return where its activations, which must be in one piece, begin."""

    @abstractmethod
    def write_encyclopedia(self, path: Path, book: Book, samples: JoinedSamples) -> None:
        """Write the encyclopedia; if it is a folder, `path` exists already."""

    def write_part(self, name: str, part: AnyPart) -> Bulk:
        """Write a part durably; return its activations' byte range. Raises StoreError."""
        path = self.part_path(name)
        _check_texts(path, part)
        with explained("write", path), files.replacing(path) as temporary:
            start = self.write_part_file(temporary, part)
        return {path.name: [(start, part.activations.nbytes)]} if part.activations.nbytes else {}

    def read_part(self, name: str) -> Part:
        """Read a part. Raises StoreError, DamagedError."""
        return self.open_part(name).samples(slice(None))

    def open_part(self, name: str) -> PartReader:
        """Open a part for reading by row. Raises StoreError, DamagedError."""
        return PartReader(self.part_path(name), self.open_arrays)

    def open_tokens(self, name: str) -> TokenReader:
        """Open a part of a capture of texts. Raises StoreError, DamagedError."""
        return TokenReader(self.part_path(name), self.open_arrays)

    def finalise(self, parts: Sequence[str], book: Book) -> Path:
        """Join the parts and the book into the encyclopedia, replacing an old one. Raises StoreError."""
        path = self.location / self.ENCYCLOPEDIA
        _check_texts(path, book.concepts)
        samples = JoinedSamples([self.open_part(name) for name in parts])
        replacing = files.replacing_folder if self.IS_FOLDER else files.replacing
        with explained("write", path), replacing(path) as temporary:
            self.write_encyclopedia(temporary, book, samples)
        return path

    def open(self) -> EncyclopediaReader:
        """Open the encyclopedia for reading. Raises StoreError, DamagedError."""
        return EncyclopediaReader(self.location / self.ENCYCLOPEDIA, self.open_arrays)

    def bulk_ranges(self) -> Bulk:
        """Return the byte ranges of the encyclopedia's activations, which opening then need not read."""
        path = self.location / self.ENCYCLOPEDIA
        with explained("read", path), closing(self.open_arrays(path, False)) as arrays:
            found = arrays.activations().bulk()
        return {"" if file == path else file.relative_to(path).as_posix(): found[file] for file in found}

    def part_path(self, name: str) -> Path:
        """Return the file of a part."""
        return self.location / "parts" / f"{name}{self.PART_SUFFIX}"


def _check_texts(path: Path, table: AnyPart | ConceptTable) -> None:
    """Raise StoreError for a text with a character that can't be stored."""
    for field in dataclasses.fields(table):
        column = getattr(table, field.name)
        if isinstance(column, list) and (character := unstorable(column)):
            raise StoreError(
                f"Can't write {path}: a {field.name} has the character {character}, which can't be stored; "
                "remove it."
            )
