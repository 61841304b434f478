"""The crc32 of each sample's activations at each layer: what says that they are those that were written.

A crc32 a vector tells which sample is damaged. Comparing goes faster: the crc32 of many vectors that lie together
follows from their own ones (zlib's crc32_combine), so that long stretches of memory are summed in one call, which
is quicker than a call a vector and lets other threads run.
"""

from __future__ import annotations

import base64
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Sums = NDArray[np.uint32]
_LEVELS = 8
_STRETCH = 2**_LEVELS
"""Vectors that are compared by one sum."""
_SHARED = 64
"""Stretches that are worth starting a second thread for."""


def of(activations: NDArray[np.float16]) -> Sums:
    """Return the crc32 of each vector's bytes (float16, little-endian): [..., H] -> uint32 [...]."""
    shape, view = activations.shape, _bytes(activations)
    width = shape[-1] * 2
    count = int(np.prod(shape[:-1], dtype=np.int64))
    sums = (
        [zlib.crc32(view[at : at + width]) for at in range(0, count * width, width)] if width else [0] * count
    )
    return np.array(sums, np.uint32).reshape(shape[:-1])


def differing(activations: NDArray[np.float16], expected: Sums) -> NDArray[np.int64]:
    """Return the rising rows [n, L, H] whose activations are not those that `expected` [n, L] was made `of`."""
    if activations.shape[:-1] != expected.shape:
        raise ValueError(f"activations {activations.shape} and sums {expected.shape} don't belong together")
    flat, width = expected.ravel(), activations.shape[-1] * 2
    vectors = np.ascontiguousarray(activations).reshape(len(flat), width // 2)
    if not vectors.size:
        return np.empty(0, np.int64)
    whole = len(flat) // _STRETCH * _STRETCH
    starts = _wrong_stretches(_bytes(vectors), flat[:whole], width) if whole else []
    suspects = np.concatenate([*(np.arange(at, at + _STRETCH) for at in starts), np.arange(whole, len(flat))])
    bad: NDArray[np.int64] = suspects[of(vectors[suspects]) != flat[suspects]] // expected.shape[-1]
    return np.unique(bad)


def _wrong_stretches(view: memoryview, expected: Sums, width: int) -> list[int]:
    """Return the first vector of each stretch whose bytes differ from what its vectors' sums say."""
    length = _STRETCH * width
    places = range(0, len(expected) * width, length)

    def sums(places: range) -> list[int]:
        return [zlib.crc32(view[at : at + length]) for at in places]

    if len(places) < _SHARED:
        found = sums(places)
    else:
        half = len(places) // 2
        with ThreadPoolExecutor(1) as beside:
            others = beside.submit(sums, places[half:])
            found = sums(places[:half]) + others.result()
    wrong = np.flatnonzero(np.array(found, np.uint32) != _joined(expected, width))
    return [place * _STRETCH for place in wrong.tolist()]


def pack(sums: Sums) -> str:
    """Return the checksums as text: base64 of little-endian uint32."""
    return base64.b64encode(sums.astype("<u4").tobytes()).decode("ascii")


def unpack(text: str, layers: int) -> Sums:
    """Return what `pack` was given, [n, layers]. Raises ValueError."""
    return np.frombuffer(base64.b64decode(text, validate=True), "<u4").astype(np.uint32).reshape(-1, layers)


def _bytes(activations: NDArray[np.float16]) -> memoryview:
    return np.ascontiguousarray(activations, "<f2").reshape(-1).view(np.uint8).data


def _joined(sums: Sums, width: int) -> Sums:
    """Return the sum of each _STRETCH vectors from the vectors' own, pair by pair, pairs of pairs, and so on."""
    for level in range(_LEVELS):
        left, right = sums[0::2], sums[1::2]
        tables = _shifts(width << level)
        sums = right.copy()
        for byte in range(4):
            sums ^= tables[byte][(left >> np.uint32(8 * byte)) & np.uint32(255)]
    return sums


@lru_cache(maxsize=64)
def _shifts(length: int) -> NDArray[Any]:
    """Return what a crc32 becomes when `length` bytes follow, but for what these bytes add: by each of its bytes.

    crc32(data, before) is M before ^ crc32(data), with a matrix M of bits that depends on the length alone.
    """
    zeros = bytes(length)
    nothing = zlib.crc32(zeros)
    columns = np.array([zlib.crc32(zeros, 1 << bit) ^ nothing for bit in range(32)], np.uint32)
    values = np.arange(256)
    tables = np.zeros((4, 256), np.uint32)
    for byte in range(4):
        for bit in range(8):
            tables[byte] ^= np.where(values >> bit & 1, columns[8 * byte + bit], 0).astype(np.uint32)
    return tables
