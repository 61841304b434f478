"""Writes the hierarchy of `encyclo.schema` with h5py; reader.py reads it.

No file is ever opened in place for writing: parts and the final file are written under a temporary name,
flushed to the disk and put in place whole (see `encyclo.storage.files`).

A part keeps its activations in one piece, row after row; the finished file in chunks of one layer of 250 samples,
so that reading one layer touches no other layer's bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from encyclo import text
from encyclo.schema import Book, Columns, Part, Schema
from encyclo.storage import files
from encyclo.storage.raw_arrays import joined_blocks
from encyclo.types import Bulk
from encyclo_hdf5.columns import create_texts, write_attributes, write_column, write_table
from encyclo_hdf5.reader import Hdf5Part, Hdf5Reader, explained, find_chunks

ROWS_A_CHUNK = 250
FILE = "encyclopedia.h5"


class Hdf5Store:
    """The store of one run directory."""

    def __init__(self, location: Path, schema: Schema) -> None:
        self.location = location
        self.schema = schema

    def write_part(self, name: str, part: Part) -> Bulk:
        """Write parts/NAME.h5 whole and durably; return where its activations lie. Raises StoreError."""
        path = self._part(name)
        with explained("write", path), files.replacing(path) as temporary:
            with files.late_file(temporary) as disk, h5py.File(disk, "w") as file:
                for field in dataclasses.fields(part):
                    write_column(file, field.name, getattr(part, field.name))
                offset = file["activations"].id.get_offset()
        return {path.name: [(offset, part.activations.nbytes)]} if part.activations.nbytes else {}

    def read_part(self, name: str) -> Part:
        """Read parts/NAME.h5. Raises DamagedError."""
        return self.open_part(name).samples(slice(None))

    def open_part(self, name: str) -> Hdf5Part:
        """Open parts/NAME.h5 for reading by row. Raises DamagedError."""
        return Hdf5Part(self._part(name))

    def finalise(self, parts: Sequence[str], book: Book) -> Path:
        """Join the parts and the book into encyclopedia.h5, replacing an old one atomically."""
        path = self.location / FILE
        with explained("write", path), files.replacing(path) as temporary:
            with files.late_file(temporary) as disk, h5py.File(disk, "w") as file:
                write_attributes(file, book.attributes)
                write_table(file.create_group("concepts"), book.concepts)
                write_table(file.create_group("signatures"), book.signatures)
                self._join(file.create_group("samples"), [self.open_part(name) for name in parts])
        return path

    def open(self) -> Hdf5Reader:
        """Open encyclopedia.h5 for reading. Raises StoreError."""
        return Hdf5Reader(self.location / FILE)

    def bulk_ranges(self) -> Bulk:
        """Return where the finished file's activations lie: opening need not read through them."""
        path = self.location / FILE
        with explained("read", path), h5py.File(path, "r") as file:
            return {"": find_chunks(file, path).bulk().get(path, [])}

    def _part(self, name: str) -> Path:
        return self.location / "parts" / f"{name}.h5"

    def _join(self, group: h5py.Group, parts: Sequence[Hdf5Part]) -> None:
        columns = Columns.join([part.columns() for part in parts])
        for field in dataclasses.fields(columns):
            write_column(group, field.name, getattr(columns, field.name))
        escape = any(part.escaped["prompt"] for part in parts)
        prompts, start = create_texts(group, "prompt", len(columns), escape), 0
        for part in parts:
            texts = part.prompts()
            prompts[start : start + len(texts)] = text.pack(texts, escape)
            start += len(texts)
        shape = (len(columns), len(self.schema.layers), self.schema.hidden_size)
        if parts:
            shape = (len(columns), *parts[0].activations(np.empty(0, np.int64)).shape[1:])
        rows = min(ROWS_A_CHUNK, len(columns))
        chunks = (rows, 1, shape[2]) if rows else None
        dataset = group.create_dataset("activations", shape=shape, dtype="<f2", chunks=chunks)
        for index, block in enumerate(joined_blocks(parts, rows) if rows else ()):
            padded = np.zeros((shape[1], rows, shape[2]), "<f2")
            padded[:, : len(block)] = block.swapaxes(0, 1)
            for layer in range(shape[1]):
                dataset.id.write_direct_chunk((index * rows, layer, 0), padded[layer])
