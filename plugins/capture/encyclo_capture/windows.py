"""Reads windows of long texts: their tokens, and the hidden states of those that are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encyclo.errors import CaptureError
from encyclo.types import Samples
from encyclo.windows import TextTokens, TokenWindow
from encyclo_capture.batches import LARGEST, halving, out_of_range, range_fault, start_transfer
from encyclo_capture.cpu.workers import worker_count
from encyclo_capture.forward.passes import read_texts
from encyclo_capture.forward.plain_pass import EAGER
from encyclo_capture.loading.loaded_model import LoadedModel
from encyclo_capture.loading.refusals import refusing
from encyclo_capture.plain_comparison import ADVICE, Floats, allowed_errors, plain_hidden, relative_errors
from encyclo_capture.tokenization import TokenisingModel, encode

SHORTER = f"try a shorter --context, or {ADVICE}"
CHECKED = 3
"""The windows that are compared with a plain pass."""


def split_text(model: TokenisingModel, text: str) -> TextTokens:
    """Return a text's tokens. Raises CaptureError if the tokenizer fails."""
    encoded = encode(model, [text], return_offsets_mapping=True, verbose=False)
    ids = encoded["input_ids"][0]
    ranges = np.array(encoded["offset_mapping"][0], np.int32).reshape(-1, 2)
    special = encoded["special_tokens_mask"][0]
    known, first, last = set(model.tokenizer.all_special_ids), 0, len(ids)
    while first < last and special[first] and ids[first] in known:
        first += 1
    while last > first and special[last - 1] and ids[last - 1] in known:
        last -= 1
    added = np.array(special, bool)  # what is left of these is a blank that the text doesn't have
    ranges[added, 1] = ranges[added, 0]
    own = slice(first, last)
    return TextTokens(np.array(ids[own], np.int32), ranges[own], tuple(ids[:first]), tuple(ids[last:]))


@dataclass(frozen=True)
class ReadBatch:
    """A computed batch of windows; `ready` waits for its states, float32 [n, L, H], and returns them."""

    windows: Sequence[TokenWindow]
    ready: Callable[[], NDArray[np.float32]]
    computed: int


def read_windows(
    model: LoadedModel, windows: Sequence[TokenWindow], layers: Sequence[int], batch_tokens: int
) -> Iterator[Samples]:
    """Yield the hidden states of the windows' kept tokens (see `encyclo.windows.WindowModel`).

    Windows of similar lengths share a batch of at most `batch_tokens` padded tokens. Raises CaptureError for a number
    that is not finite or beyond LARGEST.
    """
    starts = np.cumsum([0, *(len(window.kept) for window in windows)])
    first = {id(window): int(start) for window, start in zip(windows, starts[:-1], strict=True)}
    size = batch_tokens if model.support.whole.padded else 1
    jobs = [partial(_compute, model, layers, group) for group in _batches(windows, size)]

    def samples(batch: ReadBatch) -> Samples:
        places = [first[id(w)] + np.arange(len(w.kept)) for w in batch.windows]
        return Samples(
            positions=np.concatenate(places),
            activations=_checked(model, layers, batch),
            tokens=sum(len(window.ids) for window in batch.windows),
            tokens_computed=batch.computed,
        )

    # While the device computes a batch, the previous batch is transferred to the host.
    previous: list[ReadBatch] = []
    for batches in model.replicas.run(jobs, worker_count(model.device)):
        yield from map(samples, previous)
        previous = batches
    yield from map(samples, previous)


def check_windows(
    model: LoadedModel, windows: Sequence[TokenWindow], layers: Sequence[int], batch_tokens: int
) -> dict[str, float]:
    """Compare a few windows, read in one batch, with transformers' own pass over each: {"windows": relative error}.

    Raises CaptureError if one vector, or a layer in the mean, differs by more than rounding.
    """
    rising = sorted(windows, key=lambda window: len(window.ids))
    places = np.linspace(0, len(rising) - 1, min(CHECKED, len(rising))).round().astype(int)
    chosen = [rising[place] for place in places]
    network = model.original
    theirs = _plain_states(model, network, chosen, layers, EAGER)
    ours = np.empty_like(theirs)
    for batch in read_windows(model, chosen, layers, batch_tokens):
        ours[batch.positions] = batch.activations
    error = relative_errors(ours, theirs)
    bound, mean_bound = allowed_errors(model.dtype, model.site)
    own = network.config._attn_implementation
    if not _within(error, bound, mean_bound) and own != EAGER:
        # Some texts round worse: up to twice as much is allowed if transformers' own two ways to compute attention
        # differ as much. No more, for its faster one may be wrong on long texts.
        apart = relative_errors(_plain_states(model, network, chosen, layers, own), theirs)
        bound = min(2 * bound, max(bound, 2 * float(apart.max())))
        mean_bound = min(2 * mean_bound, max(mean_bound, 2 * float(apart.mean(axis=0).max())))
    if not _within(error, bound, mean_bound):
        raise _too_far(model, layers, error, bound, mean_bound)
    return {"windows": float(error.max())}


