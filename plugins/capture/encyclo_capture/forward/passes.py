"""One forward pass: pools the requested layers and, where it reads them by hooks, stops after the deepest one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from encyclo.errors import CaptureError
from encyclo_capture.batch_sizes import even_size
from encyclo_capture.forward.last_block import LastBlockPruning
from encyclo_capture.forward.plain_pass import attention_of, forward_arguments, returned_states
from encyclo_capture.forward.text_part import text_config
from encyclo_capture.forward.token_tree import TokenTree
from encyclo_capture.forward.tree_attention import TreeState, attending_to, lay_out
from encyclo_capture.tokenization import TokenisedPrompt

Places = Sequence[str] | None
"""The module to read in each block, by its name in the block; None reads the hidden states."""


@dataclass(frozen=True)
class Reading:
    """How whole texts are read.

    padded:    texts of different lengths may share a batch
    tapped:    the layers are read by hooks on the blocks, else from transformers' list of hidden states
    attention: transformers' attention function; None for the one that the model was loaded with
    """

    padded: bool = True
    tapped: bool = True
    attention: str | None = None


class LayerTap:
    """Pools hidden states while the network runs; stops the network after the deepest layer.

    `layers` are hidden_states indices: 0 is the first block's input, i the i-th block's output, and the last index
    the network's output, after its final norm. With `places`, i is the output of the i-th block's module of that name
    (see sites.py), and 0 is none. `rows` int64 [k] are the pooled rows of the flattened states, and
    `counts` int64 [n] the number of pooled rows per prompt. On a tree, `pruning` may prune the deepest block to the
    pooled nodes. Without it, `states` is the number of states that each layer should have.
    """

    def __init__(
        self,
        network: Any,
        layers: Sequence[int],
        rows: Tensor,
        counts: Tensor,
        pruning: LastBlockPruning | None = None,
        states: int | None = None,
        places: Places = None,
    ) -> None:
        self._network, self._layers, self._states, self._places = network, layers, states, places
        self._rows, self._counts, self._pruning = rows, counts, pruning
        self._found: dict[int, Tensor] = {}
        blocks = find_blocks(network)
        if blocks is None:
            raise ValueError(f"{type(network).__name__} has no list of its blocks")
        self._blocks = blocks

    def run(self, **inputs: Any) -> Tensor:
        """Run the network on `inputs`; return the pooled layers, float32 [n, L, H]."""
        deepest, depth = max(self._layers), len(self._blocks)
        handles: list[RemovableHandle] = []
        # Hooks run in the order of registration: a block's input is pooled before it is pruned.
        if 0 in self._layers:
            handles.append(self._blocks[0].register_forward_pre_hook(self._before, with_kwargs=True))
        if self._pruning is not None and self._pruning.pays and deepest > 0:
            handles += self._pruning.hook(self._blocks[deepest - 1])
        for index in sorted({layer for layer in self._layers if layer > 0}):
            if self._places is not None:
                module = module_at(self._blocks, self._places, index)
                handles.append(module.register_forward_hook(partial(self._added, index)))
            elif index < depth:
                handles.append(self._blocks[index - 1].register_forward_hook(partial(self._after, index)))
        try:
            with torch.inference_mode():
                output = self._network(**forward_arguments(self._network, **inputs))
                if deepest == depth and self._places is None:
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

    def _added(self, index: int, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        added = output if isinstance(output, Tensor) else output[0]
        if self._pruning is not None and self._pruning.pays and index == max(self._layers):
            added = self._pruning.restored(added)
        self._keep(index, added)

    def _keep(self, index: int, hidden: Tensor) -> None:
        with torch.inference_mode():
            self._found[index] = _pool(hidden, self._rows, self._counts, self._states)
        if index == max(self._layers):
            raise _DeepestReached


class _DeepestReached(Exception):
    """Raised by a tap to stop the network after the deepest layer."""


def find_blocks(network: Any) -> nn.ModuleList | None:
    """Return the network's list of blocks: the first list of as many modules as it has layers."""
    depth = text_config(network.config).num_hidden_layers
    lists = (module for module in network.modules() if isinstance(module, nn.ModuleList))
    return next((modules for modules in lists if len(modules) == depth), None)


