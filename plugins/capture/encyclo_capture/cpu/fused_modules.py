"""Replaces a network's modules by faster ones for bfloat16 on a CPU: fewer passes over memory, the same numbers.

Four kinds of module are replaced in any architecture: linear layers (weights packed once for oneDNN's product), gated
MLPs (activation and multiplication fused into the products), RMS norms (three passes instead of seven) and rotary
attention on token trees (see fused_rotary_attention.py). A replacement must agree with its original on random rows.
If it doesn't, or if torch lacks an operation, the original stays. The replacements use torch's private operations;
`-o transformers.fused=false` turns them off.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from encyclo_capture.cpu.fused_rotary_attention import NORMS, fuse_rotary_attention

# Errors relative to the length of the result. MLPs are compared in bfloat16, norms in float32, linear layers bit
# for bit.
MLP_TOLERANCE = 0.01
NORM_TOLERANCE = 1e-5
ROTATION_TOLERANCE = 0.01
# A softmax magnifies differences of queries and keys.
ATTENTION_TOLERANCE = 0.2
ROWS = 16
# Class name of the activation module (torch's or transformers') to oneDNN's (name, algorithm).
ACTIVATIONS = {
    "GELUTanh": ("gelu", "tanh"),
    "GELUActivation": ("gelu", "none"),
    "SiLUActivation": ("swish", ""),
    "SiLU": ("swish", ""),
    "ReLU": ("relu", ""),
}


class PackedLinear(nn.Module):
    """A linear layer whose weight is packed in oneDNN's order."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight_packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return the product: bfloat16 [..., in] -> [..., out]."""
        return self.activated(x, "none", "")

    def activated(self, x: Tensor, activation: str, algorithm: str) -> Tensor:
        """Return activation(product), rounded once."""
        result: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self.weight_packed, self.bias, activation, [], algorithm
        )
        return result

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """Return product * other, rounded once."""
        result: Tensor = torch.ops.mkldnn._linear_pointwise.binary(
            x, other, self.weight_packed, self.bias, "mul"
        )
        return result


class FusedGatedMlp(nn.Module):
    """down(activation(gate(x)) * up(x)), with packed linear layers."""

    def __init__(self, mlp: Any) -> None:
        super().__init__()
        self.activation, self.algorithm = ACTIVATIONS[type(mlp.act_fn).__name__]
        self.gate_proj, self.up_proj, self.down_proj = mlp.gate_proj, mlp.up_proj, mlp.down_proj

    def forward(self, x: Tensor) -> Tensor:
        """Return the MLP's output: bfloat16 [..., hidden]."""
        gate = self.gate_proj.activated(x, self.activation, self.algorithm)
        output: Tensor = self.down_proj(self.up_proj.times(x, gate))
        return output


