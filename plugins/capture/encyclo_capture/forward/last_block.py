"""Computes the deepest requested block for the pooled nodes only.

No later block follows, so the other nodes of a tree contribute only their keys and values. The block runs twice: with
all nodes until its attention has the keys and values, then with the pooled nodes to its end.
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
"""Pruning pays up to this share of pooled nodes: the second run costs about a fifth of the block."""
# A block's arguments with an entry per token: [1, nodes, ...].
PER_TOKEN = {"hidden_states", "position_ids", "position_embeddings"}


class LastBlockPruning:
    """Two hooks on a block: it receives only the pooled nodes, and its output has them in their original rows."""

    def __init__(self, state: TreeState, tree: TokenTree, network: Any, device: str) -> None:
        pooled = np.unique(tree.pooled)
        pooled = np.pad(pooled, (0, even_size(network, len(pooled)) - len(pooled)), mode="edge")
        self._size = len(tree)
        self.pays = len(pooled) <= MAX_SHARE * self._size
        self._state, self._happened = state, False
        if self.pays:
            self._chosen = torch.from_numpy(pooled).to(device)
            self._layout = lay_out(tree, device, pooled)

    def hook(self, block: nn.Module) -> list[RemovableHandle]:
        """Prune `block` in later passes; return the handles that remove the hooks."""
        return [
            block.register_forward_pre_hook(self._before, with_kwargs=True),
            block.register_forward_hook(self._after),
        ]

    def _before(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the pruned arguments; None leaves the arguments of a block that can't be pruned."""
        named = {"hidden_states": args[0], **kwargs} if args else kwargs
        others = [*args[1:], *(value for name, value in kwargs.items() if name not in PER_TOKEN)]
        if any(_tensors(other) for other in others):
            return None  # a mask, or another argument that may have an entry per token
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
        pruned = {name: self._keep(value) if name in PER_TOKEN else value for name, value in kwargs.items()}
        return tuple(self._keep(value) if not place else value for place, value in enumerate(args)), pruned

    def _after(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        if not self._happened:
            return None
        all_states = self.restored(output if isinstance(output, Tensor) else output[0])
        return all_states if isinstance(output, Tensor) else (all_states, *output[1:])

    def restored(self, states: Tensor) -> Tensor:
        """Return what the pruned block or a module in it gives for the pooled nodes in their original rows.

        Before the block is pruned, and for one that can't be, the states are those of all nodes already.
        """
        states = states.reshape(1, -1, states.shape[-1])
        if states.shape[1] == self._size:
            return states
        return states.new_zeros(1, self._size, states.shape[-1]).index_copy_(1, self._chosen, states)

    def _keep(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.index_select(1, self._chosen)
        return tuple(self._keep(part) for part in value) if isinstance(value, tuple) else value


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return [tensor for part in parts for tensor in _tensors(part)]
