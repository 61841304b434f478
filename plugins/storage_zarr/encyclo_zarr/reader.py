"""Reads parts and the finished directory: every array from its place on disk.

Nothing of zarr's reads a file: it could be somebody else's, and the guard allows only what is read here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from encyclo.storage.raw_arrays import Chunks, Flat
from encyclo_zarr.arrays import Arrays
from encyclo_zarr.guard import keys_of, shard_index
from encyclo_zarr.layout import grid
from encyclo_zarr.tree import Folder, Zip


class ZarrPart:
    """A part; no file stays open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise StoreError(f"There is no part {path}; run the same `encyclo run` command again to redo it.")
        with explained("read", path):
            tree = Zip(path)
            self._arrays = Arrays(tree, {"": SAMPLES}, part=True)
            self.escaped = {name: self._arrays.is_escaped(name) for name in ("family", "prompt")}
            self._columns = Columns.read(self._arrays.read)
            shape = self._arrays.shape("activations")
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
        with explained("read", self.path):
            prompts: list[str] = self._arrays.read("prompt")
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
            self._arrays = Arrays(tree, HIERARCHY, part=False)
            attributes = self._arrays.attributes
            if attributes.get("format") != FORMAT:
                raise DamagedError(f"{path} is not an encyclopedia of the format {FORMAT}.")
            self.book = Book(
                read_attributes(attributes),
                self._arrays.read_table("concepts", ConceptTable),
                self._arrays.read_table("signatures", SignatureTable),
            )
            self._chunks = find_chunks(tree, self._arrays.shape("samples/activations"))

    def owners(self) -> NDArray[np.int32]:
        """Return each sample's concept, a row of the concept table: int32 [n]."""
        return self.columns().concept

    def columns(self) -> Columns:
        """Return every sample's small columns."""
        if self._columns is None:
            with explained("read", self._path):
                self._columns = Columns.read(lambda name: self._arrays.read(f"samples/{name}"))
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
            prompts = self._arrays.texts("samples/prompt", taken)
        return columns.samples(taken, self.activations(taken), prompts)

    def close(self) -> None:
        """No file is open."""


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
    """Turn the system's errors and what makes no sense into one sentence that names the file."""
    try:
        yield
    except OSError as error:
        kind: Any = DamagedError if verb == "read" and path.exists() else StoreError
        raise kind(f"Can't {verb} {path}: {error}.") from error
    except (KeyError, ValueError, TypeError, RuntimeError, IndexError) as error:
        if verb == "write":
            raise
        told = " ".join(str(error.args[0] if error.args else repr(error)).split())
        raise DamagedError(f"{path} is damaged: {told}.") from error
