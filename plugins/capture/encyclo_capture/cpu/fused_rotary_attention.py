"""Rotary attention on token trees with fewer passes over memory.

After the projections, queries and keys stay in float32: they are normed, rotated and multiplied without rounding in
between. Outside a tree the original module computes.
"""

from __future__ import annotations

from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from encyclo_capture.forward.token_tree import build_tree
from encyclo_capture.forward.tree_attention import (
    AttentionSpec,
    KeysKnown,
    TreeState,
    attend,
    attending_to,
    current_state,
    lay_out,
    register,
)
from encyclo_capture.tokenization import TokenisedPrompt

PARTS = {"q_proj", "k_proj", "v_proj", "o_proj"}
NORMS = {"q_norm", "k_norm"}


class FusedRotaryAttention(nn.Module):
    """Attention with rotary positions that uses the projections and norms of `original`."""

    def __init__(self, original: Any, spec: AttentionSpec) -> None:
        super().__init__()
        self.original, self.spec = original, spec
        self.size = int(original.head_dim)

    def forward(
        self, hidden_states: Tensor, position_embeddings: Any = None, *more: Any, **kwargs: Any
    ) -> tuple[Tensor, Any]:
        """Return the attention's output [1, n, hidden], and None for its weights."""
        state = current_state()
        if state is None:
            result: tuple[Tensor, Any] = self.original(hidden_states, position_embeddings, *more, **kwargs)
            return result
        keys = self.rotated("k", hidden_states, position_embeddings)
        values = self.original.v_proj(hidden_states)[0].unflatten(-1, (-1, self.size))
        if isinstance(state, TreeState) and state.stops:
            state.keys_values = keys, values
            raise KeysKnown
        queries = self.rotated("q", hidden_states, position_embeddings)
        attended = attend(state, queries, keys, values, self.spec)
        return self.original.o_proj(attended.flatten(1)[None]), None

    def rotated(self, which: str, hidden_states: Tensor, position_embeddings: Any) -> Tensor:
        """Return queries (`which` q) or keys (k), normed and rotated: float32 [n, heads, d]."""
        cosine, sine = (table[0].float()[:, None] for table in position_embeddings)
        states = (
            getattr(self.original, f"{which}_proj")(hidden_states)[0].unflatten(-1, (-1, self.size)).float()
        )
        norm = getattr(self.original, f"{which}_norm", None)
        states = states if norm is None else norm.scale_(states)
        half = self.size // 2
        rotated = states * cosine
        rotated[..., :half].addcmul_(states[..., half:], sine[..., :half], value=-1)
        rotated[..., half:].addcmul_(states[..., :half], sine[..., half:])
        return rotated


def fuse_rotary_attention(
    module: Any, rows: int
) -> tuple[FusedRotaryAttention, list[tuple[Tensor, Tensor]], tuple[Tensor, Tensor]]:
    """Return a replacement for an attention module, and the results of both on `rows` random rows.

    The module's linear layers and norms are already replaced. The results are pairs (replacement's, module's): first
    the pairs of queries, keys and values, then the pair of outputs. Raises TypeError for a module of another
    structure, and any error of the module.
    """
    if {name for name, _ in module.named_children()} not in (PARTS, PARTS | NORMS):
        raise TypeError(
            f"{type(module).__name__} can't be fused: its parts are not those of rotary attention."
        )
    register()
    layout = lay_out(build_tree([TokenisedPrompt(0, tuple(range(rows)), (rows - 1,))]), "cpu")
    x = torch.randn(1, rows, module.q_proj.weight_packed.shape[1]).bfloat16()
    positions = torch.randn(2, 1, rows, module.head_dim).bfloat16().unbind()

    def output_of(attention: nn.Module, state: TreeState) -> Tensor:
        with attending_to(SimpleNamespace(config=module.config), state):
            output: Tensor = attention(x, position_embeddings=positions, attention_mask=None)[0]
        return output

    state = TreeState(layout, stops=True)
    with suppress(KeysKnown):
        output_of(module, state)
    if state.spec is None or state.queries is None or state.keys_values is None:
        raise TypeError(f"{type(module).__name__} doesn't call transformers' attention interface.")
    fused = FusedRotaryAttention(module, state.spec)
    values = module.v_proj(x)[0].unflatten(-1, (-1, fused.size))
    ours = (fused.rotated("q", x, positions), fused.rotated("k", x, positions), values)
    pairs = list(zip(ours, (state.queries, *state.keys_values), strict=True))
    return fused, pairs, (output_of(fused, TreeState(layout)), output_of(module, TreeState(layout)))
