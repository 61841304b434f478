"""The arrays of a checked hierarchy, read from its files: columns, tables, texts by row."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo import text
from encyclo.schema import TEXT, Array
from encyclo_zarr.guard import check_tree, chunk_places
from encyclo_zarr.layout import grid
from encyclo_zarr.pieces import decode_texts
from encyclo_zarr.tree import Tree, read


class Arrays:
    """What a tree holds. Raises ValueError for what the hierarchy does not justify; see `check_tree`."""

    def __init__(self, tree: Tree, hierarchy: Mapping[str, Mapping[str, Array]], part: bool) -> None:
        self._tree, self._part = tree, part
        self._documents = check_tree(tree, hierarchy, part)
        self._known = {
            f"{group}/{name}".lstrip("/"): array
            for group, arrays in hierarchy.items()
            for name, array in arrays.items()
        }
        self._places: dict[str, list[tuple[str, int, int]]] = {}

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes at the root."""
        found: dict[str, Any] = self._documents[""]["attributes"]
        return found

    def shape(self, path: str) -> Any:
        """Return an array's shape."""
        return tuple(self._documents[path]["shape"])

    def is_escaped(self, path: str) -> bool:
        """Return whether a column's texts are escaped."""
        return text.ESCAPED in self._documents[path].get("attributes", {})

    def read(self, path: str) -> Any:
        """Return a whole column: an array, or a list of texts."""
        shape = self.shape(path)
        if self._known[path].dtype == TEXT:
            return self.texts(path, np.arange(shape[0]))
        if 0 in shape:
            return np.empty(shape, self._known[path].dtype)
        data = b"".join(self._chunk(path, number) for number in range(len(self._chunks(path))))
        values = np.frombuffer(data, np.dtype(self._known[path].dtype).newbyteorder("<"))
        return values.reshape(-1, *shape[1:])[: shape[0]].astype(self._known[path].dtype)

    def read_table(self, group: str, table: type[Any]) -> Any:
        """Return a dataclass, a column a field."""
        return table(**{f.name: self.read(f"{group}/{f.name}") for f in dataclasses.fields(table)})

    def texts(self, path: str, rows: NDArray[np.int64]) -> list[str]:
        """Return the texts of rising rows, a chunk of them at a time."""
        if len(rows) == 0:
            return []
        rows_a_chunk = grid(path.rsplit("/", 1)[-1], self.shape(path), self._part)[0][0]
        numbers, places = np.divmod(rows, rows_a_chunk)
        found: list[str] = []
        for number in np.unique(numbers).tolist():
            texts = decode_texts(self._chunk(path, number))
            found += [texts[place] for place in places[numbers == number].tolist()]
        return text.unpack(found, self.is_escaped(path))

    def _chunk(self, path: str, number: int) -> bytes:
        return read(self._tree, *self._chunks(path)[number])

    def _chunks(self, path: str) -> list[tuple[str, int, int]]:
        if path not in self._places:
            self._places[path] = chunk_places(self._tree, path, self.shape(path), self._part)
        return self._places[path]
