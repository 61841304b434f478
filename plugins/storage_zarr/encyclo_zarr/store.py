"""Writes the hierarchy of `encyclo.schema` with zarr; reader.py reads it.

A part is one zip file that zarr opens as it is (`zarr.storage.ZipStore`): one file to flush and to put in place,
with its activations in one piece. The finished directory is written under a temporary name, every file and folder
flushed, and put in place whole (see `files.replacing_folder`); its metadata is consolidated once, at the
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

from encyclo import text
from encyclo.schema import HIERARCHY, SAMPLES, TEXT, Array, Book, Columns, Part, Schema
from encyclo.storage import files
from encyclo.storage.raw_arrays import joined_blocks
from encyclo.types import Bulk
from encyclo_zarr.layout import create, grid
from encyclo_zarr.pieces import (
    encode,
    layer_chunks,
    one_file,
    part_files,
    row_chunks,
    text_chunks,
    write_shard,
)
from encyclo_zarr.reader import ZarrPart, ZarrReader, explained, find_chunks
from encyclo_zarr.tree import Folder, Zip

FOLDER = "encyclopedia.zarr"
_WHEN = (1980, 1, 1, 0, 0, 0)  # a part's bytes depend on its samples alone


class ZarrStore:
    """The store of one run directory."""

    def __init__(self, location: Path, schema: Schema) -> None:
        self.location = location
        self.schema = schema

    def write_part(self, name: str, part: Part) -> Bulk:
        """Write parts/NAME.zarr.zip whole and durably; return where its activations lie. Raises StoreError."""
        path, bulk = self._part(name), "activations/c.0.0.0"
        members = part_files(part)
        with explained("write", path), files.replacing(path) as temporary:
            with (
                files.late_file(temporary) as disk,
                zipfile.ZipFile(disk, "w", zipfile.ZIP_STORED) as archive,
            ):
                for key in sorted(members):
                    archive.writestr(zipfile.ZipInfo(key, _WHEN), members[key])
            if bulk not in members:
                return {}
            offset = Zip(temporary).place(bulk)[1]
        return {path.name: [(offset, part.activations.nbytes)]}

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
            for name, table in (("concepts", book.concepts), ("signatures", book.signatures)):
                _write_columns(root.create_group(name), table, HIERARCHY[name], temporary / name)
            self._join(root.create_group("samples"), opened, temporary / "samples")
            with warnings.catch_warnings():
                # zarr warns that the specification has no consolidated metadata yet; readers may ignore it.
                warnings.simplefilter("ignore")
                zarr.consolidate_metadata(root.store)
        return path

    def open(self) -> ZarrReader:
        """Open encyclopedia.zarr for reading. Raises StoreError."""
        return ZarrReader(self.location / FOLDER)

    def bulk_ranges(self) -> Bulk:
        """Return where the finished directory's activations lie: opening need not read through them."""
        root = self.location / FOLDER
        group: Any = zarr.open_group(str(root), mode="r", zarr_format=3)
        chunks = find_chunks(Folder(root), group["samples/activations"].shape)
        return {path.relative_to(root).as_posix(): ranges for path, ranges in chunks.bulk().items()}

    def _part(self, name: str) -> Path:
        return self.location / "parts" / f"{name}.zarr.zip"

    def _join(self, group: zarr.Group, parts: Sequence[ZarrPart], folder: Path) -> None:
        columns = Columns.join([part.columns() for part in parts])
        _write_columns(group, columns, SAMPLES, folder)
        escape = any(part.escaped["prompt"] for part in parts)
        prompts = [prompt for part in parts for prompt in part.prompts()]
        _write_texts(group, "prompt", SAMPLES["prompt"], prompts, escape, folder)
        shape = (len(columns), len(self.schema.layers), self.schema.hidden_size)
        if parts:
            shape = (len(columns), *parts[0].activations(np.empty(0, np.int64)).shape[1:])
        create(group, "activations", SAMPLES["activations"], shape, part=False)
        chunks, shards = grid("activations", shape, part=False)
        assert shards is not None
        if 0 in shape:
            return
        room = shards[0] // chunks[0] * shape[1]
        for index, block in enumerate(joined_blocks(parts, shards[0])):
            path = folder / "activations" / f"c.{index}.0.0"
            write_shard(path, layer_chunks(block, chunks[0]), room)


def _write_columns(group: zarr.Group, table: Any, arrays: Mapping[str, Array], folder: Path) -> None:
    for field in dataclasses.fields(table):
        name, column, array = field.name, getattr(table, field.name), arrays[field.name]
        if array.dtype == TEXT:
            _write_texts(group, name, array, column, text.is_awkward(column), folder)
            continue
        create(group, name, array, column.shape, part=False)
        chunks, shards = grid(name, column.shape, part=False)
        path = folder / name / one_file(column.shape)
        if not column.size:
            continue
        if shards is None:
            path.write_bytes(encode(column, array))
        else:
            write_shard(path, row_chunks(column, chunks[0]), shards[0] // chunks[0])


def _write_texts(
    group: zarr.Group, name: str, array: Array, texts: list[str], escape: bool, folder: Path
) -> None:
    create(group, name, array, (len(texts),), part=False, escape=escape)
    chunks, shards = grid(name, (len(texts),), part=False)
    if not texts:
        return
    if shards is None:
        (folder / name / "c.0").write_bytes(encode(texts, array, escape))
        return
    packed = text.pack(texts, escape)
    for number, start in enumerate(range(0, len(packed), shards[0])):
        some = packed[start : start + shards[0]]
        write_shard(folder / name / f"c.{number}", text_chunks(some, chunks[0]), shards[0] // chunks[0])


def _plain(attributes: Any) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(attributes).items()
    }
