"""The handles of a store, of its parts, and of the encyclopedia that it wrote (see `encyclo.types.Store`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.plugins.handles import Handle, Owner
from encyclo.plugins.values import WrongAnswer, check_array, check_text, check_whole, shown, with_article
from encyclo.schema import (
    HIERARCHY,
    SAMPLES,
    TEXT,
    Array,
    Attributes,
    Book,
    Columns,
    ConceptTable,
    LateSignatures,
    Part,
    Schema,
    SignatureTable,
    check_shapes,
)
from encyclo.storage.checksums import list_encyclopedia
from encyclo.token_parts import TokenPart
from encyclo.types import Bulk

COLUMNS = {name: SAMPLES[name] for name in ("scale", "concept", "stage", "family", "span")}


class StoreHandle(Handle):
    """A store. `open_part` and `bulk_ranges` are there if the store has them."""

    KIND = "a store"
    NEEDS = ("write_part", "read_part", "finalise", "open")

    def __init__(self, answer: Any, owner: Owner, location: Path, schema: Schema) -> None:
        super().__init__(answer, owner, "store_activations")
        self._location, self._layers = location, len(schema.layers)
        self._sizes: dict[str, int] | None = None

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        return {"open_part": self._open_part, "bulk_ranges": self._bulk_ranges}.get(name, found)

    def write_part(self, name: str, part: Part | TokenPart) -> Bulk | None:
        """Write one part durably; return its activations' byte ranges, if the store knows them."""
        with self._blame():
            bulk = self._object.write_part(name, part)
            return None if bulk is None else _check_bulk(bulk, "write_part", None)

    def read_part(self, name: str) -> Part:
        """Read a part."""
        with self._blame():
            return check_part(self._object.read_part(name), None, "read_part")

    def finalise(self, parts: Sequence[str], book: Book) -> Path:
        """Join the parts and the book into one encyclopedia; return its path."""
        with self._blame():
            path = self._object.finalise(parts, book)
            if not isinstance(path, Path):
                raise WrongAnswer(
                    f"returned {shown(path)} from finalise, but must return the encyclopedia's Path"
                )
            try:
                self._sizes = list_encyclopedia(self._location, path)
            except (OSError, ValueError) as error:
                raise WrongAnswer(
                    f"returned {path} from finalise, which is no encyclopedia of the run: {error}; return the path "
                    "of what it wrote in the run's directory"
                ) from error
            return path

    def open(self) -> ReaderHandle:
        """Open the finalised encyclopedia."""
        with self._blame():
            reader = self._object.open()
            by_row = hasattr(reader, "columns") and hasattr(reader, "activations")
            return (RowReaderHandle if by_row else ReaderHandle)(reader, self._owner, "open", self._layers)

    def _open_part(self, name: str) -> RowsHandle:
        with self._blame():
            return RowsHandle(self._object.open_part(name), self._owner, "open_part", self._layers)

    def _bulk_ranges(self) -> Bulk:
        with self._blame():
            return _check_bulk(self._object.bulk_ranges(), "bulk_ranges", self._sizes)


class SamplesHandle(Handle):
    """Samples that a store reads."""

    def __init__(self, answer: Any, owner: Owner, hook: str, layers: int) -> None:
        super().__init__(answer, owner, hook)
        self._layers = layers

    def samples(self, rows: slice | NDArray[np.int64]) -> Part:
        """Return whole samples."""
        with self._blame():
            length = None if isinstance(rows, slice) else len(rows)
            return check_part(self._object.samples(rows), length, "samples")

    def close(self) -> None:
        """Close what is open."""
        with self._blame():
            self._object.close()


class RowsHandle(SamplesHandle):
    """Samples by row (see `encyclo.types.RowReader`)."""

    KIND = "a reader of rows"
    NEEDS = ("columns", "activations", "samples", "close")

    def columns(self) -> Columns:
        """Return every row's small columns."""
        with self._blame():
            return check_columns(self._object.columns())

    def activations(
        self, rows: NDArray[np.int64], layers: Sequence[int] | None = None
    ) -> NDArray[np.float16]:
        """Return activations as stored: float16 [k, len(layers), H]; None means all layers."""
        with self._blame():
            shape = (len(rows), self._layers or None if layers is None else len(layers), None)
            found = self._object.activations(rows, layers)
            return check_array(found, "float16", shape, "has a method activations whose answer")


class ReaderHandle(SamplesHandle):
    """A finalised encyclopedia (see `encyclo.types.Reader`)."""

    KIND = "a reader of an encyclopedia"
    NEEDS = ("book", "owners", "samples", "close")

    @cached_property
    def book(self) -> Book:
        """Attributes, concepts and signatures."""
        with self._blame():
            return check_book(self._object.book)

    def owners(self) -> NDArray[np.int32]:
        """Return each sample's concept, int32 [n]."""
        with self._blame():
            return check_array(self._object.owners(), "int32", (None,), "has a method owners whose answer")


