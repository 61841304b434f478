"""Few sizes instead of ever new ones.

In bfloat16 on a CPU, oneDNN compiles each product for the number of its rows: about 100 ms for all products of a
network whose batch has a size that was not there before, and memory that is never given back. So batches are filled
up to one of few sizes.
"""

from __future__ import annotations

from typing import Any

import torch

SMALLEST_STEP = 16
SIZES_PER_OCTAVE = 8


def even_size(network: Any, rows: int) -> int:
    """Return the size to which so many rows are filled up for this network: `rows` itself where that is no gain."""
    if network.device.type != "cpu" or network.dtype != torch.bfloat16:
        return rows
    step = max(SMALLEST_STEP, 2 ** (rows.bit_length() - 1) // SIZES_PER_OCTAVE)
    return -(-rows // step) * step
