"""Linear layers in float32 on a CPU whose weights are packed once: for passes over few tokens.

MKL packs a weight into its own order in every product. For a network that reads twenty tokens at a time, as it does
when it writes sentences, this takes most of the time. Packed weights take as much memory again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from encyclo_capture.cpu.fused_modules import relative_error, replace_modules

PACKED_FOR = 128
"""The number of rows that MKL packs a weight for; it takes any other number, but packed for few rows it is slow."""
CHECKED = 3
"""Rows that a packed weight is compared on: few, since a product that packs the weight is slow."""
TOLERANCE = 1e-5
"""The largest error, relative to the length of the result: the order of sums may differ."""


class PackedFloatLinear(nn.Module):
    """A linear layer with a copy of its weight in MKL's order."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        self.packed = torch.ops.mkl._mkl_reorder_linear_weight(weight, PACKED_FOR)
        # The operation asks the weight for its shape alone.
        self.shape = torch.empty(1).expand(weight.shape)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return the product: float32 [..., in] -> [..., out]."""
        rows = x.numel() // x.shape[-1]
        result: Tensor = torch.ops.mkl._mkl_linear(x, self.packed, self.shape, self.bias, rows)
        return result


def pack_linears(network: nn.Module) -> None:
    """Replace the linear layers of a float32 network on a CPU in place, where the replacement agrees with them."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        replace_modules(network, _packed)


def _packed(module: Any) -> nn.Module | None:
    # A subclass may do more, and hooks would be lost.
    if type(module) is not nn.Linear or module._forward_hooks or module._forward_pre_hooks:
        return None
    weight = module.weight
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return None
    x = torch.randn(CHECKED, module.in_features)
    try:
        packed = PackedFloatLinear(module)
        error = relative_error(packed(x), module(x))
    except (AttributeError, RuntimeError):  # a torch without these operations, or without MKL
        return None
    return packed if error <= TOLERANCE else None
