"""The deepest block asked for, computed for the pooled nodes alone.

Nothing goes on from there: the other nodes of a tree are wanted for their keys and values only. The block is gone
through twice: with every node, as far as its attention's keys and values, and with the pooled nodes to its end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from encyclo_capture.batch_sizes import even_size
from encyclo_capture.forward.token_tree import TokenTree
from encyclo_capture.forward.tree_attention import KeysKnown, TreeState, lay_out

MAX_SHARE = 0.75
"""Pruning pays up to this share of pooled nodes: going through a block twice costs about a fifth of it."""
# What a block is given a token each: [1, nodes, ...].
PER_TOKEN = {"hidden_states", "position_ids", "position_embeddings"}


class LastBlockPruning:
    """Two hooks on a block: only the pooled nodes go in, and their states come out in their old places."""

    def __init__(self, state: TreeState, tree: TokenTree, network: Any, device: str) -> None:
        chosen = np.unique(tree.pooled)
        chosen = np.pad(chosen, (0, even_size(network, len(chosen)) - len(chosen)), mode="edge")
        self._size = len(tree)
        self.pays = len(chosen) <= MAX_SHARE * self._size
        self._state, self._happened = state, False
        if self.pays:
            self._chosen = torch.from_numpy(chosen).to(device)
            self._layout = lay_out(tree, device, chosen)

    def hook(self, block: nn.Module) -> list[RemovableHandle]:
        """Prune `block` in the passes to come; return the handles that end it."""
        return [
            block.register_forward_pre_hook(self._before, with_kwargs=True),
            block.register_forward_hook(self._after),
        ]

    def _before(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the arguments to go on with; None, which leaves them, for a block that this doesn't fit."""
        named = {"hidden_states": args[0], **kwargs} if args else kwargs
        others = [*args[1:], *(value for name, value in kwargs.items() if name not in PER_TOKEN)]
        if any(_tensors(other) for other in others):
            return None  # a mask, or whatever else may hold something a token
        if any(tensor.shape[:2] != (1, self._size) for n in PER_TOKEN for tensor in _tensors(named.get(n))):
            return None
        self._state.stops = True
        try:
            block.forward(*args, **kwargs)
            return None
        except KeysKnown:
            self._state.layout, self._happened = self._layout, True
        finally:
            self._state.stops = False
        kept = {name: self._keep(value) if name in PER_TOKEN else value for name, value in kwargs.items()}
        return tuple(self._keep(value) if not place else value for place, value in enumerate(args)), kept

    def _after(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        if not self._happened:
            return None
        states = output if isinstance(output, Tensor) else output[0]
        whole = states.new_zeros(1, self._size, states.shape[-1]).index_copy_(1, self._chosen, states)
        return whole if isinstance(output, Tensor) else (whole, *output[1:])

    def _keep(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.index_select(1, self._chosen)
        return tuple(self._keep(part) for part in value) if isinstance(value, tuple) else value


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return [tensor for part in parts for tensor in _tensors(part)]