def _plain_states(
    model: LoadedModel, network: Any, windows: Sequence[TokenWindow], layers: Sequence[int], attention: str
) -> Floats:
    """Return the kept tokens' states by plain passes, one window at a time: float32 [n, L, H]."""
    found = []
    for window in windows:
        with refusing("A plain forward pass of the model failed", CaptureError, f"; {SHORTER}"):
            states = plain_hidden(model, network, window.ids, attention)
        kept = [states[layer][list(window.kept)].float() for layer in layers]
        found.append(torch.stack(kept, dim=1).cpu().numpy())
    return np.concatenate(found)


def _within(error: Floats, bound: float, mean_bound: float) -> bool:
    """Return whether each vector and each layer's mean is within its bound; a NaN is not."""
    return bool(error.max() <= bound and error.mean(axis=0).max() <= mean_bound)


def _too_far(
    model: LoadedModel, layers: Sequence[int], error: Floats, bound: float, mean_bound: float
) -> CaptureError:
    """Return the error of vectors that differ by more than one of the bounds, naming this one's layer and figure."""
    error = np.nan_to_num(error, nan=np.inf)
    alone = bool(error.max() > bound)
    by_layer = error.max(axis=0) if alone else error.mean(axis=0)
    place = int(by_layer.argmax())
    found, allowed = f"{by_layer[place]:.2g}", f"{bound if alone else mean_bound:.2g}"
    what = "a token's vector differs by" if alone else "a token's vector differs on average by"
    return CaptureError(
        f"The self-test of the windows failed: at layer {layers[place]} of {model.depth} {what} {found} of its "
        f"length from a plain forward pass, but {model.dtype} allows {allowed}; {ADVICE}."
    )


def _batches(windows: Sequence[TokenWindow], batch_tokens: int) -> Iterator[list[TokenWindow]]:
    """Cut windows, sorted by length, into batches of at most `batch_tokens` padded tokens or one window."""
    batch: list[TokenWindow] = []
    for window in sorted(windows, key=lambda window: len(window.ids)):
        if batch and len(window.ids) * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


def _compute(
    model: LoadedModel, layers: Sequence[int], group: Sequence[TokenWindow], network: Any
) -> list[ReadBatch]:
    def run(some: Sequence[TokenWindow]) -> tuple[Tensor, int]:
        texts = [window.ids for window in some]
        tokens = [(row, place) for row, window in enumerate(some) for place in window.kept]
        counts, whole = [1] * len(tokens), model.support.whole
        states = read_texts(network, model.device, texts, tokens, counts, layers, whole, model.places)
        return states, len(texts) * max(map(len, texts))

    return [
        ReadBatch(some, start_transfer(states), computed) for some, states, computed in halving(group, run)
    ]


def _checked(model: LoadedModel, layers: Sequence[int], batch: ReadBatch) -> NDArray[np.float32]:
    """Return a batch's states. Raises CaptureError for one that is out of range."""
    values = batch.ready()
    if values.max() <= LARGEST and values.min() >= -LARGEST:  # false for NaN
        return values
    row, layer, place = np.argwhere(out_of_range(values))[0]
    tokens = [window.ids[kept] for window in batch.windows for kept in window.kept]
    raise CaptureError(
        f"The activation of the token {model.tokenizer.decode([tokens[row]])!r} at layer {layers[layer]} of "
        f"{model.depth} {range_fault(values[row, layer, place])} in {model.dtype}; "
        + ("check the model's weights." if model.dtype == "float32" else "try -o transformers.dtype=float32.")
    )
