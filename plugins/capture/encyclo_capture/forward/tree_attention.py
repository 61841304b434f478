"""Attention over a token tree, as an attention function of transformers: each node attends to its ancestors.

The function is registered under the name `encyclo_tree`. Every model that uses transformers' attention interface can
then run on trees with its own weights, norms and position embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encyclo_capture.forward.token_tree import TokenTree

NAME = "encyclo_tree"
# Gathered keys (or queries) of one product, in numbers: bounds memory and keeps a product in the CPU's cache.
GATHERED_AT_ONCE = 2**22
# Nodes per run: few, since each node is compared with all nodes of its run; more than one, since each run gathers a
# path. Runs of pooled nodes span more nodes, since only some of the nodes are pooled.
SPAN = 16
POOLED_SPAN = 64
# Runs with paths of different lengths share a block while the padded product is at most this multiple of the unpadded
# one. Fewer blocks are better: a single block in the nodes' order needs no reordering.
WASTE = 2.0


@dataclass(frozen=True)
class Block:
    """Runs of neighbouring nodes, padded to one shape. A node attends only to its run and to the path to the run.

    queries:  int64 [runs, own], rows of the queries; a shorter run repeats its last query
    keys:     int64 [runs, length], nodes: the path to the run's first node, then the run
    distance: int64 [runs, own, length], number of tokens from a key to a query; -1 if the key isn't on its path
    """

    queries: Tensor
    keys: Tensor
    distance: Tensor
    masks: dict[tuple[int | None, int], Tensor] = field(default_factory=dict)

    def mask(self, window: int | None, group: int) -> Tensor:
        """Return the additive mask of 0 and -inf, float32 [runs, 1, own * group, length]."""
        if (window, group) not in self.masks:
            hidden = self.distance < 0
            if window is not None:
                hidden = hidden | (self.distance >= window)
            mask = torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, float("-inf"))
            self.masks[window, group] = mask.repeat_interleave(group, dim=1)[:, None]
        return self.masks[window, group]


@dataclass(frozen=True)
class Layout:
    """The querying nodes in blocks, and each query's row among the blocks' padded queries: int64 [queries].

    `rows` is None if the blocks hold the queries in order.
    """

    blocks: list[Block]
    rows: Tensor | None


@dataclass(frozen=True)
class AttentionSpec:
    """How a model's attention treats scores: scale, sliding window, soft cap."""

    scale: float
    window: int | None
    softcap: float | None


@dataclass
class TreeState:
    """State of the attention over a tree: the querying nodes, and all nodes' keys and values if only some query.

    If `stops` is set, the next attention stores its arguments here and raises KeysKnown.
    """

    layout: Layout
    stops: bool = False
    keys_values: tuple[Tensor, Tensor] | None = None
    queries: Tensor | None = None
    spec: AttentionSpec | None = None


class AttentionState(Protocol):
    """What another kind of attention over one sequence of tokens needs, in place of a tree's state."""

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, spec: AttentionSpec) -> Tensor:
        """Attend: queries [n, heads, d], keys and values [n, key heads, d] -> [n, heads, d]."""


class KeysKnown(Exception):
    """Raised by attention if its state stops, once keys and values are known."""


_state: ContextVar[TreeState | AttentionState] = ContextVar("encyclo_tree_state")


def current_state() -> TreeState | AttentionState | None:
    """Return the current state of the tree attention; None outside `attending_to`."""
    return _state.get(None)


