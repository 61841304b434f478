"""Writes the hierarchy of `encyclo.schema` with zarr; arrays.py reads it.

A part is one zip file that zarr opens as it is (`zarr.storage.ZipStore`): one file to flush and to put in place,
with its activations in one piece. The finished directory is written under a temporary name, every file and folder
flushed, and put in place whole (see `files.replacing_folder`); its metadata is consolidated once, at the
end. No array is ever resized or written in place: what a unit holds is what its commit record says.
"""

from __future__ import annotations

import dataclasses
import warnings
import zipfile
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import zarr

from encyclo.schema import HIERARCHY, SAMPLES, TEXT, Array, Book, Part
from encyclo.storage import files
from encyclo.storage.array_store import ArrayStore, JoinedSamples
from encyclo_zarr.arrays import ZarrArrays
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
from encyclo_zarr.tree import Zip

_WHEN = (1980, 1, 1, 0, 0, 0)  # a part's bytes depend on its samples alone


class ZarrStore(ArrayStore):
    """The store of one run directory: parts/NAME.zarr.zip, encyclopedia.zarr/."""

    ENCYCLOPEDIA = "encyclopedia.zarr"
    IS_FOLDER = True
    PART_SUFFIX = ".zarr.zip"

    def open_arrays(self, path: Path, part: bool) -> ZarrArrays:
        """Open a zip or a folder. Raises ValueError, OSError."""
        return ZarrArrays(path, part)

    def write_part_file(self, path: Path, part: Part) -> int:
        """Write a zipped part; return where its activations begin."""
        bulk, members = "activations/c.0.0.0", part_files(part)
        with files.late_file(path) as disk, zipfile.ZipFile(disk, "w", zipfile.ZIP_STORED) as archive:
            for key in sorted(members):
                archive.writestr(zipfile.ZipInfo(key, _WHEN), members[key])
        return Zip(path).place(bulk)[1] if bulk in members else 0

    def write_encyclopedia(self, path: Path, book: Book, samples: JoinedSamples) -> None:
        """Write the finished folder."""
        attributes = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(book.attributes).items()}
        root = zarr.create_group(str(path), zarr_format=3, attributes=attributes)
        for name, table in (("concepts", book.concepts), ("signatures", book.signatures)):
            _write_columns(root.create_group(name), table, HIERARCHY[name], path / name)
        _write_samples(root.create_group("samples"), samples, path / "samples")
        with warnings.catch_warnings():
            # zarr warns that the specification has no consolidated metadata yet; readers may ignore it.
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(root.store)


def _write_samples(group: zarr.Group, samples: JoinedSamples, folder: Path) -> None:
    _write_columns(group, samples.columns, SAMPLES, folder)
    prompts = list(chain.from_iterable(samples.prompts()))
    _write_texts(group, "prompt", SAMPLES["prompt"], prompts, folder)
    create(group, "activations", SAMPLES["activations"], samples.shape, part=False)
    chunks, shards = grid("activations", samples.shape, part=False)
    assert shards is not None
    if 0 in samples.shape:
        return
    room = shards[0] // chunks[0] * samples.shape[1]
    for index, block in enumerate(samples.blocks(shards[0])):
        write_shard(folder / "activations" / f"c.{index}.0.0", layer_chunks(block, chunks[0]), room)


def _write_columns(group: zarr.Group, table: Any, arrays: Mapping[str, Array], folder: Path) -> None:
    for field in dataclasses.fields(table):
        name, column, array = field.name, getattr(table, field.name), arrays[field.name]
        if array.dtype == TEXT:
            _write_texts(group, name, array, column, folder)
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


def _write_texts(group: zarr.Group, name: str, array: Array, texts: list[str], folder: Path) -> None:
    create(group, name, array, (len(texts),), part=False)
    chunks, shards = grid(name, (len(texts),), part=False)
    if not texts:
        return
    if shards is None:
        (folder / name / "c.0").write_bytes(encode(texts, array))
        return
    for number, start in enumerate(range(0, len(texts), shards[0])):
        some = texts[start : start + shards[0]]
        write_shard(folder / name / f"c.{number}", text_chunks(some, chunks[0]), shards[0] // chunks[0])
