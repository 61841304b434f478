"""Half precision that can't overflow: value = float16 * scale, with a power-of-two scale a (sample, layer).

Scaling by a power of two is exact. The scale brings the largest magnitude of a layer's vector into
[2^14, 2^15), well under float16's 65,504, so elements down to 2^-28 of the largest stay normal numbers
with float16's relative precision of 2^-11.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_TOP = 15  # the largest magnitude is scaled to below 2**15
_LARGEST = 2**15 - 16  # float16's last number below 2**15: rounding up to 2**15 could pass float32's range


def encode(values: NDArray[np.float32]) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """Encode float32 [..., hidden] as (float16 [..., hidden], float32 scale [...]).

    Raises ValueError if a value is not finite. A vector of zeros gets scale 1.
    """
    if not np.isfinite(values).all():
        row = tuple(int(place) for place in np.argwhere(~np.isfinite(values))[0])
        raise ValueError(
            f"the activation at {row} is infinite or NaN and can't be stored; use a compute type with a wider range"
        )
    largest = np.abs(values).max(axis=-1)
    _, exponent = np.frexp(largest)  # largest = m * 2**exponent with 0.5 <= m < 1
    # float32's smallest normal number is 2**-126: below it a scale would lose bits.
    exponent = np.where(largest > 0, np.maximum(exponent - _TOP, -126), 0)
    scale = np.ldexp(np.float32(1), exponent).astype(np.float32)
    # Divide in float64 so that tiny vectors (scale 2**-126) can't overflow on the way.
    scaled = values / scale[..., None].astype(np.float64)
    return np.clip(scaled, -_LARGEST, _LARGEST).astype(np.float16), scale


def decode(halves: NDArray[np.float16], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return float32 values from `encode`'s result."""
    values: NDArray[np.float32] = halves.astype(np.float32)
    values *= scale[..., None]
    return values
