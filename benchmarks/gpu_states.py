"""What the steps of on_gpu.py share: the device, and the activations of prompts."""

from __future__ import annotations

from typing import Any

LAYERS = (7, 10, 13, 16, 18)
UNIT = 2000
"""Prompts of a slice."""
Figures = dict[str, Any]


def device_of(dry: bool) -> str:
    return "cpu" if dry else "cuda"


def states(
    model: Any, prompts: list[Any], batch_tokens: int | None = None, layers: tuple[int, ...] = LAYERS
) -> Any:
    """Return the prompts' activations, float32 [n, L, H], captured in slices as `encyclo run` hands prompts over."""
    import numpy as np

    from encyclo_capture.batch_sizes import default_batch
    from encyclo_capture.capture import capture as captured

    size = batch_tokens or default_batch(model)
    found = np.full((len(prompts), len(layers), model.hidden_size), np.nan, np.float32)
    for start in range(0, len(prompts), UNIT):
        for batch in captured(model, prompts[start : start + UNIT], layers, "span", size):
            found[start + batch.positions] = batch.activations
    return found
