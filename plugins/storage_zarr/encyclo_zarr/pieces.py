"""The bytes of a Zarr hierarchy where zarr itself would take long: a part's files, and shards.

zarr writes the metadata; what stands here is what its codecs `bytes`, `vlen-utf8` and `sharding_indexed` do.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import MemoryStore

from encyclo.schema import SAMPLES, Array, Part
from encyclo.storage import files
from encyclo_zarr.layout import create

ABSENT = 2**64 - 1
"""What a shard's index says of a chunk that it doesn't have."""


def part_files(part: Part) -> dict[str, Any]:
    """Return the files of a part's hierarchy, each array in one chunk: bytes by path."""
    shapes = []
    members: dict[str, Any] = {}
    for field in dataclasses.fields(part):
        name, column = field.name, getattr(part, field.name)
        shape = (len(column),) if isinstance(column, list) else column.shape
        shapes.append((name, shape))
        if 0 not in shape:
            members[f"{name}/{one_file(shape)}"] = encode(column, SAMPLES[name])
    return {**_documents(tuple(shapes)), **members}


def one_file(shape: tuple[int, ...]) -> str:
    """Return the name of the file of an array that is in one."""
    return ".".join(["c", *("0" for _ in shape)])


def encode(column: Any, array: Array) -> Any:
    """Return the bytes of a column, an array or a list of texts, as one chunk."""
    if isinstance(column, list):
        return _encode_texts(column)
    whole = np.ascontiguousarray(column, np.dtype(array.dtype).newbyteorder("<"))
    return whole.reshape(-1).view(np.uint8).data


def decode_texts(data: bytes) -> list[str]:
    """Return the texts of a chunk. Raises ValueError."""
    found, at = [], 4
    for _ in range(int.from_bytes(data[:4], "little")):
        start = at + 4
        at = start + int.from_bytes(data[at:start], "little")
        if at > len(data):
            raise ValueError("a text passes the end of its chunk")
        found.append(data[start:at].decode("utf-8"))
    return found


def write_shard(path: Path, chunks: Iterable[Any], room: int) -> None:
    """Write a shard that has room for so many chunks; those that are not given are absent."""
    index = np.full((room, 2), ABSENT, "<u8")
    at = 0
    with files.late_file(path) as file:
        for place, chunk in enumerate(chunks):
            data = memoryview(chunk).cast("B")
            index[place] = at, len(data)
            at += len(data)
            file.write(data)
        table = index.tobytes()
        file.write(table + struct.pack("<I", google_crc32c.value(table)))


def layer_chunks(block: NDArray[np.float16], rows: int) -> Iterator[NDArray[np.float16]]:
    """Yield samples, [n, L, H], as chunks of one layer of `rows` samples, the last ones filled up with zeros."""
    for start in range(0, len(block), rows):
        some = block[start : start + rows].swapaxes(0, 1)
        padded = np.zeros((len(some), rows, some.shape[2]), "<f2")
        padded[:, : some.shape[1]] = some
        yield from padded


def row_chunks(column: NDArray[Any], rows: int) -> Iterator[NDArray[Any]]:
    """Yield an array as chunks of `rows` rows, the last one filled up with zeros."""
    little = column.dtype.newbyteorder("<")
    for start in range(0, len(column), rows):
        some = column[start : start + rows]
        padded = np.zeros((rows, *column.shape[1:]), little)
        padded[: len(some)] = some
        yield padded


def text_chunks(texts: list[str], rows: int) -> Iterator[bytes]:
    """Yield texts as chunks of `rows` texts, the last one filled up with empty ones."""
    for start in range(0, len(texts), rows):
        some = texts[start : start + rows]
        yield _encode_texts(some + [""] * (rows - len(some)))


def _encode_texts(texts: list[str]) -> bytes:
    encoded = [text.encode("utf-8") for text in texts]
    pieces = [struct.pack("<I", len(encoded))]
    for data in encoded:
        pieces += [struct.pack("<I", len(data)), data]
    return b"".join(pieces)


@lru_cache(maxsize=16)
def _documents(shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> Mapping[str, bytes]:
    """Return the metadata of a part's hierarchy: most parts of a run have the same shapes."""
    members: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(members), zarr_format=3)
    for name, shape in shapes:
        create(group, name, SAMPLES[name], shape, part=True)
    return {key: value.to_bytes() for key, value in members.items()}
