"""Finds what attention and the MLP add to the residual stream in each block, and proves it by adding up.

A plain pass over a short text records what every module of a block gives. The two sites are the outputs of two modules,
one of them in the attention, which added to the block's input give the block's output bit for bit; in a block like
BERT's, a norm follows each of the two sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from encyclo.errors import CaptureError
from encyclo_capture.forward.passes import find_blocks, module_at
from encyclo_capture.forward.plain_pass import EAGER, forward_arguments, plain_states
from encyclo_capture.forward.support import Support, probes
from encyclo_capture.forward.text_part import text_config

ATTENTION = ("attn", "attention")
"""The names of attention modules and of their classes have one of these, in any case."""
ADVICE = "leave --site out to read the residual stream, or use another --model"

Ids = Sequence[int]
Key = TypeVar("Key")


@dataclass(frozen=True)
class BlockSites:
    """The modules of one block, by their names in it, whose outputs attention and MLP add to the residual.

    `norms` are those that follow the two sums; None if the sums are the residual.
    """

    attn: str
    mlp: str
    norms: tuple[str, str] | None = None


@dataclass(frozen=True)
class BlockPass:
    """A block in a plain pass over one text: its input, its output and its modules' outputs, [tokens, H] each."""

    before: Tensor
    after: Tensor
    outputs: Mapping[str, Tensor]


def find_sites(network: Any, name: str, device: str, support: Support, site: str) -> tuple[BlockSites, ...]:
    """Return the sites of each block of the model `name`; `site` is the one that was asked for.

    Raises CaptureError if they can't be found, or don't add up to the residual stream.
    """
    what = f"The model {name!r} ({type(network).__name__}) has no --site {site} that can be proven"
    blocks = find_blocks(network)
    if blocks is None or not support.whole.tapped:
        raise CaptureError(f"{what}: its hidden states are not the outputs of a list of blocks; {ADVICE}.")
    first, *others = probes(text_config(network.config))
    found: list[BlockSites] = []
    for place, (block, seen) in enumerate(zip(blocks, plain_blocks(network, device, first), strict=True)):
        same = bool(found) and _holds(block, seen, found[-1])  # as in the block before, mostly
        chosen = found[-1] if same else _search(block, seen)
        if chosen is None:
            raise CaptureError(
                f"{what}: in block {place + 1} of {len(blocks)} no two outputs, one of them the attention's, add up to "
                f"the residual stream; {ADVICE}."
            )
        found.append(chosen)
    sites = tuple(found)
    for ids in others:
        if (layer := wrong_sum(network, sites, plain_blocks(network, device, ids, sites))) is not None:
            raise CaptureError(
                f"{what}: in block {layer} of {len(blocks)} attention and MLP add up to the residual stream of one "
                f"text and not of another; {ADVICE}."
            )
    return sites


def plain_blocks(
    network: Any, device: str, ids: Ids, sites: Sequence[BlockSites] | None = None, attention: str = EAGER
) -> list[BlockPass]:
    """Return each block in transformers' own pass over one text, with the outputs of its sites (None: of all modules).

    A block's input is the hidden state that transformers lists, and its output too, if another block follows.
    """
    blocks = find_blocks(network)
    assert blocks is not None
    modules = {
        (place, name): module
        for place, block in enumerate(blocks)
        for name, module in block.named_modules()
        if (
            sites is None
            or name in (sites[place].attn, sites[place].mlp)
            or (block is blocks[-1] and not name)
        )
    }
    with outputs_of(modules) as found:
        states = plain_states(network, device, ids, attention)
    shape = states[0].shape
    given: list[dict[str, Tensor]] = [{} for _ in blocks]
    for (place, name), outputs in found.items():
        if len(outputs) == 1 and outputs[0].shape[-1:] == shape[-1:] and outputs[0].numel() == shape.numel():
            given[place][name] = outputs[0].reshape(shape)
    after = [*states[1:-1], given[-1].get("", states[-1])]  # the last hidden state comes after the final norm
    return [BlockPass(*block) for block in zip(states[:-1], after, given, strict=True)]


