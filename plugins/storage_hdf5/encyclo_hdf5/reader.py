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
from encyclo.rows import flat_rows, read_pieces
from encyclo.schema import FORMAT, HIERARCHY, SAMPLES, Book, Columns, ConceptTable, Part, SignatureTable
from encyclo_hdf5.columns import is_escaped, read_attributes, read_column, read_table, read_texts
from encyclo_hdf5.guard import check_file, chunk_offsets


class Hdf5Part:
    """A part; no file stays open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with explained("read", path), h5py.File(path, "r") as file:
            check_file(file, {"": SAMPLES})
            self.escaped = {name: is_escaped(file[name]) for name in ("family", "prompt")}
            columns = ("scale", "concept", "stage", "family", "span")
            self._columns = Columns(**{name: read_column(file[name]) for name in columns})
            self._shape, self._offset = file["activations"].shape, file["activations"].id.get_offset() or 0
            if file["activations"].chunks:
                raise ValueError("its activations are chunked")

    def columns(self) -> Columns:
        """Return the part's small columns."""
        return self._columns

    def activations(
        self, rows: NDArray[np.int64], layers: Sequence[int] | None = None
    ) -> NDArray[np.float16]:
        """Return activations as stored, float16 [k, len(layers), H]."""
        with explained("read", self.path):
            return flat_rows(self.path, self._offset, self._shape, rows, layers)

    def prompts(self) -> list[str]:
        """Return every row's prompt."""
        with explained("read", self.path), h5py.File(self.path, "r") as file:
            prompts: list[str] = read_column(file["prompt"])
        return prompts

    def samples(self, rows: slice | NDArray[np.int64]) -> Part:
        """Return whole samples."""
        taken = np.arange(len(self._columns))[rows]
        prompts = self.prompts()
        return whole_samples(self._columns, taken, self.activations(taken), [prompts[i] for i in taken])

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
            activations = self._file["samples/activations"]
            self._shape, self._rows_a_chunk = activations.shape, 1
            self._chunks = np.empty((0, activations.shape[1]), np.int64)
            if activations.chunks:
                self._chunks = chunk_offsets(activations, path.stat().st_size)
                self._rows_a_chunk = activations.chunks[0]

    def owners(self) -> NDArray[np.int32]:
        """Return each sample's concept, a row of the concept table: int32 [n]."""
        return self.columns().concept

    def columns(self) -> Columns:
        """Return every sample's small columns."""
        if self._columns is None:
            with explained("read", self._path):
                group = self._file["samples"]
                names = ("scale", "concept", "stage", "family", "span")
                self._columns = Columns(**{name: read_column(group[name]) for name in names})
        return self._columns

    def activations(
        self, rows: NDArray[np.int64], layers: Sequence[int] | None = None
    ) -> NDArray[np.float16]:
        """Return activations as stored, float16 [k, len(layers), H], of rising rows."""
        _, depth, hidden = self._shape
        chosen = range(depth) if layers is None else layers
        # Layer by layer: the rows of one layer lie together.
        taken = np.empty((len(rows), len(chosen), hidden), np.float16)
        block, place = np.divmod(rows, self._rows_a_chunk)
        with explained("read", self._path):
            for index, layer in enumerate(chosen):
                offsets = self._chunks[block, layer] + place * (hidden * 2)
                taken[:, index] = read_pieces(self._path, offsets, hidden * 2).view("<f2")
        return taken

    def samples(self, rows: slice | NDArray[np.int64]) -> Part:
        """Return samples by row; an array of rows must rise."""
        columns = self.columns()
        taken = np.arange(len(columns))[rows]
        with explained("read", self._path):
            prompts = read_texts(self._prompts, taken)
        return whole_samples(columns, taken, self.activations(taken), prompts)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def whole_samples(
    columns: Columns, rows: NDArray[np.int64], activations: NDArray[np.float16], prompts: list[str]
) -> Part:
    """Return the rows of the columns with what is not in memory."""
    return Part(
        activations=activations,
        scale=columns.scale[rows],
        concept=columns.concept[rows],
        stage=columns.stage[rows],
        family=[columns.family[i] for i in rows],
        prompt=prompts,
        span=columns.span[rows],
    )


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