def module_at(blocks: nn.ModuleList, places: Sequence[str], layer: int) -> nn.Module:
    """Return the module of a layer's block (1 is the first) whose name in the block is in `places`."""
    return blocks[layer - 1].get_submodule(places[layer - 1])


def run_tree(
    network: Any, device: str, tree: TokenTree, layers: Sequence[int], places: Places = None
) -> Tensor:
    """Return the pooled layers of a tree's prompts: float32 [n, L, H] on the device."""
    rows, counts = (torch.from_numpy(array).to(device) for array in (tree.pooled, tree.counts))
    tree = tree.filled(even_size(network, len(tree)))
    state = TreeState(lay_out(tree, device))
    pruning = LastBlockPruning(state, tree, network, device)
    tap = LayerTap(network, layers, rows, counts, pruning, places=places)
    with attending_to(network, state):
        return tap.run(
            input_ids=torch.from_numpy(tree.tokens)[None].to(device),
            position_ids=torch.from_numpy(tree.depth)[None].to(device),
        )


def run_padded(
    network: Any,
    device: str,
    batch: Sequence[TokenisedPrompt],
    layers: Sequence[int],
    reading: Reading = Reading(),
    places: Places = None,
) -> Tensor:
    """Return the pooled layers of whole prompts: float32 [n, L, H] on the device.

    Equal texts are computed once. Texts are padded on the right and masked, whichever side the tokenizer pads, so
    that padding affects neither positions nor pools.
    """
    texts = {ids: row for row, ids in enumerate(dict.fromkeys(prompt.ids for prompt in batch))}
    tokens = [(texts[prompt.ids], token) for prompt in batch for token in prompt.pooled]
    counts = [len(prompt.pooled) for prompt in batch]
    return read_texts(network, device, list(texts), tokens, counts, layers, reading, places)


def read_texts(
    network: Any,
    device: str,
    texts: Sequence[Sequence[int]],
    tokens: Sequence[tuple[int, int]],
    counts: Sequence[int],
    layers: Sequence[int],
    reading: Reading,
    places: Places = None,
) -> Tensor:
    """Return the means of hidden states of some tokens of texts, read in one batch: float32 [n, L, H] on the device.

    `tokens` are (text, token in it). Of each mean, `counts` gives the number of tokens, which are adjacent in `tokens`.
    """
    longest = max(map(len, texts))
    ids = np.zeros((len(texts), longest), np.int64)
    mask = np.zeros((len(texts), longest), np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    inputs = {"input_ids": torch.from_numpy(ids).to(device)}
    if reading.padded:
        inputs["attention_mask"] = torch.from_numpy(mask).to(device)
    rows = torch.from_numpy(np.asarray(tokens, np.int64) @ np.array([longest, 1])).to(device)
    lengths = torch.tensor(counts, device=device)
    with attention_of(network, reading.attention):
        if reading.tapped:
            return LayerTap(network, layers, rows, lengths, states=ids.size, places=places).run(**inputs)
        states = returned_states(network, **inputs)
        with torch.inference_mode():
            return torch.stack([_pool(states[layer], rows, lengths, ids.size) for layer in layers], dim=1)


def _pool(hidden: Tensor, rows: Tensor, counts: Tensor, states: int | None = None) -> Tensor:
    """Return the mean of each prompt's pooled rows: hidden [texts, tokens, H] -> float32 [prompts, H].

    Raises CaptureError unless there are as many `states` as there should be: some networks pad long texts themselves,
    and then the rows would be those of other tokens.
    """
    found = hidden.shape[:-1].numel()
    if states is not None and found != states:
        raise CaptureError(
            f"The network gives {found} hidden states for {states} tokens, so that it is unknown which belongs to "
            "which; use another --model."
        )
    chosen = hidden.reshape(-1, hidden.shape[-1]).index_select(0, rows).float()
    return torch.segment_reduce(chosen, "mean", lengths=counts, axis=0)
