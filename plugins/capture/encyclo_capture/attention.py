"""Attention over a token tree, as an attention function of transformers: each node sees its ancestors.

Registered under the name `encyclo_tree`, so that every model that calls attention through transformers'
interface runs on trees with its own weights, norms and position embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from encyclo_capture.tree import TokenTree

NAME = "encyclo_tree"
# Gathered keys (and values) of one slice, in numbers: bounds memory, and keeps a slice in the cache.
GATHERED_AT_ONCE = 2**22
# Slices join levels of a tree until they have so many nodes; beyond that only where hardly any key is wasted.
FEW_NODES = 64
WASTE = 1.15


@dataclass(frozen=True)
class Slice:
    """Nodes start to end; the keys that each sees: int64 [nodes, keys], bool [nodes, 1, 1, keys] or None."""

    start: int
    end: int
    ancestors: Tensor
    depth: Tensor
    seen: Tensor | None


_slices: ContextVar[list[Slice]] = ContextVar("encyclo_tree_slices")


def cut_into_slices(tree: TokenTree, device: str) -> list[Slice]:
    """Cut the nodes, ordered by depth, into slices of similar depth."""
    ancestors = torch.from_numpy(tree.ancestors).to(device)
    depth = torch.from_numpy(tree.depth).to(device)
    keys = tree.depth + 1
    slices, start = [], 0
    while start < len(tree):
        end, total = start + 1, int(keys[start])
        while end < len(tree):
            wasteful = keys[end] * (end + 1 - start) > WASTE * (total + keys[end])
            if wasteful and end - start >= FEW_NODES:
                break
            total += int(keys[end])
            end += 1
        most = int(keys[end - 1])
        own = ancestors[start:end, :most]
        seen = None
        if keys[start] < most:
            seen = (torch.arange(most, device=device) <= depth[start:end, None])[:, None, None, :]
        slices.append(Slice(start, end, own, depth[start:end], seen))
        start = end
    return slices


@contextmanager
def attending_to(network: Any, tree: TokenTree, device: str) -> Iterator[None]:
    """Let the network's attention follow `tree` in the block."""
    before = network.config._attn_implementation
    token = _slices.set(cut_into_slices(tree, device))
    network.config._attn_implementation_internal = NAME
    try:
        yield
    finally:
        network.config._attn_implementation_internal = before
        _slices.reset(token)


def tree_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend: query [1, heads, nodes, d], key and value [1, key heads, nodes, d] -> [1, nodes, heads, d].

    The same sums as eager attention, softmax in float32; `sliding_window` counts tokens, the node included.
    """
    heads, nodes, size = query.shape[1:]
    key_heads = key.shape[1]
    scale = size**-0.5 if scaling is None else scaling
    queries = query[0].transpose(0, 1).reshape(nodes, key_heads, heads // key_heads, size)
    keys, values = key[0].transpose(0, 1).contiguous(), value[0].transpose(0, 1).contiguous()
    result = torch.empty_like(queries)
    for part in _slices.get():
        most = part.ancestors.shape[1]
        step = max(1, GATHERED_AT_ONCE // (most * key_heads * size))
        for start in range(part.start, part.end, step):
            end = min(start + step, part.end)
            inside = slice(start - part.start, end - part.start)
            rows = part.ancestors[inside].reshape(-1)
            shape = (end - start, most, key_heads, size)
            own_keys = keys.index_select(0, rows).view(shape).permute(0, 2, 3, 1)
            own_values = values.index_select(0, rows).view(shape).transpose(1, 2)
            scores = (torch.matmul(queries[start:end], own_keys) * scale).float()
            if softcap is not None:
                scores = torch.tanh(scores / softcap) * softcap
            seen = part.seen[inside] if part.seen is not None else None
            if sliding_window is not None and most > sliding_window:
                near = _near(part.depth[inside], most, sliding_window)
                seen = near if seen is None else seen & near
            if seen is not None:
                scores = scores.masked_fill(~seen, float("-inf"))
            weights = torch.softmax(scores, dim=-1).to(values.dtype)
            result[start:end] = torch.matmul(weights, own_values)
    return result.reshape(1, nodes, heads, size), None


def _near(depth: Tensor, most: int, window: int) -> Tensor:
    distance = depth[:, None] - torch.arange(most, device=depth.device)
    return (distance < window)[:, None, None, :]


def register() -> None:
    """Make `encyclo_tree` known to transformers; safe to call again."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, tree_attention)