class FusedRmsNorm(nn.Module):
    """x / rms(x) * weight, computed in float32 and rounded once."""

    def __init__(self, norm: Any, offset: float) -> None:
        super().__init__()
        self.factor = nn.Buffer(norm.weight.detach().float() + offset, persistent=False)
        eps = getattr(norm, "eps", None)
        self.eps = nn.Buffer(
            torch.tensor(float(norm.variance_epsilon if eps is None else eps)), persistent=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the normed states, in the type of `x`."""
        return self.scale_(x.to(torch.float32, copy=True)).to(x.dtype)

    def scale_(self, states: Tensor) -> Tensor:
        """Norm float32 states in place; return them."""
        norm = torch.linalg.vector_norm(states, dim=-1, keepdim=True)
        scale = torch.addcmul(self.eps, norm, norm, value=1 / states.shape[-1]).rsqrt_()
        return states.mul_(scale).mul_(self.factor)


def can_fuse(network: Any) -> bool:
    """Return whether a network gains from replaced modules: one in bfloat16 on a CPU, with plain weights."""
    quantised = getattr(network.config, "_is_quantized", False)
    return bool(network.device.type == "cpu" and network.dtype == torch.bfloat16 and not quantised)


def fuse_modules(network: Any, blocks: nn.Module) -> Any:
    """Replace modules of `blocks`, a part of `network`, in place; return the network.

    A network that isn't in bfloat16 on a CPU is returned unchanged.
    """
    if not can_fuse(network):
        return network
    with torch.inference_mode(False), torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _replace(blocks, _norm_of)
        _replace(blocks, _packed)
        _replace(blocks, _gated)
        _replace(blocks, _rotary_attention)
    return network


def _replace(root: nn.Module, make: Callable[[Any], nn.Module | None]) -> None:
    for parent, name, module in list(_children(root)):
        replacement = make(module)
        if replacement is not None:
            # Replacing one module at a time frees its original: at most one weight is in memory twice.
            setattr(parent, name, replacement.eval())


def _children(root: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    for parent in root.modules():
        for name, module in parent.named_children():
            yield parent, name, module


def _packed(module: Any) -> nn.Module | None:
    # A subclass may do more, and hooks would be lost.
    if type(module) is not nn.Linear or module._forward_hooks or module._forward_pre_hooks:
        return None
    x = torch.randn(ROWS, module.in_features).to(module.weight.dtype)
    try:
        packed = PackedLinear(module)
        same = torch.equal(packed(x), module(x))
    except (AttributeError, RuntimeError):  # a torch without these operations, or without oneDNN
        return None
    return packed if same else None


def _gated(module: Any) -> nn.Module | None:
    parts = {"gate_proj", "up_proj", "down_proj", "act_fn"}
    if {name for name, _ in module.named_children()} != parts:
        return None
    linear = [getattr(module, name) for name in ("gate_proj", "up_proj", "down_proj")]
    if type(module.act_fn).__name__ not in ACTIVATIONS or {type(part) for part in linear} != {PackedLinear}:
        return None
    fused = FusedGatedMlp(module)
    x = torch.randn(ROWS, linear[0].weight_packed.shape[1]).bfloat16()
    try:
        error = _error(fused(x), module(x))
    except (AttributeError, RuntimeError):
        return None
    return fused if error <= MLP_TOLERANCE else None


def _norm_of(module: Any) -> nn.Module | None:
    if not type(module).__name__.endswith("RMSNorm") or [n for n, _ in module.named_parameters()] != [
        "weight"
    ]:
        return None
    if not (hasattr(module, "eps") or hasattr(module, "variance_epsilon")):
        return None
    # Compare in float32: in bfloat16, a large weight and Gemma's 1 + weight can be equal.
    exact = copy.deepcopy(module).float()
    x = torch.randn(ROWS, len(module.weight))
    try:
        expected = exact(x)
        errors = {offset: _error(FusedRmsNorm(module, offset)(x), expected) for offset in (0.0, 1.0)}
    except (AttributeError, RuntimeError):
        return None
    offset = min(errors, key=errors.__getitem__)
    return FusedRmsNorm(module, offset) if errors[offset] <= NORM_TOLERANCE else None


def _rotary_attention(module: Any) -> nn.Module | None:
    if type(getattr(module, "q_proj", None)) is not PackedLinear or not hasattr(module, "head_dim"):
        return None
    norms = [getattr(module, name) for name in NORMS if hasattr(module, name)]
    if any(type(norm) is not FusedRmsNorm or len(norm.factor) != module.head_dim for norm in norms):
        return None
    try:
        replacement, pairs, (ours, theirs) = fuse_rotary_attention(module, ROWS)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return None
    close = all(_error(a.float(), b.float()) <= ROTATION_TOLERANCE for a, b in pairs)
    return replacement if close and _error(ours, theirs) <= ATTENTION_TOLERANCE else None


def _error(result: Tensor, expected: Tensor) -> float:
    if result.dtype != expected.dtype or result.shape != expected.shape:
        return float("inf")
    return float((result.float() - expected.float()).norm() / expected.float().norm().clamp_min(1e-12))
