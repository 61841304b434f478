"""Writes the hierarchy of `encyclo.schema` with zarr; arrays.py reads it.

A part is one zip file that zarr opens as it is (`zarr.storage.ZipStore`): one file to flush and rename, with its
activations in one piece. The finished directory is written under a temporary name, flushed and renamed (see
`files.replacing_folder`); its metadata is consolidated once, at the end. No array is ever resized or written in place,
so a unit always has what its commit record says.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import MemoryStore

from encyclo.schema import HIERARCHY, SAMPLES, Array, Book, place_of_activations
from encyclo.storage.array_store import AnyPart, ArrayStore, JoinedSamples
from encyclo_zarr.arrays import ZarrArrays
from encyclo_zarr.layout import ROWS_PER_SHARD, create
from encyclo_zarr.tree import Zip

_WHEN = (1980, 1, 1, 0, 0, 0)  # a part's bytes depend on its samples alone


class ZarrStore(ArrayStore):
    """The store of one run directory: parts/NAME.zarr.zip, encyclopedia.zarr/."""

    ENCYCLOPEDIA = "encyclopedia.zarr"
    IS_FOLDER = True
    PART_SUFFIX = ".zarr.zip"

    def open_arrays(self, path: Path, part: bool) -> ZarrArrays:
        """Open a zip or a folder. Raises ValueError, OSError."""
        return ZarrArrays(path, self.schema.part if part else None)

    def write_part_file(self, path: Path, part: AnyPart) -> int:
        """Write a zipped part; return where its activations begin."""
        members: dict[str, Any] = {}
        root = zarr.create_group(MemoryStore(members), zarr_format=3)
        for group, arrays in self.schema.part.items():
            _write_table(root.create_group(group) if group else root, part, arrays, part=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for key in sorted(members):
                archive.writestr(zipfile.ZipInfo(key, _WHEN), members[key].as_numpy_array().data)
        bulk = f"{place_of_activations(self.schema.part)}/c.0.0.0"
        return Zip(path).place(bulk)[1] if bulk in members else 0

    def write_encyclopedia(self, path: Path, book: Book, samples: JoinedSamples) -> None:
        """Write the finished folder."""
        attributes = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(book.attributes).items()}
        root = zarr.create_group(str(path), zarr_format=3, attributes=attributes)
        for name, table in (("concepts", book.concepts), ("signatures", book.signatures)):
            _write_table(root.create_group(name), table, HIERARCHY[name])
        _write_samples(root.create_group("samples"), samples)
        with warnings.catch_warnings():
            # zarr warns that the specification has no consolidated metadata yet; readers may ignore it.
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(root.store)


def _write_samples(group: zarr.Group, samples: JoinedSamples) -> None:
    small = {name: array for name, array in SAMPLES.items() if hasattr(samples.columns, name)}
    _write_table(group, samples.columns, small)
    _write(group, "prompt", SAMPLES["prompt"], list(chain.from_iterable(samples.prompts())))
    activations, start = create(group, "activations", SAMPLES["activations"], samples.shape), 0
    for block in samples.blocks(ROWS_PER_SHARD["activations"]) if activations.size else ():
        activations[start : start + len(block)] = block
        start += len(block)


def _write_table(group: zarr.Group, table: Any, arrays: Mapping[str, Array], part: bool = False) -> None:
    """Write those columns of a dataclass that `arrays` names: arrays, or lists of texts."""
    for name, array in arrays.items():
        _write(group, name, array, getattr(table, name), part)


def _write(group: zarr.Group, name: str, array: Array, column: Any, part: bool = False) -> None:
    created = create(group, name, array, np.shape(column) or (0,), part)
    if created.size:
        created[...] = np.asarray(column, created.dtype)
