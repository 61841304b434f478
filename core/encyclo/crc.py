"""The crc32 of each sample's activations at each layer, and of its prompt, to check that they are what was written.

One crc32 per vector shows which sample is damaged.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Sums = NDArray[np.uint32]


def of(activations: NDArray[np.float16]) -> Sums:
    """Return the crc32 of each vector's bytes (float16, little-endian): [..., H] -> uint32 [...]."""
    *counts, width = activations.shape
    vectors = np.ascontiguousarray(activations, "<f2").reshape(math.prod(counts), width)
    return np.array([zlib.crc32(vector.data) for vector in vectors], np.uint32).reshape(counts)


def of_texts(texts: Sequence[str]) -> Sums:
    """Return the crc32 of each text in UTF-8: uint32 [n]."""
    return np.array([zlib.crc32(text.encode("utf-8", "surrogatepass")) for text in texts], np.uint32)


def differing(activations: NDArray[np.float16], expected: Sums) -> NDArray[np.int64]:
    """Return the rows, ascending, whose activations [n, L, H] do not match the checksums `expected` [n, L]."""
    if activations.shape[:-1] != expected.shape:
        raise ValueError(
            f"activations of the shape {activations.shape} don't match checksums of the shape {expected.shape}; "
            "`encyclo verify` says what is damaged"
        )
    rows: NDArray[np.int64] = np.flatnonzero((of(activations) != expected).any(axis=1))
    return rows


def pack(sums: Sums) -> str:
    """Return the checksums as text: base64 of little-endian uint32."""
    return base64.b64encode(sums.astype("<u4").tobytes()).decode("ascii")


def unpack(text: str, layers: int) -> Sums:
    """Return what `pack` was given, [n, layers]. Raises ValueError."""
    return np.frombuffer(base64.b64decode(text, validate=True), "<u4").astype(np.uint32).reshape(-1, layers)