def lay_out(tree: TokenTree, device: str, asking: NDArray[np.int64] | None = None) -> Layout:
    """Cut the nodes into runs; group the runs, sorted by the length of their paths, into blocks.

    `asking` holds the querying nodes in rising order (default: all nodes). Queries come in this order.
    """
    nodes, span = (np.arange(len(tree)), SPAN) if asking is None else (asking, POOLED_SPAN)
    runs, first, own = np.unique(nodes // span, return_index=True, return_counts=True)
    above = tree.depth[runs * span]
    order = np.argsort(above, kind="stable")
    blocks, rows, done = [], np.empty(len(nodes), np.int64), 0
    for start, end in _cuts(above[order] + span):
        # Sorted, so that a single block is in the nodes' order and needs no reordering.
        members = np.sort(order[start:end])
        query_rows = first[members, None] + np.minimum(np.arange(own[members].max()), own[members, None] - 1)
        seen = _seen(tree, nodes[query_rows], runs[members] * span, above[members], span)
        queries, keys, distance = (torch.from_numpy(array).to(device) for array in (query_rows, *seen))
        blocks.append(Block(queries, keys, distance))
        # If a run repeats its last query, the last of the equal rows counts.
        rows[query_rows] = done + np.arange(query_rows.size).reshape(query_rows.shape)
        done += query_rows.size
    in_order = done == len(nodes) and bool((rows == np.arange(done)).all())
    return Layout(blocks, None if in_order else torch.from_numpy(rows).to(device))


def _cuts(lengths: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of groups of runs, sorted by length, that can be padded to one length within WASTE."""
    start = total = 0
    for place, length in enumerate(lengths.tolist()):
        if total and length * (place + 1 - start) > WASTE * (total + length):
            yield start, place
            start, total = place, 0
        total += length
    yield start, len(lengths)


def _seen(
    tree: TokenTree, asking: NDArray[np.int64], starts: NDArray[np.int64], above: NDArray[np.int64], span: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return keys and distances of a `Block`, whose runs have `span` nodes from `starts` and `above` nodes before."""
    owner = np.repeat(np.arange(len(tree.fresh)), tree.fresh)
    places = np.arange(above.max())
    own = starts[:, None] + np.arange(span)
    keys = np.concatenate([tree.paths[owner[starts], : len(places)], np.minimum(own, len(tree) - 1)], axis=1)
    exists = np.concatenate([places < above[:, None], own < len(tree)], axis=1)
    depth = tree.depth[keys][:, None]
    on_path = tree.paths[owner[asking][:, :, None], depth] == keys[:, None]
    distance = tree.depth[asking][:, :, None] - depth
    return keys, np.where(on_path & exists[:, None] & (distance >= 0), distance, -1)


@contextmanager
def attending_to(network: Any, state: TreeState | AttentionState) -> Iterator[None]:
    """Make the network's attention use `state` in the block."""
    previous = network.config._attn_implementation
    token = _state.set(state)
    network.config._attn_implementation_internal = NAME
    try:
        yield
    finally:
        network.config._attn_implementation_internal = previous
        _state.reset(token)


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

    Computes the sums of eager attention, with scores and softmax in float32; `sliding_window` counts the node itself.
    """
    state = _state.get()
    queries, keys, values = (states[0].transpose(0, 1).contiguous() for states in (query, key, value))
    spec = AttentionSpec(query.shape[-1] ** -0.5 if scaling is None else scaling, sliding_window, softcap)
    return attend(state, queries, keys, values, spec)[None], None


def attend(
    state: TreeState | AttentionState, queries: Tensor, keys: Tensor, values: Tensor, spec: AttentionSpec
) -> Tensor:
    """Attend: queries [n, heads, d], keys and values [nodes, key heads, d] -> [n, heads, d].

    Raises KeysKnown if the state stops.
    """
    if not isinstance(state, TreeState):
        return state.attend(queries, keys, values, spec)
    if state.stops:
        state.keys_values, state.queries, state.spec = (keys, values), queries, spec
        raise KeysKnown
    if state.keys_values is not None:
        keys, values = state.keys_values
    dtype = values.dtype
    if queries.device.type == "cpu":
        # oneDNN would compile a bfloat16 product for each of the many shapes, and float32 rounds less.
        queries, keys, values = queries.float(), keys.float(), values.float()
    heads, size = queries.shape[1:]
    parts = []
    for block in state.layout.blocks:
        window = spec.window
        if window is not None and block.keys.shape[1] <= window:
            window = None  # hides nothing
        mask = block.mask(window, heads // keys.shape[1])
        runs, own = block.queries.shape
        step = max(1, GATHERED_AT_ONCE // (max(own * heads, block.keys.shape[1] * keys.shape[1]) * size))
        for start in range(0, runs, step):
            part = slice(start, start + step)
            parts.append(
                _attend(queries, keys, values, block.queries[part], block.keys[part], mask[part], spec)
            )
    attended = torch.cat(parts) if len(parts) > 1 else parts[0]
    return (attended if state.layout.rows is None else attended.index_select(0, state.layout.rows)).to(dtype)


def _attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    asking: Tensor,
    asked: Tensor,
    mask: Tensor,
    spec: AttentionSpec,
) -> Tensor:
    """Attend from the queries `asking` [runs, own] to `asked` [runs, length]: [runs * own, heads, d]."""
    (runs, own), length = asking.shape, asked.shape[1]
    heads, key_heads, size = queries.shape[1], keys.shape[1], queries.shape[2]
    group = heads // key_heads
    # Heads that share a key head become further queries of the run.
    in_order = len(queries) == asking.numel()  # no query is left out or repeated
    q = queries if in_order else queries.index_select(0, asking.reshape(-1))
    q = q.view(runs, own, key_heads, group, size).transpose(1, 2).reshape(runs, key_heads, own * group, size)
    k = keys.index_select(0, asked.reshape(-1)).view(runs, length, key_heads, size).permute(0, 2, 3, 1)
    v = values.index_select(0, asked.reshape(-1)).view(runs, length, key_heads, size).transpose(1, 2)
    # In float32: bfloat16 would change a score of 100 by up to 0.25.
    scores = torch.matmul(q.float(), k.float()).mul_(spec.scale)
    if spec.softcap is not None:
        scores = torch.tanh(scores / spec.softcap) * spec.softcap
    weights = torch.softmax(scores.add_(mask), dim=-1).to(values.dtype)
    result = torch.matmul(weights, v).view(runs, key_heads, own, group, size)
    return result.transpose(1, 2).reshape(runs * own, heads, size)


def register() -> None:
    """Register `encyclo_tree` with transformers; safe to call again."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, tree_attention)
