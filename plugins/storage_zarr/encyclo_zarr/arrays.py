"""The arrays of a checked Zarr hierarchy, every one read from its place on disk.

Nothing of zarr's reads a file: it could be somebody else's, and the guard allows only what is read here.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.schema import HIERARCHY, SAMPLES
from encyclo.storage.raw_arrays import Chunks, Flat
from encyclo_zarr.guard import check_tree, chunk_places, keys_of, shard_index
from encyclo_zarr.layout import grid
from encyclo_zarr.pieces import decode_texts
from encyclo_zarr.tree import Folder, Zip, read


class ZarrArrays:
    """What a tree holds. Raises ValueError for what the schema does not justify; see `check_tree`."""

    def __init__(self, path: Path, part: bool) -> None:
        self._tree: Folder | Zip = Zip(path) if part else Folder(path)
        self._part = part
        self._documents = check_tree(self._tree, {"": SAMPLES} if part else HIERARCHY, part)
        self._places: dict[str, list[tuple[str, int, int]]] = {}

    def attributes(self) -> dict[str, Any]:
        """Return the attributes at the root."""
        found: dict[str, Any] = self._documents[""]["attributes"]
        return found

    def numbers(self, path: str) -> NDArray[Any]:
        """Return a whole array."""
        shape, dtype = self._shape(path), np.dtype(self._documents[path]["data_type"])
        if 0 in shape:
            return np.empty(shape, dtype)
        data = b"".join(self._chunk(path, number) for number in range(len(self._chunks(path))))
        values = np.frombuffer(data, dtype.newbyteorder("<"))
        return values.reshape(-1, *shape[1:])[: shape[0]].astype(dtype)

    def texts(self, path: str, rows: NDArray[np.int64] | None = None) -> list[str]:
        """Return a column's texts, a chunk of them at a time."""
        shape = self._shape(path)
        rows_a_chunk = grid(path, shape, self._part)[0][0]
        numbers, places = np.divmod(np.arange(shape[0]) if rows is None else rows, rows_a_chunk)
        found: list[str] = []
        for number in np.unique(numbers).tolist():
            texts = decode_texts(self._chunk(path, number))
            found += [texts[place] for place in places[numbers == number].tolist()]
        return found

    def activations(self) -> Flat | Chunks:
        """Return where the samples' activations lie: shard by shard, as their indices say."""
        path = "activations" if self._part else "samples/activations"
        shape = self._shape(path)
        keys = keys_of(path, shape, self._part)
        if self._part:
            file, offset = self._tree.place(keys[0]) if keys else (self._tree.root, 0)
            return Flat(file, offset, shape)
        chunks, shards = grid("activations", shape, part=False)
        assert shards is not None
        blocks, in_shard = math.ceil(shape[0] / chunks[0]) if keys else 0, shards[0] // chunks[0]
        tables = [shard_index(self._tree, path, key, shape)[:, 0] for key in keys]
        offsets = np.array(tables, np.uint64).astype(np.int64).reshape(-1, max(1, shape[1]))[:blocks]
        files = [self._tree.place(key)[0] for key in keys]
        return Chunks(shape, chunks[0], offsets, files, np.arange(blocks) // in_shard)

    def close(self) -> None:
        """No file is open."""

    def _shape(self, path: str) -> Any:
        return tuple(self._documents[path]["shape"])

    def _chunk(self, path: str, number: int) -> bytes:
        return read(self._tree, *self._chunks(path)[number])

    def _chunks(self, path: str) -> list[tuple[str, int, int]]:
        if path not in self._places:
            self._places[path] = chunk_places(self._tree, path, self._shape(path), self._part)
        return self._places[path]
