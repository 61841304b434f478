"""What every batch goes through: halved if the device's memory is full, copied to the host, checked for its range."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encyclo.errors import CaptureError
from encyclo.windows import TokenWindow
from encyclo_capture.tokenization import TokenisedPrompt

T = TypeVar("T", TokenisedPrompt, TokenWindow)

LARGEST = 1e12
"""Sums of squares of larger activations would overflow float32 later. Intact models stay far below."""


def halving(
    group: Sequence[T], run: Callable[[Sequence[T]], tuple[Tensor, int]]
) -> Iterator[tuple[Sequence[T], Tensor, int]]:
    """Run a group; if the device runs out of memory, run its halves recursively. Yield (prompts, pooled, tokens).

    Raises CaptureError if a single prompt does not fit.
    """
    try:
        pooled, computed = run(group)
    except torch.OutOfMemoryError as error:
        if len(group) == 1:
            raise CaptureError(
                f"A text of {len(group[0].ids)} tokens does not fit into the device's memory; "
                "use a smaller model or another --device."
            ) from error
    else:
        yield group, pooled, computed
        return
    # Not in the handler: there the error's traceback keeps the tensors of the failed pass alive.
    torch.cuda.empty_cache()
    middle = len(group) // 2
    yield from halving(group[:middle], run)
    yield from halving(group[middle:], run)


def start_transfer(pooled: Tensor) -> Callable[[], NDArray[np.float32]]:
    """Start to copy a tensor to the host; return a function that waits for the copy and returns it."""
    if pooled.device.type != "cuda":
        return lambda: pooled.cpu().numpy()
    host = torch.empty(pooled.shape, dtype=pooled.dtype, pin_memory=True)
    host.copy_(pooled, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()

    def wait() -> NDArray[np.float32]:
        arrived.synchronize()
        return host.numpy()

    return wait


def out_of_range(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return where values are not finite or beyond LARGEST."""
    outside: NDArray[np.bool_] = ~(np.abs(values) <= LARGEST)
    return outside


def range_fault(value: float) -> str:
    """Return what is wrong with a value that is out of range."""
    return f"is implausibly large (more than {LARGEST:g})" if np.isfinite(value) else "is not finite"
