"""Tests whether a network runs on token trees, instead of keeping a list of model names."""

from __future__ import annotations

from typing import Any

import torch

from encyclo_capture.forward.passes import find_blocks, run_padded, run_tree
from encyclo_capture.forward.token_tree import build_tree
from encyclo_capture.forward.tree_attention import register
from encyclo_capture.tokenization import TokenisedPrompt

# Largest error of a tree against a plain pass, relative to the vector's length, after the first and the last block. It
# allows for another order of summation (gemma-3-270m in bfloat16: up to 0.6% and 7%, on arbitrary tokens).
TOLERANCE = {torch.float32: (1e-5, 1e-4), torch.bfloat16: (0.03, 0.25)}
LENGTH = 6


def follows_trees(network: Any, device: str, vocabulary: int) -> bool:
    """Return whether the network is causal and gives the same states on a token tree as on single prompts."""
    if not getattr(type(network), "_supports_attention_backend", False):
        return False
    register()
    first, other = probes(vocabulary)
    return is_causal(network, device, first, other) and _agrees(network, device, [first, other])


def probes(vocabulary: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return two texts, as token ids of a vocabulary of this size, that differ in the last token only."""
    step = max(1, vocabulary // (2 * LENGTH + 1))
    first = tuple(range(step, step * (LENGTH + 1), step))[:LENGTH]
    return first, (*first[:-1], first[-1] + step)


def is_causal(network: Any, device: str, first: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Return whether two texts that differ only in the last token have equal states before it, bit for bit."""
    depth = len(find_blocks(network))
    before = tuple(range(len(first) - 1))
    states = [
        run_padded(network, device, [TokenisedPrompt(0, ids, before)], [depth]) for ids in (first, other)
    ]
    return torch.equal(*states)


def _agrees(network: Any, device: str, texts: list[tuple[int, ...]]) -> bool:
    layers = [1, len(find_blocks(network))]
    prompts = [TokenisedPrompt(place, ids, (len(ids) - 1,)) for place, ids in enumerate(texts)]
    plain = torch.cat([run_padded(network, device, [prompt], layers) for prompt in prompts])
    try:
        shared = run_tree(network, device, build_tree(prompts), layers)
    except (TypeError, ValueError, RuntimeError):
        # The network takes no position ids, or its attention doesn't use transformers' interface.
        return False
    error = (shared - plain).norm(dim=-1) / plain.norm(dim=-1).clamp_min(1e-12)
    bounds = torch.tensor(TOLERANCE.get(network.dtype, TOLERANCE[torch.bfloat16]))
    return bool((error.cpu() <= bounds).all())
