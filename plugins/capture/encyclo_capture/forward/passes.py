"""One forward pass: pools the requested layers and stops after the deepest one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from encyclo.errors import CaptureError
from encyclo_capture.batch_sizes import even_size
from encyclo_capture.forward.last_block import LastBlockPruning
from encyclo_capture.forward.token_tree import TokenTree
from encyclo_capture.forward.tree_attention import TreeState, attending_to, lay_out
from encyclo_capture.tokenization import TokenisedPrompt


class LayerTap:
    """Pools hidden states while the network runs; stops the network after the deepest layer.

    `layers` are hidden_states indices: 0 is the first block's input, i the i-th block's output, and the last index
    the network's output, after its final norm. `rows` int64 [k] are the pooled rows of the flattened states, and
    `counts` int64 [n] the number of pooled rows per prompt. On a tree, `pruning` may prune the deepest block to the
    pooled nodes.
    """

    def __init__(
        self,
        network: Any,
        layers: Sequence[int],
        rows: Tensor,
        counts: Tensor,
        pruning: LastBlockPruning | None = None,
    ) -> None:
        self._network, self._layers = network, layers
        self._rows, self._counts, self._pruning = rows, counts, pruning
        self._found: dict[int, Tensor] = {}
        self._blocks = find_blocks(network)

    def run(self, **inputs: Any) -> Tensor:
        """Run the network on `inputs`; return the pooled layers, float32 [n, L, H]."""
        deepest, depth = max(self._layers), len(self._blocks)
        handles: list[RemovableHandle] = []
        # Hooks run in the order of registration: a block's input is pooled before it is pruned.
        if 0 in self._layers:
            handles.append(self._blocks[0].register_forward_pre_hook(self._before, with_kwargs=True))
        if self._pruning is not None and self._pruning.pays and deepest > 0:
            handles += self._pruning.hook(self._blocks[deepest - 1])
        for index in sorted({layer for layer in self._layers if 0 < layer < depth}):
            handles.append(self._blocks[index - 1].register_forward_hook(partial(self._after, index)))
        try:
            with torch.inference_mode():
                output = self._network(**inputs, use_cache=False)
                if deepest == depth:
                    self._keep(depth, output.last_hidden_state)
        except _DeepestReached:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return torch.stack([self._found[layer] for layer in self._layers], dim=1)

    def _before(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._keep(0, args[0] if args else kwargs["hidden_states"])

    def _after(self, index: int, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        self._keep(index, output if isinstance(output, Tensor) else output[0])

    def _keep(self, index: int, hidden: Tensor) -> None:
        with torch.inference_mode():
            rows = hidden.reshape(-1, hidden.shape[-1]).index_select(0, self._rows).float()
            self._found[index] = torch.segment_reduce(rows, "mean", lengths=self._counts, axis=0)
        if index == max(self._layers):
            raise _DeepestReached


class _DeepestReached(Exception):
    """Raised by a tap to stop the network after the deepest layer."""


def find_blocks(network: Any) -> nn.ModuleList:
    """Return the network's list of blocks. Raises CaptureError if no module list has the right length."""
    depth = network.config.get_text_config().num_hidden_layers
    for module in network.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise CaptureError(
        f"{type(network).__name__} has no list of {depth} blocks, so its layers can't be captured; use "
        "another --model."
    )


def run_tree(network: Any, device: str, tree: TokenTree, layers: Sequence[int]) -> Tensor:
    """Return the pooled layers of a tree's prompts: float32 [n, L, H] on the device."""
    rows, counts = (torch.from_numpy(array).to(device) for array in (tree.pooled, tree.counts))
    tree = tree.filled(even_size(network, len(tree)))
    state = TreeState(lay_out(tree, device))
    tap = LayerTap(network, layers, rows, counts, LastBlockPruning(state, tree, network, device))
    with attending_to(network, state):
        return tap.run(
            input_ids=torch.from_numpy(tree.tokens)[None].to(device),
            position_ids=torch.from_numpy(tree.depth)[None].to(device),
        )


def run_padded(network: Any, device: str, batch: Sequence[TokenisedPrompt], layers: Sequence[int]) -> Tensor:
    """Return the pooled layers of whole prompts: float32 [n, L, H] on the device.

    Equal texts are computed once. Texts are padded on the right and masked, whichever side the tokenizer pads, so
    that padding affects neither positions nor pools.
    """
    longest = max(len(prompt.ids) for prompt in batch)
    texts = {ids: row for row, ids in enumerate(dict.fromkeys(prompt.ids for prompt in batch))}
    ids = np.zeros((len(texts), longest), np.int64)
    mask = np.zeros((len(texts), longest), np.int64)
    for text, row in texts.items():
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    rows = [texts[prompt.ids] * longest + token for prompt in batch for token in prompt.pooled]
    counts = [len(prompt.pooled) for prompt in batch]
    tap = LayerTap(network, layers, torch.tensor(rows, device=device), torch.tensor(counts, device=device))
    return tap.run(
        input_ids=torch.from_numpy(ids).to(device), attention_mask=torch.from_numpy(mask).to(device)
    )
