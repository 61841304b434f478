"""Chooses how many tokens a batch has, and limits the number of distinct sizes.

In bfloat16 on a CPU, oneDNN compiles each matrix product for its number of rows. A new batch size costs about 100 ms
for all products of a network, and memory that is never freed. So batches are padded to one of a few sizes.
"""

from __future__ import annotations

from typing import Any

import torch

SMALLEST_STEP = 16
SIZES_PER_OCTAVE = 8
CPU_TOKENS = 2048
"""Tokens of a batch on a CPU, per thread."""
GPU_TOKENS = 65536
"""Tokens of a batch on a GPU with enough memory (docs/gpu.md)."""
FEWEST_TOKENS = 1024


def default_batch(model: Any) -> int:
    """Return the tokens of a batch on the device of a `LoadedModel`. On a CPU it loads no weights."""
    if not model.device.startswith("cuda"):
        return CPU_TOKENS
    network = model.network
    free, _ = torch.cuda.mem_get_info(network.device)
    return fitting_tokens(free, model.config, network.dtype.itemsize)


def fitting_tokens(free: int, config: Any, itemsize: int) -> int:
    """Return the tokens of a batch whose states take at most half of `free` bytes, from 1,024 to 65,536.

    An estimate: at the peak of a block there are about 16 vectors of the hidden size per token, and 4 of the size
    of the MLP's hidden layer. If a batch still doesn't fit, capture halves it.
    """
    hidden = config.hidden_size
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    per_token = itemsize * (16 * hidden + 4 * inner)
    tokens = GPU_TOKENS
    while tokens > FEWEST_TOKENS and tokens * per_token > free / 2:
        tokens //= 2
    return tokens


def even_size(network: Any, rows: int) -> int:
    """Return the size to pad `rows` rows to; `rows` itself if the network gains nothing from padding."""
    if network.device.type != "cpu" or network.dtype != torch.bfloat16:
        return rows
    step = max(SMALLEST_STEP, 2 ** (rows.bit_length() - 1) // SIZES_PER_OCTAVE)
    return -(-rows // step) * step
