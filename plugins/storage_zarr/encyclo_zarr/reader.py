"""Reads parts and the finished directory: columns and texts with zarr, activations from their places on disk."""

from __future__ import annotations

import dataclasses
import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.errors import BaseZarrError

from encyclo import text
from encyclo.chunks import Chunks, Flat
from encyclo.errors import DamagedError, StoreError
from encyclo.schema import (
    FORMAT,
    HIERARCHY,
    SAMPLES,
    Attributes,
    Book,
    Columns,
    ConceptTable,
    Part,
    SignatureTable,
)
from encyclo_zarr.guard import check_tree, keys_of, shard_index
from encyclo_zarr.layout import ROWS_A_CHUNK, grid
from encyclo_zarr.tree import Folder, Zip


class ZarrPart:
    """A part; no file stays open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise StoreError(f"There is no part {path}; run the same `encyclo run` command again to redo it.")
        with explained("read", path):
            tree = Zip(path)
            check_tree(tree, {"": SAMPLES}, part=True)
            with tree.store() as store:
                group: Any = zarr.open_group(store, mode="r", zarr_format=3, use_consolidated=False)
                self.escaped = {name: is_escaped(group[name]) for name in ("family", "prompt")}
                self._columns = Columns.read(lambda name: read_column(group[name]))
                shape = group["activations"].shape
            offset = 0 if 0 in shape else tree.place("activations/c.0.0.0")[1]
            self._flat = Flat(path, offset, shape)

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
        with explained("read", self.path), Zip(self.path).store() as store:
            group = zarr.open_group(store, mode="r", zarr_format=3, use_consolidated=False)
            prompts: list[str] = read_column(group["prompt"])
        return prompts

    def samples(self, rows: slice | NDArray[np.int64]) -> Part:
        """Return whole samples."""
        taken = np.arange(len(self._columns))[rows]
        prompts = self.prompts()
        return self._columns.samples(taken, self.activations(taken), [prompts[i] for i in taken])

    def close(self) -> None:
        """Nothing is open."""


class ZarrReader:
    """A finalised encyclopedia."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise StoreError(
                f"There is no {path}; run the same `encyclo run` command again to finish the run."
            )
        self._path = path
        self._columns: Columns | None = None
        with explained("read", path):
            tree = Folder(path)
            attributes = check_tree(tree, HIERARCHY, part=False)
            if attributes.get("format") != FORMAT:
                raise DamagedError(f"{path} is not an encyclopedia of the format {FORMAT}.")
            group: Any = zarr.open_group(tree.store(), mode="r", zarr_format=3)
            self._samples = group["samples"]
            self.book = Book(
                read_attributes(attributes),
                read_table(group["concepts"], ConceptTable),
                read_table(group["signatures"], SignatureTable),
            )
            self._prompts = self._samples["prompt"]
            self._escaped = is_escaped(self._prompts)
            self._chunks = find_chunks(tree, self._samples["activations"].shape)

    def owners(self) -> NDArray[np.int32]:
        """Return each sample's concept, a row of the concept table: int32 [n]."""
        return self.columns().concept

    def columns(self) -> Columns:
        """Return every sample's small columns."""
        if self._columns is None:
            with explained("read", self._path):
                self._columns = Columns.read(lambda name: read_column(self._samples[name]))
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
            prompts = self._texts(taken)
        return columns.samples(taken, self.activations(taken), prompts)

    def close(self) -> None:
        """No file is open."""

    def _texts(self, rows: NDArray[np.int64]) -> list[str]:
        """Return prompts, a chunk of them at a time."""
        found: list[str] = []
        for some in _runs(rows // ROWS_A_CHUNK):
            wanted = rows[some]
            texts = self._prompts[int(wanted[0]) : int(wanted[-1]) + 1]
            found += [str(texts[i - wanted[0]]) for i in wanted]
        return text.unpack(found, self._escaped)


def find_chunks(tree: Folder, shape: tuple[int, int, int]) -> Chunks:
    """Return where the chunks of the samples' activations lie: shard by shard, as their indices say."""
    path = "samples/activations"
    chunks, shards = grid("activations", shape, part=False)
    assert shards is not None
    keys = keys_of(path, shape, part=False)
    blocks, in_shard = math.ceil(shape[0] / chunks[0]) if keys else 0, shards[0] // chunks[0]
    tables = [shard_index(tree, path, key, shape)[:, 0] for key in keys]
    offsets = np.array(tables, np.uint64).astype(np.int64).reshape(-1, max(1, shape[1]))[:blocks]
    return Chunks(
        shape, chunks[0], offsets, [tree.place(key)[0] for key in keys], np.arange(blocks) // in_shard
    )


def _runs(values: NDArray[np.int64]) -> Iterator[slice]:
    """Yield where each distinct value of a rising array stands."""
    cuts = (np.flatnonzero(np.diff(values)) + 1).tolist()
    for start, stop in zip([0, *cuts], [*cuts, len(values)], strict=True):
        if stop > start:
            yield slice(start, stop)


def is_escaped(array: Any) -> bool:
    """Return whether a column's texts are escaped."""
    return text.ESCAPED in array.attrs


def read_column(array: Any) -> Any:
    """Return a whole column: an array, or a list of texts."""
    values = array[...]
    if array.metadata.data_type.to_native_dtype().kind in "TO":
        return text.unpack([str(value) for value in values], is_escaped(array))
    return values


def read_table(group: Any, table: type[Any]) -> Any:
    """Read a dataclass, a column a field."""
    return table(**{field.name: read_column(group[field.name]) for field in dataclasses.fields(table)})


def read_attributes(values: dict[str, Any]) -> Attributes:
    """Return the attributes at the root. Raises ValueError for one of another type."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(Attributes):
        value: Any = values[field.name]
        expected: Any = {"int": int, "str": str}.get(str(field.type), list)
        if type(value) is not expected or (expected is list and not all(type(v) is int for v in value)):
            raise ValueError(f"its attribute {field.name!r} is {value!r:.80}")
        found[field.name] = tuple(value) if expected is list else value
    return Attributes(**found)


@contextmanager
def explained(verb: str, path: Path) -> Iterator[None]:
    """Turn zarr's and the system's errors into one sentence that names the file."""
    try:
        yield
    except OSError as error:
        kind: Any = DamagedError if verb == "read" and path.exists() else StoreError
        raise kind(f"Can't {verb} {path}: {error}.") from error
    except (
        KeyError,
        ValueError,
        TypeError,
        RuntimeError,
        IndexError,
        BaseZarrError,
        zipfile.BadZipFile,
    ) as error:
        if verb == "write":
            raise
        told = " ".join(str(error.args[0] if error.args else repr(error)).split())
        raise DamagedError(f"{path} is damaged: {told}.") from error
