"""Columns, tables and attributes of the hierarchy, written and read with h5py."""

from __future__ import annotations

import dataclasses
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from encyclo import text
from encyclo.schema import Attributes


def write_column(group: h5py.Group, name: str, column: Any) -> None:
    """Write an array, or a list of texts."""
    if isinstance(column, list):
        escape = text.is_awkward(column)
        create_texts(group, name, len(column), escape)[...] = text.pack(column, escape)
    else:
        # Without a chunk the bytes lie in one piece, at an offset that the file names.
        group.create_dataset(name, data=column)


def create_texts(group: h5py.Group, name: str, rows: int, escape: bool) -> h5py.Dataset:
    """Create a column of texts."""
    dataset = group.create_dataset(name, shape=(rows,), dtype=h5py.string_dtype("utf-8"))
    if escape:
        dataset.attrs[text.ESCAPED] = np.int8(1)
    return dataset


def is_escaped(dataset: h5py.Dataset) -> bool:
    """Return whether a column's texts are escaped."""
    return text.ESCAPED in dataset.attrs


def read_column(dataset: h5py.Dataset) -> Any:
    """Return a whole column: an array, or a list of texts."""
    if h5py.check_string_dtype(dataset.dtype) is None:
        return dataset[...]
    return text.unpack(dataset.asstr()[...].tolist(), is_escaped(dataset))


def read_texts(dataset: h5py.Dataset, rows: NDArray[np.int64]) -> list[str]:
    """Return the texts of rising rows; those that lie together are read at once."""
    if len(rows) == 0:
        return []
    strings = dataset.asstr()
    cuts = (np.flatnonzero(np.diff(rows) != 1) + 1).tolist()
    if 4 * len(cuts) > len(rows):
        first, last = int(rows[0]), int(rows[-1])
        if last - first < 20 * len(rows):
            return text.unpack(strings[first : last + 1][rows - first].tolist(), is_escaped(dataset))
    found: list[str] = []
    for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        found += strings[int(rows[start]) : int(rows[stop - 1]) + 1].tolist()
    return text.unpack(found, is_escaped(dataset))


def write_table(group: h5py.Group, table: Any) -> None:
    """Write a dataclass, a column a field."""
    for field in dataclasses.fields(table):
        write_column(group, field.name, getattr(table, field.name))


def read_table(group: h5py.Group, table: type[Any]) -> Any:
    """Read what `write_table` wrote."""
    return table(**{field.name: read_column(group[field.name]) for field in dataclasses.fields(table)})


def write_attributes(file: h5py.File, attributes: Attributes) -> None:
    """Write the attributes at the root."""
    for name, value in dataclasses.asdict(attributes).items():
        file.attrs[name] = np.array(value, np.int32) if isinstance(value, tuple) else value


def read_attributes(file: h5py.File) -> Attributes:
    """Read what `write_attributes` wrote."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Attributes):
        value = file.attrs[field.name]
        if isinstance(value, np.ndarray):
            values[field.name] = tuple(int(v) for v in value)
        else:
            values[field.name] = int(value) if isinstance(value, np.integer) else str(value)
    return Attributes(**values)