def wrong_sum(network: Any, sites: Sequence[BlockSites], blocks: Sequence[BlockPass]) -> int | None:
    """Return the first block, counted from 1, in which attention and MLP don't add up to the residual; else None."""
    modules = find_blocks(network)
    assert modules is not None
    for number, (block, seen, found) in enumerate(zip(modules, blocks, sites, strict=True), 1):
        if not _holds(block, seen, found):
            return number
    return None


def added_states(network: Any, places: Sequence[str], **inputs: Any) -> list[Tensor]:
    """Return what the module of each block named in `places` gives for `inputs`: [texts, tokens, H], by layer.

    Layer 0, the embedding, has no such module; its place has an empty tensor.
    """
    blocks = find_blocks(network)
    assert blocks is not None
    modules = {layer: module_at(blocks, places, layer) for layer in range(1, len(places) + 1)}
    with outputs_of(modules) as found, torch.inference_mode():
        network(**forward_arguments(network, **inputs))
    shape = inputs["input_ids"].shape
    return [torch.empty(0), *(found[layer][0].reshape(*shape, -1) for layer in modules)]


@contextmanager
def outputs_of(modules: Mapping[Key, nn.Module]) -> Iterator[dict[Key, list[Tensor]]]:
    """Collect what each module gives in the block, as copies: some networks change an output in place."""
    found: dict[Key, list[Tensor]] = {key: [] for key in modules}

    def keep(key: Key, output: Any) -> None:
        output = output[0] if isinstance(output, tuple) and output else output
        if isinstance(output, Tensor):
            found[key].append(output.clone())

    handles = [
        module.register_forward_hook(lambda _, __, output, key=key: keep(key, output))
        for key, module in modules.items()
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _search(block: nn.Module, seen: BlockPass) -> BlockSites | None:
    """Return a block's sites, the outermost modules with these outputs; None if no two modules add up."""
    names = sorted(filter(None, seen.outputs), key=lambda name: name.count("."))
    attn = [name for name in names if _in_attention(block, name)]
    pairs = list(product(attn, [name for name in names if name not in attn]))
    norms = [name for name in names if "norm" in type(block.get_submodule(name)).__name__.lower()]
    after = [both for both in permutations(norms, 2) if torch.equal(seen.outputs[both[1]], seen.after)]
    tried = (BlockSites(*pair, both) for both in (None, *after) for pair in pairs)
    return next((sites for sites in tried if _holds(block, seen, sites)), None)


def _holds(block: nn.Module, seen: BlockPass, sites: BlockSites) -> bool:
    """Return whether the sites' outputs add up to the block's, in one of the orders that a block may add them."""
    if not {sites.attn, sites.mlp} <= seen.outputs.keys():
        return False
    x, attn, mlp = seen.before, seen.outputs[sites.attn], seen.outputs[sites.mlp]
    with torch.inference_mode():
        if sites.norms:
            first, second = map(block.get_submodule, sites.norms)
            try:
                sums = [second(first(x + attn) + mlp)]
            except Exception:  # a norm of a model's own that takes something else
                return False
        else:
            sums = [x + attn + mlp, x + mlp + attn, x + (attn + mlp)]
    # Bit for bit: beside a large residual, a wrong module's small output would be within any tolerance.
    return any(torch.equal(total.to(seen.after.dtype), seen.after) for total in sums)


def _in_attention(block: nn.Module, name: str) -> bool:
    """Return whether the module `name` of a block is an attention, in one, or a norm after one."""
    parts = name.split(".")
    outer = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    words = [*parts, *(type(block.get_submodule(path)).__name__ for path in outer)]
    return any(part in word.lower() for word in words for part in ATTENTION)
