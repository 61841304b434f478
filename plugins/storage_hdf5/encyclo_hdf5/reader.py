"""Reads parts and the finished file: columns and texts with h5py, activations from their places in the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from encyclo.errors import DamagedError, StoreError
from encyclo.schema import FORMAT, HIERARCHY, SAMPLES, Book, Columns, ConceptTable, Part, SignatureTable
from encyclo.storage.raw_arrays import Chunks, Flat
from encyclo_hdf5.columns import is_escaped, read_attributes, read_column, read_table, read_texts
from encyclo_hdf5.guard import check_file, chunk_offsets


class Hdf5Part:
    """A part; no file stays open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with explained("read", path), h5py.File(path, "r") as file:
            check_file(file, {"": SAMPLES})
            self.escaped = {name: is_escaped(file[name]) for name in ("family", "prompt")}
            self._columns = Columns.read(lambda name: read_column(file[name]))
            activations = file["activations"]
            self._flat = Flat(path, activations.id.get_offset() or 0, activations.shape)
            if activations.chunks:
                raise ValueError("its activations are chunked")

    def columns(self) -> Columns:
        """Return the part's small columns."""
        return self._columns

    def activations(
        self, rows: NDArray[np.int64], layers: Sequence[int] | None = None
    ) -> NDArray[np.float16]:
        """Return activations as stored, float16 [k, len(layers), H]."""
        with explained("read", self.path):
            return self._flat.read(rows, layers)

    def prompts(self) -> list[str]:
        """Return every row's prompt."""
        with explained("read", self.path), h5py.File(self.path, "r") as file:
            prompts: list[str] = read_column(file["prompt"])
        return prompts

    def samples(self, rows: slice | NDArray[np.int64]) -> Part:
        """Return whole samples."""
        taken = np.arange(len(self._columns))[rows]
        prompts = self.prompts()
        return self._columns.samples(taken, self.activations(taken), [prompts[i] for i in taken])

    def close(self) -> None:
        """Nothing is open."""


class Hdf5Reader:
    """A finalised encyclopedia."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise StoreError(
                f"There is no {path}; run the same `encyclo run` command again to finish the run."
            )
        self._path = path
        self._columns: Columns | None = None
        with explained("read", path):
            self._file = h5py.File(path, "r")
            if self._file.attrs.get("format") != FORMAT:
                raise DamagedError(f"{path} is not an encyclopedia of the format {FORMAT}.")
            check_file(self._file, HIERARCHY)
            self.book = Book(
                read_attributes(self._file),
                read_table(self._file["concepts"], ConceptTable),
                read_table(self._file["signatures"], SignatureTable),
            )
            self._prompts = self._file["samples/prompt"]
            self._chunks = find_chunks(self._file, path)

    def owners(self) -> NDArray[np.int32]:
        """Return each sample's concept, a row of the concept table: int32 [n]."""
        return self.columns().concept

    def columns(self) -> Columns:
        """Return every sample's small columns."""
        if self._columns is None:
            with explained("read", self._path):
                group = self._file["samples"]
                self._columns = Columns.read(lambda name: read_column(group[name]))
        return self._columns

    def activations(
        self, rows: NDArray[np.int64], layers: Sequence[int] | None = None
    ) -> NDArray[np.float16]:
        """Return activations as stored, float16 [k, len(layers), H], of rising rows."""
        with explained("read", self._path):
            return self._chunks.read(rows, layers)

    def samples(self, rows: slice | NDArray[np.int64]) -> Part:
        """Return samples by row; an array of rows must rise."""
        columns = self.columns()
        taken = np.arange(len(columns))[rows]
        with explained("read", self._path):
            prompts = read_texts(self._prompts, taken)
        return columns.samples(taken, self.activations(taken), prompts)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def find_chunks(file: h5py.File, path: Path) -> Chunks:
    """Return where the chunks of the samples' activations lie. Raises ValueError if one is not whole."""
    activations = file["samples/activations"]
    offsets, rows = np.empty((0, activations.shape[1]), np.int64), 1
    if activations.chunks:
        offsets, rows = chunk_offsets(activations, path.stat().st_size), activations.chunks[0]
    return Chunks(activations.shape, rows, offsets, [path], np.zeros(len(offsets), np.int64))


@contextmanager
def explained(verb: str, path: Path) -> Iterator[None]:
    """Turn h5py's and the system's errors into one sentence that names the file."""
    try:
        yield
    except OSError as error:
        kind: Any = DamagedError if verb == "read" and path.exists() else StoreError
        raise kind(f"Can't {verb} {path}: {error}.") from error
    except (KeyError, ValueError, TypeError, RuntimeError, IndexError) as error:
        if verb == "write":
            raise
        # What h5py raises where it can't make sense of a file's content, such as text that is no UTF-8.
        raise DamagedError(f"{path} is damaged: {error.args[0] if error.args else repr(error)}.") from error
