"""transformers' own forward pass over one text: the hidden states that a capture must give.

It uses eager attention, neither padding nor hooks of encyclo, and the list of hidden states that transformers returns.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

EAGER = "eager"


@contextmanager
def attention_of(network: Any, name: str | None) -> Iterator[None]:
    """Make the network use transformers' attention function `name` in the block; None keeps its own."""
    found: list[Any] = [getattr(module, "config", None) for module in network.modules()] if name else []
    configs = {id(config): config for config in found if hasattr(config, "_attn_implementation_internal")}
    previous = {key: config._attn_implementation_internal for key, config in configs.items()}
    for config in configs.values():
        config._attn_implementation_internal = name
    try:
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation_internal = previous[key]


def forward_arguments(network: Any, **inputs: Any) -> dict[str, Any]:
    """Return those of `inputs` and of use_cache=False that the network's forward pass takes."""
    known = inspect.signature(network.forward).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    return {n: value for n, value in {**inputs, "use_cache": False}.items() if takes_any or n in known}


def returned_states(network: Any, **inputs: Any) -> Sequence[Tensor]:
    """Return the hidden states that transformers lists for `inputs`: [texts, tokens, H] each."""
    with torch.inference_mode():
        output = network(**forward_arguments(network, **inputs), output_hidden_states=True, return_dict=True)
    states: Sequence[Tensor] = output.hidden_states
    return states


def plain_states(
    network: Any, device: str, ids: Sequence[int], attention: str | None = EAGER
) -> list[Tensor]:
    """Return the hidden states of one text, by eager attention unless another is given: [tokens, H] each."""
    with attention_of(network, attention):
        return [state[0] for state in returned_states(network, input_ids=torch.tensor([ids], device=device))]
