"""Limits the number of distinct batch sizes.

In bfloat16 on a CPU, oneDNN compiles each matrix product for its number of rows. A new batch size costs about 100 ms
for all products of a network, and memory that is never freed. So batches are padded to one of a few sizes.
"""

from __future__ import annotations

from typing import Any

import torch

SMALLEST_STEP = 16
SIZES_PER_OCTAVE = 8


def even_size(network: Any, rows: int) -> int:
    """Return the size to pad `rows` rows to; `rows` itself if the network gains nothing from padding."""
    if network.device.type != "cpu" or network.dtype != torch.bfloat16:
        return rows
    step = max(SMALLEST_STEP, 2 ** (rows.bit_length() - 1) // SIZES_PER_OCTAVE)
    return -(-rows // step) * step
