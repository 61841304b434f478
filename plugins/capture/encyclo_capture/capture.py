"""Prompts to pooled hidden layers: tokenise, group, forward, check, hand over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from encyclo.errors import CaptureError
from encyclo.types import Prompt, Samples
from encyclo_capture.forward import run_padded, run_tree
from encyclo_capture.model import TransformersModel
from encyclo_capture.tokens import TokenisedPrompt, tokenise
from encyclo_capture.tree import cut_into_trees

# A node gathers the keys of all its ancestors; beyond this length padded batches do less work.
LONGEST_IN_TREE = 192


def capture(
    model: TransformersModel,
    prompts: Sequence[Prompt],
    layers: Sequence[int],
    pooling: str,
    batch_tokens: int,
) -> Iterator[Samples]:
    """Yield Samples a batch. `layers` are hidden_states indices; see `encyclo.types.Samples` for shapes."""
    tokenised = tokenise(model, prompts, pooling)
    in_tree = [t for t in tokenised if len(t.needed) <= LONGEST_IN_TREE] if model.shares_prefixes else []
    chosen = {t.position for t in in_tree}
    for group, tree in cut_into_trees(in_tree, batch_tokens):
        pooled = run_tree(model.network, model.device, tree, layers)
        yield _samples(model, prompts, layers, group, pooled, computed=len(tree))
    rest = sorted((t for t in tokenised if t.position not in chosen), key=lambda t: (len(t.ids), t.ids))
    for batch in padded_batches(rest, batch_tokens):
        pooled = run_padded(model.network, model.device, batch, layers)
        yield _samples(model, prompts, layers, batch, pooled, computed=len(batch[-1].ids) * len(batch))


def padded_batches(prompts: Sequence[TokenisedPrompt], batch_tokens: int) -> Iterator[list[TokenisedPrompt]]:
    """Cut prompts, sorted by length, into batches of at most `batch_tokens` padded tokens (at least one)."""
    batch: list[TokenisedPrompt] = []
    for prompt in prompts:
        if batch and len(prompt.ids) * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(prompt)
    if batch:
        yield batch


def _samples(
    model: TransformersModel,
    prompts: Sequence[Prompt],
    layers: Sequence[int],
    group: Sequence[TokenisedPrompt],
    pooled: Tensor,
    computed: int,
) -> Samples:
    """Bring a batch to the host; refuse it if a value is not finite, naming prompt, layer and type."""
    values = pooled.cpu().numpy()
    if not np.isfinite(values).all():
        raise _not_finite(model, prompts, layers, group, values)
    return Samples(
        positions=np.array([t.position for t in group], np.int64),
        activations=values,
        tokens=sum(len(t.ids) for t in group),
        tokens_computed=computed,
    )


def _not_finite(
    model: TransformersModel,
    prompts: Sequence[Prompt],
    layers: Sequence[int],
    group: Sequence[TokenisedPrompt],
    values: NDArray[np.float32],
) -> CaptureError:
    """Return the error that names the prompt to blame.

    In a tree a value that is not finite spreads: what a node doesn't see weighs 0, and 0 times inf is NaN. So
    the prompts are tried alone.
    """
    for prompt in group:
        alone = run_padded(model.network, model.device, [prompt], layers).cpu().numpy()
        if not np.isfinite(alone).all():
            group, values = [prompt], alone
            break
    row, layer, _ = np.argwhere(~np.isfinite(values))[0]
    hint = "" if model.dtype == "float32" else "; try -o transformers.dtype=float32"
    return CaptureError(
        f"The activation of the prompt {prompts[group[row].position].text!r} at layer {layers[layer]} of "
        f"{model.depth} is not finite, computed in {model.dtype}{hint}."
    )
