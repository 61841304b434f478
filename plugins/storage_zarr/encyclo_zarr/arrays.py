"""The arrays of a checked Zarr hierarchy, read by zarr; activations are read from their byte ranges on disk.

The hierarchy may come from a stranger, so zarr reads it only after the guard has checked every file.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.buffer import default_buffer_prototype
from zarr.storage import LocalStore, MemoryStore

from encyclo.schema import HIERARCHY, Hierarchy, place_of_activations
from encyclo.storage.raw_arrays import Chunks, Flat
from encyclo_zarr.guard import check_tree, keys_of, shard_index
from encyclo_zarr.layout import grid
from encyclo_zarr.tree import Folder, Zip, read


class ZarrArrays:
    """The arrays of a tree. Raises ValueError for anything that the schema does not allow; see `check_tree`."""

    def __init__(self, path: Path, part: Hierarchy | None) -> None:
        """`part` is the hierarchy of a part; None: the path is an encyclopedia."""
        self._tree: Folder | Zip = Folder(path) if part is None else Zip(path)
        self._part = part is not None
        self._place = place_of_activations(HIERARCHY if part is None else part)
        self._documents = check_tree(self._tree, HIERARCHY if part is None else part, self._part)
        self._arrays: dict[str, Any] = {}
        self._store: LocalStore | MemoryStore | None = None

    def attributes(self) -> dict[str, Any]:
        """Return the attributes at the root."""
        found: dict[str, Any] = self._documents[""]["attributes"]
        return found

    def numbers(self, path: str) -> NDArray[Any]:
        """Return a whole array."""
        found: NDArray[Any] = self._array(path)[...]
        return found

    def numbers_at(self, path: str, rows: int | slice) -> NDArray[Any]:
        """Return some rows of an array."""
        found: NDArray[Any] = self._array(path)[rows]
        return found

    def texts(self, path: str, rows: NDArray[np.int64] | None = None) -> list[str]:
        """Return a column's texts: all, or those of ascending rows."""
        array = self._array(path)
        found: list[str] = (array[...] if rows is None else array.oindex[rows]).tolist()
        return found

    def activations(self) -> Flat | Chunks:
        """Return where the samples' activations are, shard by shard, from the shards' indices."""
        path = self._place
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
        """Release the memory; no file is open."""
        self._arrays, self._store = {}, None

    def _array(self, path: str) -> Any:
        if path not in self._arrays:
            self._arrays[path] = zarr.open_array(self._opened(), path=path, mode="r", zarr_format=3)
        return self._arrays[path]

    def _opened(self) -> LocalStore | MemoryStore:
        """Return zarr's store: the folder, or a zip's content without activations, which zarr doesn't read."""
        if self._store is None and isinstance(self._tree, Folder):
            self._store = LocalStore(self._tree.root, read_only=True)
        if self._store is None:
            buffer = default_buffer_prototype().buffer
            names = [name for name in self._tree.sizes if not name.startswith(f"{self._place}/c.")]
            self._store = MemoryStore({name: buffer.from_bytes(read(self._tree, name)) for name in names})
        return self._store

    def _shape(self, path: str) -> Any:
        return tuple(self._documents[path]["shape"])
