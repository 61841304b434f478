"""Checks a Zarr hierarchy before zarr reads it, since it may come from a stranger.

Each refusal names the file. Refused are format 2; codecs, types, chunk grids and key encodings that encyclo does not
write; files that the hierarchy does not have; and chunks whose sizes don't match the metadata, so that no more memory
is allocated than the bytes on disk fill.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.schema import TEXT, Array, check_shapes
from encyclo.storage.safe_read import parse_json
from encyclo_zarr.layout import grid
from encyclo_zarr.tree import Tree, read

LARGEST_METADATA = 2**24
ABSENT = 2**64 - 1
"""A shard's index has this value for a chunk that is missing."""
_BYTES = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "bytes"}]
_TEXTS = [{"name": "vlen-utf8", "configuration": {}}, {"name": "vlen-utf8"}]
_INDEX = [*_BYTES[:1], {"name": "crc32c"}]
_KEYS = {"name": "default", "configuration": {"separator": "."}}
_ARRAY_KEYS = {
    "shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs", "attributes", "zarr_format",
    "node_type", "storage_transformers", "dimension_names",
}  # fmt: skip


def check_tree(tree: Tree, hierarchy: Mapping[str, Mapping[str, Array]], part: bool) -> dict[str, Any]:
    """Refuse anything that `hierarchy` (group, "" for the root: arrays) does not have; return all metadata by path.

    Raises ValueError.
    """
    documents = {}
    root = _document(tree, "zarr.json")
    expected = {"zarr.json"}
    found: dict[str, tuple[Array, tuple[int, ...]]] = {}
    for group, arrays in hierarchy.items():
        if group:
            documents[group] = _document(tree, f"{group}/zarr.json")
            _check_group(documents[group], group)
            expected.add(f"{group}/zarr.json")
        for name, array in arrays.items():
            path = f"{group}/{name}".lstrip("/")
            documents[path] = _document(tree, f"{path}/zarr.json")
            shape = _check_array(documents[path], path, array, part)
            found[path] = (array, shape)
            expected.add(f"{path}/zarr.json")
    check_shapes(found)
    for path, (array, shape) in found.items():
        expected |= _check_chunks(tree, path, array, shape, part)
    strangers = sorted(tree.sizes.keys() - expected)
    if strangers:
        raise ValueError(f"{strangers[0][:200]!r} does not belong there")
    consolidated = root.pop("consolidated_metadata", None)
    _check_group(root, "")
    if consolidated is not None and _gathered(consolidated) != documents:
        raise ValueError("its consolidated metadata differs from its arrays'")
    return {**documents, "": root}


def shard_index(tree: Tree, path: str, key: str, shape: tuple[int, ...]) -> NDArray[np.uint64]:
    """Return (offset, bytes) of every chunk of a shard, uint64 [chunks in it, 2]; ABSENT for a missing one."""
    chunks, shards = grid(path, shape, part=False)
    assert shards is not None, path
    count = math.prod(s // c for s, c in zip(shards, chunks, strict=True))
    table = np.frombuffer(read(tree, key, -(16 * count + 4), 16 * count), "<u8").reshape(-1, 2)
    there = table[table[:, 1] != ABSENT]
    room = tree.sizes[key] - 16 * count - 4
    # Each bounded first, so that the sum can't wrap around.
    if (there > room).any() or (there.sum(axis=1) > room).any() or int(there[:, 1].sum()) > room:
        raise ValueError(f"{key} has an index that points outside it")
    return table


def keys_of(path: str, shape: tuple[int, ...], part: bool) -> list[str]:
    """Return the names of an array's files, in the order of their positions in the array."""
    if 0 in shape:
        return []
    return [f"{path}/c.{'.'.join(map(str, place))}" for place in _places(path, shape, part)]


def _places(path: str, shape: tuple[int, ...], part: bool) -> list[tuple[int, ...]]:
    chunks, shards = grid(path, shape, part)
    files = shards or chunks
    return list(itertools.product(*(range(math.ceil(n / f)) for n, f in zip(shape, files, strict=True))))


def _document(tree: Tree, name: str) -> dict[str, Any]:
    if name not in tree.sizes:
        raise ValueError(f"{name!r} is missing")
    if tree.sizes[name] > LARGEST_METADATA:
        raise ValueError(f"{name!r} is too large to be metadata")
    try:
        document = parse_json(read(tree, name))
    except ValueError as error:
        raise ValueError(f"{name!r} can't be read: {error}") from error
    if not isinstance(document, dict) or document.get("zarr_format") != 3:
        raise ValueError(f"{name!r} is not metadata of Zarr format 3")
    return document


def _gathered(consolidated: Any) -> Any:
    """Return consolidated metadata by path; zarr gives each group an empty collection of its own."""
    if not isinstance(consolidated, dict) or not isinstance(consolidated.get("metadata"), dict):
        return None
    empty = {**consolidated, "metadata": {}}
    return {
        path: {
            key: value for key, value in document.items() if (key, value) != ("consolidated_metadata", empty)
        }
        for path, document in consolidated["metadata"].items()
        if isinstance(document, dict)
    }


def _check_group(document: dict[str, Any], path: str) -> None:
    if document.get("node_type") != "group" or not isinstance(document.get("attributes"), dict):
        raise ValueError(f"{path or 'its root'} is not a group")
    strangers = document.keys() - {"node_type", "attributes", "zarr_format", "consolidated_metadata"}
    if strangers:
        raise ValueError(f"{path or 'its root'} has an unknown key {min(strangers)!r} in its zarr.json")


def _check_array(document: dict[str, Any], path: str, array: Array, part: bool) -> tuple[int, ...]:
    if document.get("node_type") != "array" or document.keys() - _ARRAY_KEYS:
        raise ValueError(f"{path} is not an array, or has unknown metadata")
    shape = document.get("shape")
    if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < 2**40 for n in shape):
        raise ValueError(f"{path} has the shape {shape!r}")
    kind = "string" if array.dtype == TEXT else array.dtype
    if document.get("data_type") != kind:
        raise ValueError(f"{path} is of the type {document.get('data_type')!r}, not {kind}")
    if len(shape) != len(array.shape):
        raise ValueError(f"{path} has {len(shape)} dimensions, not {len(array.shape)}")
    chunks, shards = grid(path, shape, part)
    regular = {"name": "regular", "configuration": {"chunk_shape": list(shards or chunks)}}
    if document.get("chunk_grid") != regular or document.get("chunk_key_encoding") != _KEYS:
        raise ValueError(f"{path} has a chunk grid that encyclo does not write")
    if document.get("storage_transformers", []) != []:
        raise ValueError(f"{path} has storage transformers")
    if document.get("fill_value") not in (0, "") or document.get("dimension_names") is not None:
        raise ValueError(f"{path} has a fill value that encyclo does not write, or has dimension names")
    if document.get("attributes", {}) != {}:
        raise ValueError(
            f"{path} has the attributes {document['attributes']!r:.80}, which this version does not write"
        )
    _check_codecs(document.get("codecs"), path, array, chunks if shards else None)
    return tuple(shape)


