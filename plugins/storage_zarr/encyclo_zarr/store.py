"""Writes the hierarchy of `encyclo.schema` with zarr; reader.py reads it.

A part is one zip file that zarr opens as it is (`zarr.storage.ZipStore`): one file to flush and to put in place,
with its activations in one piece. The finished directory is written under a temporary name, every file and folder
flushed, and put in place whole (see `encyclo.files.replacing_folder`); its metadata is consolidated once, at the
end. No array is ever resized or written in place: what a unit holds is what its commit record says.
"""

from __future__ import annotations

import dataclasses
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import MemoryStore

from encyclo import files, text
from encyclo.rows import joined_blocks
from encyclo.schema import HIERARCHY, SAMPLES, TEXT, Array, Book, Columns, Part, Schema
from encyclo_zarr.layout import create, grid
from encyclo_zarr.reader import ZarrPart, ZarrReader, explained

FOLDER = "encyclopedia.zarr"
_WHEN = (1980, 1, 1, 0, 0, 0)  # a part's bytes depend on its samples alone


class ZarrStore:
    """The store of one run directory."""

    def __init__(self, location: Path, schema: Schema) -> None:
        self.location = location
        self.schema = schema

    def write_part(self, name: str, part: Part) -> None:
        """Write parts/NAME.zarr.zip whole and durably. Raises StoreError."""
        path = self._part(name)
        members: dict[str, Any] = {}
        group = zarr.create_group(MemoryStore(members), zarr_format=3)
        _write_columns(group, part, SAMPLES, part=True)
        with explained("write", path), files.replacing(path) as temporary:
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
                for key in sorted(members):
                    archive.writestr(zipfile.ZipInfo(key, _WHEN), members[key].to_bytes())

    def read_part(self, name: str) -> Part:
        """Read parts/NAME.zarr.zip. Raises DamagedError."""
        return self.open_part(name).samples(slice(None))

    def open_part(self, name: str) -> ZarrPart:
        """Open parts/NAME.zarr.zip for reading by row. Raises DamagedError."""
        return ZarrPart(self._part(name))

    def finalise(self, parts: Sequence[str], book: Book) -> Path:
        """Join the parts and the book into encyclopedia.zarr, replacing an old one."""
        path = self.location / FOLDER
        opened = [self.open_part(name) for name in parts]
        with explained("write", path), files.replacing_folder(path) as temporary:
            root = zarr.create_group(str(temporary), zarr_format=3, attributes=_plain(book.attributes))
            _write_columns(root.create_group("concepts"), book.concepts, HIERARCHY["concepts"], part=False)
            _write_columns(
                root.create_group("signatures"), book.signatures, HIERARCHY["signatures"], part=False
            )
            self._join(root.create_group("samples"), opened)
            with warnings.catch_warnings():
                # zarr warns that the specification has no consolidated metadata yet; readers may ignore it.
                warnings.simplefilter("ignore")
                zarr.consolidate_metadata(root.store)
        return path

    def open(self) -> ZarrReader:
        """Open encyclopedia.zarr for reading. Raises StoreError."""
        return ZarrReader(self.location / FOLDER)

    def bulk_ranges(self) -> dict[str, list[tuple[int, int]]]:
        """Return where the finished directory's activations lie: opening need not read through them."""
        root = self.location / FOLDER
        shards = sorted(
            path for path in (root / "samples/activations").rglob("*") if path.name != "zarr.json"
        )
        return {
            path.relative_to(root).as_posix(): [(0, _bulk_of(path, self._index_bytes(root)))]
            for path in shards
            if path.is_file()
        }

    def _index_bytes(self, root: Path) -> int:
        array: Any = zarr.open_group(str(root), mode="r", zarr_format=3)["samples/activations"]
        chunks, shards = grid("activations", array.shape, part=False)
        assert shards is not None
        return 16 * int(np.prod([s // c for s, c in zip(shards, chunks, strict=True)])) + 4

    def _part(self, name: str) -> Path:
        return self.location / "parts" / f"{name}.zarr.zip"

    def _join(self, group: zarr.Group, parts: Sequence[ZarrPart]) -> None:
        columns = Columns.join([part.columns() for part in parts])
        _write_columns(group, columns, SAMPLES, part=False)
        escape = any(part.escaped["prompt"] for part in parts)
        prompts = [prompt for part in parts for prompt in part.prompts()]
        _write_texts(group, "prompt", SAMPLES["prompt"], prompts, escape, part=False)
        shape = (len(columns), len(self.schema.layers), self.schema.hidden_size)
        if parts:
            shape = (len(columns), *parts[0].activations(np.empty(0, np.int64)).shape[1:])
        array = create(group, "activations", SAMPLES["activations"], shape, part=False)
        rows = array.shards[0]
        for index, block in enumerate(joined_blocks(parts, rows)):
            array[index * rows : index * rows + len(block)] = block


def _bulk_of(path: Path, index: int) -> int:
    """Return the bytes of a shard before its index, which opening reads and so compares."""
    return max(0, path.stat().st_size - index)


def _write_columns(group: zarr.Group, table: Any, arrays: Mapping[str, Array], part: bool) -> None:
    for field in dataclasses.fields(table):
        column, array = getattr(table, field.name), arrays[field.name]
        if array.dtype == TEXT:
            _write_texts(group, field.name, array, column, text.is_awkward(column), part)
        else:
            made = create(group, field.name, array, column.shape, part)
            if column.size:
                made[...] = column


def _write_texts(
    group: zarr.Group, name: str, array: Array, texts: list[str], escape: bool, part: bool
) -> None:
    made = create(group, name, array, (len(texts),), part, escape)
    if texts:
        made[...] = np.array(text.pack(texts, escape), np.dtypes.StringDType())


def _plain(attributes: Any) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(attributes).items()
    }
