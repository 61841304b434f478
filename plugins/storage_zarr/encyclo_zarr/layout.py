"""How the arrays are cut: chunks, and the shards (files) that hold them.

A chunk of activations has one layer of 250 samples, and a shard has all layers of 2,000 samples. So one layer is read
without the others, and 10,000 samples are 5 files. Prompts: 250 per chunk, 50,000 per shard. Signatures: 250 concepts
per chunk, one shard. Everything else, and every array of a part, is one chunk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import zarr

from encyclo.schema import TEXT, Array

ROWS_PER_CHUNK = 250
ROWS_PER_SHARD = {"activations": 2_000, "prompt": 50_000}
CONCEPTS_PER_CHUNK = 250


def grid(path: str, shape: Sequence[int], part: bool) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Return the shapes of an array's chunks and of its shards, if it has any; only the name in `path` matters."""
    whole, name = tuple(max(1, length) for length in shape), path.rsplit("/", 1)[-1]
    if part:
        return whole, None
    if name in ROWS_PER_SHARD:
        rows = min(ROWS_PER_CHUNK, whole[0])
        shard = rows * math.ceil(min(whole[0], ROWS_PER_SHARD[name]) / rows)
        return (rows, *([1] * (len(whole) > 1)), *whole[2:]), (shard, *whole[1:])
    if name in ("mean", "variance"):
        rows = min(CONCEPTS_PER_CHUNK, whole[0])
        return (rows, *whole[1:]), (rows * math.ceil(whole[0] / rows), *whole[1:])
    return whole, None


def create(group: zarr.Group, name: str, array: Array, shape: Sequence[int], part: bool = False) -> Any:
    """Create an array of the hierarchy, uncompressed, and write every chunk, even if it is all zeros."""
    chunks, shards = grid(name, shape, part)
    return group.create_array(
        name,
        shape=tuple(shape),
        dtype="string" if array.dtype == TEXT else array.dtype,
        chunks=chunks,
        shards=shards,
        # c.0.0.0 rather than c/0/0/0: a folder is one more thing to flush.
        chunk_key_encoding={"name": "default", "separator": "."},
        compressors=None,
        filters=None,
        config={"write_empty_chunks": True},
    )
