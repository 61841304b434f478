"""Writes the hierarchy of `encyclo.schema` with h5py; arrays.py reads it.

A part keeps its activations in one piece, row after row; the finished file in chunks of one layer of 250 samples,
so that reading one layer touches no other layer's bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from encyclo.schema import HIERARCHY, Book, columns_of, place_of_activations
from encyclo.storage import files
from encyclo.storage.array_store import AnyPart, ArrayStore, JoinedSamples
from encyclo_hdf5.arrays import Hdf5Arrays

ROWS_PER_CHUNK = 250


class Hdf5Store(ArrayStore):
    """The store of one run directory: parts/NAME.h5, encyclopedia.h5."""

    ENCYCLOPEDIA = "encyclopedia.h5"
    PART_SUFFIX = ".h5"

    def open_arrays(self, path: Path, part: bool) -> Hdf5Arrays:
        """Open a file. Raises ValueError, OSError."""
        return Hdf5Arrays(path, self.schema.part if part else None)

    def write_part_file(self, path: Path, part: AnyPart) -> int:
        """Write a part; return where its activations begin."""
        with files.late_file(path) as disk, h5py.File(disk, "w") as file:
            for group, arrays in self.schema.part.items():
                _write_table(file.require_group(group) if group else file, columns_of(part, arrays))
            return file[place_of_activations(self.schema.part)].id.get_offset() or 0

    def write_encyclopedia(self, path: Path, book: Book, samples: JoinedSamples) -> None:
        """Write the finished file."""
        with files.late_file(path) as disk, h5py.File(disk, "w") as file:
            for name, value in dataclasses.asdict(book.attributes).items():
                file.attrs[name] = np.array(value, np.int32) if isinstance(value, tuple) else value
            _write_table(file.create_group("concepts"), vars(book.concepts))
            _write_table(
                file.create_group("signatures"), columns_of(book.signatures, HIERARCHY["signatures"])
            )
            _write_samples(file.create_group("samples"), samples)


def _write_samples(group: h5py.Group, samples: JoinedSamples) -> None:
    _write_table(group, vars(samples.columns))
    count, layers, hidden = samples.shape
    prompts, start = _create_texts(group, "prompt", count), 0
    for texts in samples.prompts():
        prompts[start : start + len(texts)] = texts
        start += len(texts)
    rows = min(ROWS_PER_CHUNK, count)
    chunks = (rows, 1, hidden) if rows else None
    dataset = group.create_dataset("activations", shape=samples.shape, dtype="<f2", chunks=chunks)
    for index, block in enumerate(samples.blocks(rows) if rows else ()):
        padded = np.zeros((layers, rows, hidden), "<f2")
        padded[:, : len(block)] = block.swapaxes(0, 1)
        for layer in range(layers):
            dataset.id.write_direct_chunk((index * rows, layer, 0), padded[layer])


def _write_table(group: h5py.Group, columns: Mapping[str, Any]) -> None:
    """Write columns: each is an array, or a list of texts."""
    for name, column in columns.items():
        if isinstance(column, list):
            _create_texts(group, name, len(column))[...] = column
        else:
            # Without chunks the bytes are in one piece, at an offset that the file records.
            group.create_dataset(name, data=column)


def _create_texts(group: h5py.Group, name: str, rows: int) -> h5py.Dataset:
    return group.create_dataset(name, shape=(rows,), dtype=h5py.string_dtype("utf-8"))
