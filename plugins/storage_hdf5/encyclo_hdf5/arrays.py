"""The arrays of a checked HDF5 file, read with h5py; activations are read from their byte ranges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from encyclo.regular_files import open_file
from encyclo.schema import HIERARCHY, Hierarchy, place_of_activations
from encyclo.storage.array_reader import check_format
from encyclo.storage.raw_arrays import Chunks, Flat
from encyclo_hdf5.guard import check_file, chunk_offsets


class Hdf5Arrays:
    """The arrays of a file. Raises ValueError for anything that the schema does not allow; see `check_file`."""

    def __init__(self, path: Path, part: Hierarchy | None) -> None:
        """`part` is the hierarchy of a part; None: the path is an encyclopedia."""
        self._path, self._part = path, part
        self._datasets: dict[str, h5py.Dataset] = {}
        open_file(path).close()  # h5py would wait for a named pipe
        self._file = h5py.File(path, "r")
        try:
            if part is None:
                check_format(path, self._file.attrs)
            check_file(self._file, HIERARCHY if part is None else part)
        except BaseException:
            self._file.close()
            raise

    def attributes(self) -> dict[str, Any]:
        """Return the attributes at the root."""
        values = self._file.attrs.items()
        return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in values}

    def numbers(self, path: str) -> NDArray[Any]:
        """Return a whole array."""
        found: NDArray[Any] = self._dataset(path)[...]
        return found

    def numbers_at(self, path: str, rows: int | slice) -> NDArray[Any]:
        """Return some rows of an array."""
        found: NDArray[Any] = self._dataset(path)[rows]
        return found

    def texts(self, path: str, rows: NDArray[np.int64] | None = None) -> list[str]:
        """Return a column's texts; adjacent rows are read at once."""
        strings = self._dataset(path).asstr()
        if rows is None:
            return list(strings[...])
        if len(rows) == 0:
            return []
        cuts = (np.flatnonzero(np.diff(rows) != 1) + 1).tolist()
        first, last = int(rows[0]), int(rows[-1])
        if 4 * len(cuts) > len(rows) and last - first < 20 * len(rows):
            return list(strings[first : last + 1][rows - first])
        found: list[str] = []
        for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True):
            found += strings[int(rows[start]) : int(rows[stop - 1]) + 1].tolist()
        return found

    def activations(self) -> Flat | Chunks:
        """Return where the samples' activations are. Raises ValueError if a chunk is incomplete."""
        dataset = self._dataset(place_of_activations(self._part or HIERARCHY))
        shape, rows = dataset.shape, 1
        if self._part is not None:
            if dataset.chunks:
                raise ValueError("its activations are chunked")
            return Flat(self._path, dataset.id.get_offset() or 0, shape)
        offsets = np.empty((0, shape[1]), np.int64)
        if dataset.chunks:
            offsets, rows = chunk_offsets(dataset, self._path.stat().st_size), dataset.chunks[0]
        return Chunks(shape, rows, offsets, [self._path], np.zeros(len(offsets), np.int64))

    def close(self) -> None:
        """Close the file; reading again opens it again."""
        self._datasets.clear()
        self._file.close()

    def _dataset(self, path: str) -> h5py.Dataset:
        if not self._file:
            self._file = h5py.File(self._path, "r")
        if path not in self._datasets:
            self._datasets[path] = self._file[path]
        return self._datasets[path]
