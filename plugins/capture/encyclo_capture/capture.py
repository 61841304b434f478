"""Captures prompts: tokenises and batches them, runs the network, pools hidden layers and checks the values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from encyclo.errors import CaptureError
from encyclo.types import Prompt, Samples
from encyclo_capture.batch_sizes import even_size
from encyclo_capture.batches import LARGEST, halving, out_of_range, range_fault, start_transfer
from encyclo_capture.cpu.workers import worker_count
from encyclo_capture.forward.passes import Places, Reading, run_padded, run_tree
from encyclo_capture.forward.token_tree import build_tree, count_nodes, tree_groups
from encyclo_capture.model import TransformersModel
from encyclo_capture.tokenization import TokenisedPrompt, tokenise

# Long prompts share a small part of their tokens; they run in padded batches with the model's own attention.
LONGEST_IN_TREE = 192


def capture(
    model: TransformersModel,
    prompts: Sequence[Prompt],
    layers: Sequence[int],
    pooling: str,
    batch_tokens: int,
) -> Iterator[Samples]:
    """Yield one Samples per batch. `layers` are hidden_states indices; see `encyclo.types.Samples` for shapes."""
    tokenised = tokenise(model, prompts, pooling)
    in_tree = [t for t in tokenised if len(t.needed) <= LONGEST_IN_TREE] if model.shares_prefixes else []
    tree_positions = {t.position for t in in_tree}
    rest = sorted(
        (t for t in tokenised if t.position not in tree_positions), key=lambda t: (len(t.ids), t.ids)
    )
    limit = max_nodes(model, in_tree, batch_tokens)
    places = model.places
    jobs = [
        partial(_compute, model.device, layers, partial(_run_tree, places), group)
        for group in tree_groups(in_tree, limit)
    ]
    jobs += [
        partial(_compute, model.device, layers, partial(_run_padded, model.support.whole, places), group)
        for group in padded_batches(rest, batch_tokens if model.support.whole.padded else 1)
    ]
    # While the device computes a batch, the previous batch is transferred to the host.
    previous: list[Captured] = []
    for batches in model.replicas.run(jobs, worker_count(model.device)):
        yield from (_samples(model, prompts, layers, batch) for batch in previous)
        previous = batches
    yield from (_samples(model, prompts, layers, batch) for batch in previous)


@dataclass(frozen=True)
class Captured:
    """A computed batch; `ready` waits for its vectors, float32 [n, L, H], and returns them."""

    group: Sequence[TokenisedPrompt]
    ready: Callable[[], NDArray[np.float32]]
    computed: int


Runner = Callable[[Any, str, Sequence[int], Sequence[TokenisedPrompt]], tuple[Tensor, int]]


def max_nodes(model: TransformersModel, prompts: Sequence[TokenisedPrompt], batch_tokens: int) -> int:
    """Return the maximum nodes per tree: at most `batch_tokens`, chosen so that all workers finish together."""
    workers = worker_count(model.device)
    total, longest = count_nodes(prompts), max((len(p.needed) for p in prompts), default=0)
    if workers == 1 or total <= batch_tokens or 2 * longest > batch_tokens:
        return batch_tokens
    rounds = -(-total // (workers * (batch_tokens - longest)))
    # A tree ends before the prompt that would not fit.
    return min(batch_tokens, even_size(model.network, total // (workers * rounds) + longest))


def _compute(
    device: str, layers: Sequence[int], run: Runner, group: Sequence[TokenisedPrompt], network: Any
) -> list[Captured]:
    parts = halving(group, partial(run, network, device, layers))
    return [Captured(part, start_transfer(pooled), computed) for part, pooled, computed in parts]


def _run_tree(
    places: Places, network: Any, device: str, layers: Sequence[int], group: Sequence[TokenisedPrompt]
) -> tuple[Tensor, int]:
    tree = build_tree(group)
    return run_tree(network, device, tree, layers, places), even_size(network, len(tree))


def _run_padded(
    reading: Reading,
    places: Places,
    network: Any,
    device: str,
    layers: Sequence[int],
    group: Sequence[TokenisedPrompt],
) -> tuple[Tensor, int]:
    computed = len(group[-1].ids) * len({p.ids for p in group})
    return run_padded(network, device, group, layers, reading, places), computed


def padded_batches(prompts: Sequence[TokenisedPrompt], batch_tokens: int) -> Iterator[list[TokenisedPrompt]]:
    """Cut prompts, sorted by length, into batches of at most `batch_tokens` padded tokens or one prompt.

    Equal texts share a row.
    """
    batch: list[TokenisedPrompt] = []
    texts: set[tuple[int, ...]] = set()
    for prompt in prompts:
        texts.add(prompt.ids)
        if batch and len(prompt.ids) * len(texts) > batch_tokens:
            yield batch
            batch, texts = [], {prompt.ids}
        batch.append(prompt)
    if batch:
        yield batch


def _samples(
    model: TransformersModel, prompts: Sequence[Prompt], layers: Sequence[int], batch: Captured
) -> Samples:
    """Return a batch's samples.

    Raises CaptureError, naming the prompt and the layer, if a value is not finite or beyond LARGEST.
    """
    values = batch.ready()
    if not (values.max() <= LARGEST and values.min() >= -LARGEST):  # false for NaN
        raise _out_of_range(model, prompts, layers, batch)
    return Samples(
        positions=np.array([t.position for t in batch.group], np.int64),
        activations=values,
        tokens=sum(len(t.ids) for t in batch.group),
        tokens_computed=batch.computed,
    )


def _out_of_range(
    model: TransformersModel, prompts: Sequence[Prompt], layers: Sequence[int], batch: Captured
) -> CaptureError:
    """Return the error that names the prompt with the value.

    In a tree, such a value spreads to other prompts: a masked node has weight 0, and 0 times inf is NaN. So each
    prompt is run alone.
    """
    group, values = batch.group, batch.ready()
    for prompt in group:
        pooled = run_padded(model.network, model.device, [prompt], layers, model.support.whole, model.places)
        alone = pooled.cpu().numpy()
        if out_of_range(alone).any():
            group, values = [prompt], alone
            break
    row, layer, place = np.argwhere(out_of_range(values))[0]
    hint = (
        "; check the model's weights" if model.dtype == "float32" else "; try -o transformers.dtype=float32"
    )
    return CaptureError(
        f"The activation of the prompt {prompts[group[row].position].text!r} at layer {layers[layer]} of "
        f"{model.depth} {range_fault(values[row, layer, place])} in {model.dtype}{hint}."
    )
