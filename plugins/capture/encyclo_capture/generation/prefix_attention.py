"""Attention of rows that share a prefix: one token a row and step, as an attention function of transformers.

Registered under the name `encyclo_rows`, so that every model that calls attention through transformers'
interface goes on from a shared prefix with its own weights, norms and position embeddings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

NAME = "encyclo_rows"


@dataclass
class Rows:
    """Keys and values that the attention of one network sees: the prefix's, and each row's own.

    own_keys, own_values: a list over layers of [rows, key heads, room, d]; prefix_keys, prefix_values: a list
    over layers of [key heads, prefix tokens, d], None while the prefix itself goes through the network.
    place: int64 [rows], the room that each row's newest token takes.
    """

    place: Tensor
    room: int
    prefix_keys: dict[int, Tensor] = field(default_factory=dict)
    prefix_values: dict[int, Tensor] = field(default_factory=dict)
    own_keys: dict[int, Tensor] = field(default_factory=dict)
    own_values: dict[int, Tensor] = field(default_factory=dict)
    reading_prefix: bool = True


_rows: ContextVar[Rows] = ContextVar("encyclo_rows")


def rows_attention(
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
    """Attend as eager attention does: query [n, heads, t, d] -> [n, t, heads, d], softmax in float32.

    While the prefix is read, n is 1 and its keys and values are kept; afterwards t is 1, each row sees the
    prefix and what it has put into its own room.
    """
    rows, layer = _rows.get(), module.layer_idx
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if rows.reading_prefix:
        rows.prefix_keys[layer], rows.prefix_values[layer] = key[0].clone(), value[0].clone()
        return _read_prefix(query[0], key[0], value[0], scale, sliding_window, softcap), None
    count, heads, _one, size = query.shape
    key_heads = key.shape[1]
    if layer not in rows.own_keys:
        shape = (count, key_heads, rows.room, size)
        rows.own_keys[layer], rows.own_values[layer] = key.new_zeros(shape), value.new_zeros(shape)
    own_keys, own_values = rows.own_keys[layer], rows.own_values[layer]
    everyone = torch.arange(count, device=key.device)
    own_keys[everyone, :, rows.place] = key[:, :, 0]
    own_values[everyone, :, rows.place] = value[:, :, 0]
    before_keys, before_values = rows.prefix_keys[layer], rows.prefix_values[layer]
    queries = query[:, :, 0].reshape(count, key_heads, heads // key_heads, size)
    # One matrix product a key head for all rows: [key heads, rows * group, prefix].
    grouped = queries.transpose(0, 1).reshape(key_heads, -1, size)
    shared = torch.matmul(grouped, before_keys.transpose(1, 2))
    prefix = before_keys.shape[1]
    shared = shared.view(key_heads, count, -1, prefix).transpose(0, 1)
    own = torch.matmul(queries, own_keys.transpose(2, 3))
    scores = (torch.cat([shared, own], dim=-1) * scale).float()
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    positions = torch.arange(prefix + rows.room, device=key.device)
    newest = (prefix + rows.place)[:, None]
    seen = positions <= newest
    if sliding_window is not None and prefix + rows.room > sliding_window:
        seen = seen & (newest - positions < sliding_window)
    scores = scores.masked_fill(~seen[:, None, None, :], float("-inf"))
    weights = torch.softmax(scores, dim=-1).to(value.dtype)
    from_prefix = weights[..., :prefix].transpose(0, 1).reshape(key_heads, -1, prefix)
    result = torch.matmul(from_prefix, before_values).view(key_heads, count, -1, size).transpose(0, 1)
    result = result + torch.matmul(weights[..., prefix:], own_values)
    return result.reshape(count, 1, heads, size), None


def _read_prefix(
    query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None, softcap: float | None
) -> Tensor:
    heads, tokens, _ = query.shape
    key, value = (x.repeat_interleave(heads // x.shape[0], dim=0) for x in (key, value))
    scores = (torch.matmul(query, key.transpose(1, 2)) * scale).float()
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    distance = torch.arange(tokens, device=key.device)[:, None] - torch.arange(tokens, device=key.device)
    seen = distance >= 0
    if window is not None:
        seen = seen & (distance < window)
    weights = torch.softmax(scores.masked_fill(~seen, float("-inf")), dim=-1).to(value.dtype)
    return torch.matmul(weights, value).transpose(0, 1)[None]


@contextmanager
def attending(network: Any, rows: Rows) -> Iterator[None]:
    """Let the network's attention go on from `rows` in the block."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, rows_attention)
    before = network.config._attn_implementation
    token = _rows.set(rows)
    network.config._attn_implementation_internal = NAME
    try:
        yield
    finally:
        network.config._attn_implementation_internal = before
        _rows.reset(token)


@contextmanager
def even_threads() -> Iterator[None]:
    """Use a power of two of threads: equal shares of a batch, none with a remainder that is computed apart."""
    before = torch.get_num_threads()
    torch.set_num_threads(2 ** int(math.log2(before)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