class RowReaderHandle(ReaderHandle, RowsHandle):
    """A finalised encyclopedia that is read by row."""


def check_part(part: Any, length: int | None, method: str) -> Part:
    """Return whole samples whose columns have their types and fit each other."""
    if not isinstance(part, Part):
        raise WrongAnswer(f"returned {with_article(part)} from {method}, but must return a Part")
    _check_table(part, SAMPLES, f"returned from {method} a Part")
    if length not in (None, len(part)):
        raise WrongAnswer(
            f"returned a Part of length {len(part):,} from {method}, but must return the {length:,} samples asked for"
        )
    return part


def check_columns(columns: Any) -> Columns:
    """Return small columns that have their types and fit each other."""
    if not isinstance(columns, Columns):
        raise WrongAnswer(f"returned {with_article(columns)} from columns, but must return Columns")
    _check_table(columns, COLUMNS, "returned Columns")
    return columns


def check_book(book: Any) -> Book:
    """Return a book whose attributes and tables have their types."""
    if not isinstance(book, Book):
        raise WrongAnswer(f"has an encyclopedia whose book is {with_article(book)}, but must be a Book")
    if not isinstance(book.attributes, Attributes):
        what = with_article(book.attributes)
        raise WrongAnswer(f"has an encyclopedia whose book.attributes is {what}, but must be an Attributes")
    if not isinstance(book.concepts, ConceptTable) or not isinstance(book.signatures, SignatureTable):
        raise WrongAnswer(
            "has an encyclopedia whose book lacks a table; give it a ConceptTable and a SignatureTable"
        )
    about = book.attributes
    for name in ("model", "weights_sha256", "pooling", "run_id", "created", "encyclo_version", "config"):
        check_text(getattr(about, name), f"has an encyclopedia whose {name}")
    for name in ("layers", "layer_index"):
        numbers = getattr(about, name)
        if not isinstance(numbers, tuple) or not all(type(number) is int for number in numbers):
            raise WrongAnswer(
                f"has an encyclopedia whose book.attributes.{name} is {shown(numbers)}, but must be a tuple of "
                "Python's int; convert each number with int()"
            )
    _check_table(book.concepts, HIERARCHY["concepts"], "has an encyclopedia with a table of concepts")
    # Those of a checked file are not read yet.
    if not (isinstance(book.signatures, LateSignatures) and book.signatures.unread):
        _check_table(
            book.signatures, HIERARCHY["signatures"], "has an encyclopedia with a table of signatures"
        )
    return book


def _check_table(table: Any, arrays: Mapping[str, Array], what: str) -> None:
    """Check that every column has its type, and that all have one length."""
    shapes = {}
    for name, array in arrays.items():
        column = getattr(table, name)
        if array.dtype != TEXT:
            shape = (None,) * len(array.shape)
            check_array(column, array.dtype, shape, f"{what} whose column {name}")
            shapes[name] = (array, column.shape)
            continue
        if not isinstance(column, list):
            raise WrongAnswer(
                f"{what} whose column {name} is {with_article(column)}, but must be a list of str"
            )
        if others := [item for item in column if not isinstance(item, str)]:
            raise WrongAnswer(
                f"{what} whose column {name} has {shown(others[0])} in it, but must be a list of str"
            )
        shapes[name] = (array, (len(column),))
    try:
        check_shapes(shapes)
    except ValueError as error:
        raise WrongAnswer(f"{what} whose columns don't fit each other: {error}; make them agree") from error


def _check_bulk(bulk: Any, method: str, sizes: Mapping[str, int] | None) -> dict[str, list[tuple[int, int]]]:
    """Return byte ranges by the file's path: rising, not overlapping, inside files of these sizes if known."""
    if not isinstance(bulk, Mapping):
        raise WrongAnswer(
            f"returned {shown(bulk)} from {method}, but must return a dict of each file's path and byte ranges"
        )
    found: dict[str, list[tuple[int, int]]] = {}
    for path, ranges in bulk.items():
        check_text(path, f"returned from {method} a path that")
        if not isinstance(ranges, list | tuple):
            raise WrongAnswer(
                f"returned {shown(ranges)} from {method} for {shown(path)}, but must return a list of byte ranges"
            )
        found[path], end = [], 0
        for item in ranges:
            if not isinstance(item, list | tuple) or len(item) != 2:
                raise WrongAnswer(
                    f"returned {shown(item)} from {method} as a byte range, but must return (offset, bytes)"
                )
            start = check_whole(item[0], f"returned from {method} a range whose offset", end)
            end = start + check_whole(item[1], f"returned from {method} a range whose number of bytes")
            found[path].append((start, end - start))
        if sizes is not None and end > sizes.get(path, 0):
            raise WrongAnswer(
                f"returned from {method} a range beyond the end of the file {shown(path)}; end it there"
            )
    return found
