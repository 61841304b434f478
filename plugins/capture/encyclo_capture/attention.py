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
    """Branches of similar shape, padded to the longest: some of their nodes ask, the paths to these answer.

    queries: int64 [branches, own], rows of the queries; a branch with fewer repeats its last
    keys:    int64 [branches, length], nodes; a shorter path goes on with nodes that its queries don't see
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
    """Which nodes ask, in blocks, and each one's row among the blocks' padded queries: int64 [queries]."""

    blocks: list[Block]
    rows: Tensor


@dataclass(frozen=True)
class Manner:
    """What a model's attention does with its scores: the factor, the sliding window, the bend."""

    scale: float
    window: int | None
    softcap: float | None


@dataclass
class Walk:
    """How far a network has come along a tree: who asks, and the keys and values of all nodes where only some ask.

    Where `stops` is set, the next attention keeps what it was given and ends there.
    """

    layout: Layout
    stops: bool = False
    known: tuple[Tensor, Tensor] | None = None
    asked: Tensor | None = None
    manner: Manner | None = None


class KeysKnown(Exception):
    """Raised by the attention of a walk that stops: its keys and values are known."""


_walk: ContextVar[Walk] = ContextVar("encyclo_tree_walk")


def current_walk() -> Walk | None:
    """Return the walk that attention follows here; None outside `attending_to`."""
    return _walk.get(None)


def lay_out(
    tree: TokenTree, device: str, asking: NDArray[np.int64] | None = None, size: int | None = None
) -> Layout:
    """Cut the branches, sorted by shape, into blocks of similar shape.

    `asking` are the nodes that ask, in rising order: all of them by default. Queries come in this order; of
    `size` queries the rest is filling, whose answers are of no account.
    """
    nodes = np.arange(len(tree)) if asking is None else asking
    owner = np.repeat(np.arange(len(tree.fresh)), tree.fresh)[nodes]
    branches, first, own = np.unique(owner, return_index=True, return_counts=True)
    lengths = tree.depth[nodes[first + own - 1]] + 1
    order = np.lexsort((own, lengths))
    blocks, rows, above = [], np.zeros(size or len(nodes), np.int64), 0
    for start, end in _cuts(lengths[order], own[order]):
        some = order[start:end]
        widest = int(own[some].max())
        asks = first[some, None] + np.minimum(np.arange(widest), own[some, None] - 1)
        queries, keys, depth = (
            torch.from_numpy(np.ascontiguousarray(array)).to(device)
            for array in (asks, tree.paths[branches[some], : lengths[some].max()], tree.depth[nodes[asks]])
        )
        blocks.append(Block(queries, keys, depth))
        # Where a branch repeats its last query, the last of the equal rows is taken.
        rows[asks] = above + np.arange(asks.size).reshape(asks.shape)
        above += asks.size
    return Layout(blocks, torch.from_numpy(rows).to(device))


def _cuts(lengths: NDArray[np.int64], own: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of runs of branches, sorted by shape, that are padded to one shape with little waste."""
    start = widest = total = nodes = 0
    for place, (length, asks) in enumerate(zip(lengths.tolist(), own.tolist(), strict=True)):
        padded = (place + 1 - start) * max(widest, asks) * length
        if nodes >= FEW_NODES and padded > WASTE * (total + asks * length):
            yield start, place
            start, widest, total, nodes = place, 0, 0, 0
        widest, total, nodes = max(widest, asks), total + asks * length, nodes + asks
    yield start, len(lengths)


@contextmanager
def attending_to(network: Any, walk: Walk) -> Iterator[None]:
    """Let the network's attention follow `walk` in the block."""
    before = network.config._attn_implementation
    token = _walk.set(walk)
    network.config._attn_implementation_internal = NAME
    try:
        yield
    finally:
        network.config._attn_implementation_internal = before
        _walk.reset(token)


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
    """Attend: query [1, heads, n, d], key and value [1, key heads, nodes, d] -> [1, n, heads, d].

    The same sums as eager attention, scores and softmax in float32; `sliding_window` counts tokens, the node included.
    """
    walk = _walk.get()
    queries, keys, values = (states[0].transpose(0, 1).contiguous() for states in (query, key, value))
    manner = Manner(query.shape[-1] ** -0.5 if scaling is None else scaling, sliding_window, softcap)
    return attend(walk, queries, keys, values, manner)[None], None


def attend(walk: Walk, queries: Tensor, keys: Tensor, values: Tensor, manner: Manner) -> Tensor:
    """Attend: queries [n, heads, d], keys and values [nodes, key heads, d] -> [n, heads, d].

    Raises KeysKnown where the walk stops.
    """
    if walk.stops:
        walk.known, walk.asked, walk.manner = (keys, values), queries, manner
        raise KeysKnown
    if walk.known is not None:
        keys, values = walk.known
    heads, size = queries.shape[1:]
    found = []
    for block in walk.layout.blocks:
        window = manner.window
        if window is not None and block.keys.shape[1] <= window:
            window = None  # hides nothing
        mask = block.mask(window, heads // keys.shape[1])
        branches, own = block.queries.shape
        step = max(1, GATHERED_AT_ONCE // (max(own * heads, block.keys.shape[1] * keys.shape[1]) * size))
        for start in range(0, branches, step):
            part = slice(start, start + step)
            asking, asked = block.queries[part], block.keys[part]
            found.append(
                _attend(queries, keys, values, asking, asked, None if mask is None else mask[part], manner)
            )
    return torch.cat(found).index_select(0, walk.layout.rows)


def _attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    asking: Tensor,
    asked: Tensor,
    mask: Tensor | None,
    manner: Manner,
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
    scores = torch.matmul(q.float(), k.float()).mul_(manner.scale)
    if manner.softcap is not None:
        scores = torch.tanh(scores / manner.softcap) * manner.softcap
    if mask is not None:
        scores = scores + mask
    weights = torch.softmax(scores, dim=-1).to(values.dtype)
    result = torch.matmul(weights, v).view(branches, key_heads, own, group, size)
    return result.transpose(1, 2).reshape(branches * own, heads, size)


def register() -> None:
    """Make `encyclo_tree` known to transformers; safe to call again."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, tree_attention)