def _check_codecs(codecs: Any, path: str, array: Array, inner: tuple[int, ...] | None) -> None:
    """Raise ValueError for codecs that encyclo does not write, so that none can do more than move bytes."""
    allowed = _TEXTS if array.dtype == TEXT else _BYTES
    if not isinstance(codecs, list) or len(codecs) != 1 or not isinstance(codecs[0], dict):
        raise ValueError(f"{path} has codecs that are not allowed")
    if inner is None:
        if codecs[0] not in allowed:
            raise ValueError(f"{path} has the codec {codecs[0].get('name')!r}, which is not allowed")
        return
    configuration = codecs[0].get("configuration")
    if (
        codecs[0].get("name") != "sharding_indexed"
        or not isinstance(configuration, dict)
        or configuration.get("chunk_shape") != list(inner)
        or configuration.get("codecs") not in [[codec] for codec in allowed]
        or configuration.get("index_codecs") != _INDEX
        or configuration.get("index_location") != "end"
        or configuration.keys() - {"chunk_shape", "codecs", "index_codecs", "index_location"}
    ):
        raise ValueError(f"{path} has shards or codecs that are not allowed")


def _check_chunks(tree: Tree, path: str, array: Array, shape: tuple[int, ...], part: bool) -> set[str]:
    """Compare the sizes of an array's files with its shape; return their names."""
    chunks, shards = grid(path, shape, part)
    if 0 in shape:
        return set()
    count = math.prod(math.ceil(n / f) for n, f in zip(shape, shards or chunks, strict=True))
    if count > len(tree.sizes):
        raise ValueError(f"{path} is missing chunks: its shape requires {count:,} files")
    keys = keys_of(path, shape, part)
    itemsize = 0 if array.dtype == TEXT else np.dtype(array.dtype).itemsize
    length = math.prod(chunks) * itemsize
    for key, place in zip(keys, _places(path, shape, part), strict=True):
        if key not in tree.sizes:
            raise ValueError(f"{key!r} is missing")
        if shards is not None:
            _check_shard(tree, path, key, shape, place, length)
        elif itemsize and tree.sizes[key] != length:
            raise ValueError(f"{key!r} has {tree.sizes[key]:,} bytes, not {length:,}")
        elif not itemsize:
            _check_texts(tree, key, 0, tree.sizes[key], chunks[0])
    return set(keys)


def _check_shard(
    tree: Tree, path: str, key: str, shape: tuple[int, ...], place: tuple[int, ...], length: int
) -> None:
    chunks, shards = grid(path, shape, part=False)
    assert shards is not None
    table = shard_index(tree, path, key, shape)
    rows = min(shards[0], shape[0] - place[0] * shards[0])
    needed = math.ceil(rows / chunks[0]) * math.prod(
        s // c for s, c in zip(shards[1:], chunks[1:], strict=True)
    )
    if (table[:needed, 1] == ABSENT).any():
        raise ValueError(f"{key!r} is missing chunks")
    for offset, size in table[:needed].tolist():
        if length and size != length:
            raise ValueError(f"{key!r} has a chunk of {size:,} bytes, not {length:,}")
        if not length:
            _check_texts(tree, key, offset, size, chunks[0])


def _check_texts(tree: Tree, key: str, offset: int, size: int, count: int) -> None:
    """Check the number of texts that a chunk begins with, since the decoder trusts it. Raises ValueError."""
    if size < 4 + 4 * count or int.from_bytes(read(tree, key, offset, 4), "little") != count:
        raise ValueError(f"{key!r} claims a number of texts that its shape does not have")
