"""Attention over a token tree, as an attention function of transformers: each node sees its ancestors.

Registered under the name `encyclo_tree`, so that every model that calls attention through transformers'
interface runs on trees with its own weights, norms and position embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encyclo_capture.tree import TokenTree

NAME = "encyclo_tree"
# Gathered keys (or queries) of one product, in numbers: bounds memory, and keeps a product in the cache.
GATHERED_AT_ONCE = 2**22
# Branches of different shapes join one block until they have so many nodes; beyond that only where little of
# the product is padding.
FEW_NODES = 128
WASTE = 1.5


@dataclass(frozen=True)
class Block:
    """Branches of similar shape, padded to the longest: queries at their own nodes, keys along their paths.

    queries: int64 [branches, own]; a shorter branch repeats its last node
    keys:    int64 [branches, length]; a shorter path goes on with node 0, which no query sees
    depth:   int64 [branches, own], the queries' depths
    """

    queries: Tensor
    keys: Tensor
    depth: Tensor
    masks: dict[int | None, Tensor | None] = field(default_factory=dict)

    def mask(self, window: int | None, group: int) -> Tensor | None:
        """Return what is added to scores: 0 or -inf, float32 [branches, 1, own * group, length]; None for 0."""
        if window not in self.masks:
            places = torch.arange(self.keys.shape[1], device=self.keys.device)
            distance = self.depth[:, :, None] - places
            hidden = distance < 0
            if window is not None:
                hidden |= distance >= window
            mask = torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, float("-inf"))
            whole = mask.repeat_interleave(group, dim=1)[:, None] if hidden.any() else None
            self.masks[window] = whole
        return self.masks[window]


@dataclass(frozen=True)
class Layout:
    """A tree's blocks, and each node's row among the blocks' padded queries: int64 [nodes]."""

    blocks: list[Block]
    rows: Tensor


_layout: ContextVar[Layout] = ContextVar("encyclo_tree_layout")


def lay_out(tree: TokenTree, device: str) -> Layout:
    """Cut the branches, sorted by shape, into blocks of similar shape."""
    order = np.lexsort((tree.fresh, tree.lengths))
    blocks, rows, start, above = [], np.empty(len(tree), np.int64), 0, 0
    while start < len(order):
        end, own, total, nodes = start, 0, 0, 0
        while end < len(order):
            length, fresh = int(tree.lengths[order[end]]), int(tree.fresh[order[end]])
            widest = max(own, fresh)
            padded = (end + 1 - start) * widest * length
            if nodes >= FEW_NODES and padded > WASTE * (total + fresh * length):
                break
            end, own, total, nodes = end + 1, widest, total + fresh * length, nodes + fresh
        branches = order[start:end]
        blocks.append(_block(tree, branches, own, device))
        for place, branch in enumerate(branches):
            first = tree.paths[branch, tree.lengths[branch] - tree.fresh[branch]]
            rows[first : first + tree.fresh[branch]] = above + place * own + np.arange(tree.fresh[branch])
        above += len(branches) * own
        start = end
    return Layout(blocks, torch.from_numpy(rows).to(device))


def _block(tree: TokenTree, branches: NDArray[np.int64], own: int, device: str) -> Block:
    lengths, fresh = tree.lengths[branches, None], tree.fresh[branches, None]
    depth = np.minimum(lengths - fresh + np.arange(own), lengths - 1)
    queries = np.take_along_axis(tree.paths[branches], depth, axis=1)
    keys = np.ascontiguousarray(tree.paths[branches, : lengths.max()])
    on_device = [torch.from_numpy(array).to(device) for array in (queries, keys, depth)]
    return Block(on_device[0], on_device[1], on_device[2])


@contextmanager
def attending_to(network: Any, tree: TokenTree, device: str) -> Iterator[None]:
    """Let the network's attention follow `tree` in the block."""
    before = network.config._attn_implementation
    token = _layout.set(lay_out(tree, device))
    network.config._attn_implementation_internal = NAME
    try:
        yield
    finally:
        network.config._attn_implementation_internal = before
        _layout.reset(token)


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

    The same sums as eager attention, scores and softmax in float32; `sliding_window` counts tokens, the node included.
    """
    heads, _nodes, size = query.shape[1:]
    scale = size**-0.5 if scaling is None else scaling
    queries, keys, values = (states[0].transpose(0, 1).contiguous() for states in (query, key, value))
    layout = _layout.get()
    found = []
    for block in layout.blocks:
        window = sliding_window
        if window is not None and block.keys.shape[1] <= window:
            window = None  # hides nothing
        mask = block.mask(window, heads // key.shape[1])
        branches, own = block.queries.shape
        step = max(1, GATHERED_AT_ONCE // (max(own * heads, block.keys.shape[1] * key.shape[1]) * size))
        for start in range(0, branches, step):
            part = slice(start, start + step)
            found.append(
                _attend(
                    queries,
                    keys,
                    values,
                    block.queries[part],
                    block.keys[part],
                    mask if mask is None else mask[part],
                    scale,
                    softcap,
                )
            )
    return torch.cat(found).index_select(0, layout.rows)[None], None


def _attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    asking: Tensor,
    asked: Tensor,
    mask: Tensor | None,
    scale: float,
    softcap: float | None,
) -> Tensor:
    """Attend from the nodes `asking` [b, own] to `asked` [b, length]: [b * own, heads, d]."""
    (branches, own), length = asking.shape, asked.shape[1]
    heads, key_heads, size = queries.shape[1], keys.shape[1], queries.shape[2]
    group = heads // key_heads
    # Heads that share a key head stand side by side as further queries.
    q = queries.index_select(0, asking.reshape(-1)).view(branches, own, key_heads, group, size)
    q = q.transpose(1, 2).reshape(branches, key_heads, own * group, size)
    k = keys.index_select(0, asked.reshape(-1)).view(branches, length, key_heads, size).permute(0, 2, 3, 1)
    v = values.index_select(0, asked.reshape(-1)).view(branches, length, key_heads, size).transpose(1, 2)
    # In float32 before the product is rounded: bfloat16 would move a score of 100 by up to 0.25.
    scores = torch.matmul(q.float(), k.float()).mul_(scale)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores + mask
    weights = torch.softmax(scores, dim=-1).to(values.dtype)
    result = torch.matmul(weights, v).view(branches, key_heads, own, group, size)
    return result.transpose(1, 2).reshape(branches * own, heads, size)


def register() -> None:
    """Make `encyclo_tree` known to transformers; safe to call again."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, tree_attention)
