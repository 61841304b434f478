"""Reads and writes the hierarchy of `encyclo.schema` with h5py.

No file is ever opened in place for writing: parts and the final file are written under a temporary name,
flushed to the disk and put in place whole (see `encyclo.files`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from encyclo import files
from encyclo.errors import DamagedError, StoreError
from encyclo.schema import FORMAT, Attributes, Book, ConceptTable, Part, Schema, SignatureTable

ROWS_A_CHUNK = 250
FILE = "encyclopedia.h5"


class Hdf5Store:
    """The store of one run directory."""

    def __init__(self, location: Path, schema: Schema) -> None:
        self.location = location
        self.schema = schema

    def write_part(self, name: str, part: Part) -> None:
        """Write parts/NAME.h5 whole and durably. Raises StoreError."""
        path = self._part(name)
        with _explained("write", path), files.replacing(path) as temporary:
            with h5py.File(temporary, "w") as file:
                for field in dataclasses.fields(part):
                    _write_column(file, field.name, getattr(part, field.name))

    def read_part(self, name: str) -> Part:
        """Read parts/NAME.h5. Raises DamagedError."""
        path = self._part(name)
        with _explained("read", path), h5py.File(path, "r") as file:
            return Part(**{f.name: _read_column(file[f.name]) for f in dataclasses.fields(Part)})

    def finalise(self, parts: Sequence[str], book: Book) -> Path:
        """Join the parts and the book into encyclopedia.h5, replacing an old one atomically."""
        path = self.location / FILE
        with _explained("write", path), files.replacing(path) as temporary:
            with h5py.File(temporary, "w") as file:
                _write_attributes(file, book.attributes)
                _write_table(file.create_group("concepts"), book.concepts)
                _write_table(file.create_group("signatures"), book.signatures)
                self._join(file.create_group("samples"), parts)
        return path

    def open(self) -> Hdf5Reader:
        """Open encyclopedia.h5 for reading. Raises StoreError."""
        return Hdf5Reader(self.location / FILE)

    def _part(self, name: str) -> Path:
        return self.location / "parts" / f"{name}.h5"

    def _join(self, group: h5py.Group, parts: Sequence[str]) -> None:
        total = 0
        for name in parts:
            path = self._part(name)
            with _explained("read", path), h5py.File(path, "r") as file:
                total += len(file["concept"])
        start = 0
        for name in parts:
            part = self.read_part(name)
            for field in dataclasses.fields(part):
                column = getattr(part, field.name)
                if field.name not in group:
                    _create_column(group, field.name, column, total)
                group[field.name][start : start + len(part)] = column
            start += len(part)


class Hdf5Reader:
    """A finalised encyclopedia."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise StoreError(
                f"There is no {path}; run the same `encyclo run` command again to finish the run."
            )
        self._path = path
        with _explained("read", path):
            self._file = h5py.File(path, "r")
            if self._file.attrs.get("format") != FORMAT:
                raise DamagedError(f"{path} is not an encyclopedia of the format {FORMAT}.")
            self.book = Book(
                _read_attributes(self._file),
                _read_table(self._file["concepts"], ConceptTable),
                _read_table(self._file["signatures"], SignatureTable),
            )

    def owners(self) -> NDArray[np.int32]:
        """Return each sample's concept, a row of the concept table: int32 [n]."""
        with _explained("read", self._path):
            owners: NDArray[np.int32] = self._file["samples/concept"][...]
        return owners

    def samples(self, rows: slice | NDArray[np.int64]) -> Part:
        """Return samples by row; an array of rows must rise."""
        with _explained("read", self._path):
            group = self._file["samples"]
            return Part(**{f.name: _read_column(group[f.name], rows) for f in dataclasses.fields(Part)})

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _write_column(group: h5py.Group, name: str, column: Any) -> None:
    _create_column(group, name, column, len(column))
    group[name][...] = column


def _create_column(group: h5py.Group, name: str, like: Any, rows: int) -> None:
    if isinstance(like, list):
        group.create_dataset(name, shape=(rows,), dtype=h5py.string_dtype("utf-8"))
    elif name == "activations":
        # One layer of 250 samples a chunk: reading one layer touches no other layer's bytes.
        chunks = (min(ROWS_A_CHUNK, rows), 1, like.shape[2]) if rows else None
        group.create_dataset(name, shape=(rows, *like.shape[1:]), dtype=like.dtype, chunks=chunks)
    else:
        group.create_dataset(name, shape=(rows, *like.shape[1:]), dtype=like.dtype)


def _read_column(dataset: Any, rows: Any = ...) -> Any:
    if h5py.check_string_dtype(dataset.dtype) is not None:
        return list(dataset.asstr()[rows])
    return dataset[rows]


def _write_table(group: h5py.Group, table: Any) -> None:
    for field in dataclasses.fields(table):
        _write_column(group, field.name, getattr(table, field.name))


def _read_table(group: Any, table: type[Any]) -> Any:
    return table(**{f.name: _read_column(group[f.name]) for f in dataclasses.fields(table)})


def _write_attributes(file: h5py.File, attributes: Attributes) -> None:
    for name, value in dataclasses.asdict(attributes).items():
        file.attrs[name] = np.array(value, np.int32) if isinstance(value, tuple) else value


def _read_attributes(file: h5py.File) -> Attributes:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Attributes):
        value = file.attrs[field.name]
        if isinstance(value, np.ndarray):
            values[field.name] = tuple(int(v) for v in value)
        else:
            values[field.name] = int(value) if isinstance(value, np.integer) else str(value)
    return Attributes(**values)


@contextmanager
def _explained(verb: str, path: Path) -> Iterator[None]:
    """Turn h5py's and the system's errors into one sentence that names the file."""
    try:
        yield
    except OSError as error:
        kind = DamagedError if verb == "read" and path.exists() else StoreError
        raise kind(f"Can't {verb} {path}: {error}.") from error
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        if verb == "write":
            raise
        # What h5py raises where it can't make sense of a file's content, such as text that is no UTF-8.
        raise DamagedError(f"{path} is damaged: {error.args[0] if error.args else error!r}.") from error
