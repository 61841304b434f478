"""Continues many texts that share a prefix, with transformers' `generate`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from encyclo.errors import UsageError
from encyclo.types import Opening
from encyclo_capture.batch_sizes import even_size
from encyclo_capture.generation.drawing import Batch
from encyclo_capture.generation.growing_texts import GrowingTexts
from encyclo_capture.generation.vocabulary import Vocabulary, causal_network
from encyclo_capture.loading.loaded_model import LoadedModel
from encyclo_capture.tokenization import encode

WAY_OUT = "switch generation off with -o diverse.generated=0"
BATCH = 256
"""Texts that are generated together. A batch takes as many steps as its longest text."""


def continue_texts(
    model: LoadedModel, prefix: str, openings: Sequence[Opening], max_new_tokens: int, stop: str | None
) -> list[str]:
    """Return the continuations; see `encyclo.types.TextGenerator`.

    The network reads the prefix once (see growing_texts.py). Raises UsageError if
    the model is not causal, a prefix or opening is empty or the model has too little room; CaptureError if its
    scores are not finite.
    """
    start, encoded = _encoded(model, prefix, openings, max_new_tokens)
    end = None if stop is None else re.compile(stop)
    vocabulary = Vocabulary(model, [start, *encoded], {word for o in openings for word in o.required_words})
    network = causal_network(model, vocabulary.ids)
    by_length = sorted(range(len(openings)), key=lambda n: len(encoded[n]))
    texts = [""] * len(openings)
    with torch.inference_mode():
        body = network.base_model
        shared = GrowingTexts(body)
        shared.begin([vocabulary.numbers(torch.tensor(start, device=model.device))])
        for at in range(0, len(openings), BATCH):
            chosen = by_length[at : at + BATCH]
            # Rows that only fill the batch repeat its last text.
            rows = chosen + chosen[-1:] * (even_size(body, len(chosen)) - len(chosen))
            own = [vocabulary.numbers(torch.tensor(encoded[n], device=model.device)) for n in rows]
            batch = Batch([openings[n] for n in rows], vocabulary, max_new_tokens, end)
            body.forward = _passes(body, GrowingTexts(body, shared), own, batch)
            ids = pad_sequence(own, batch_first=True, padding_side="left")
            network.generate(
                ids,
                attention_mask=torch.ones_like(ids),  # `_passes` reads the texts without padding
                max_new_tokens=max_new_tokens,
                use_cache=False,  # the texts keep their own
                do_sample=False,  # `draw` draws
                logits_processor=[batch.draw],
                stopping_criteria=[batch.has_ended],
            )
            for n, drawn in zip(chosen, batch.drawn[: len(chosen)], strict=True):
                text = model.tokenizer.decode(vocabulary.ids[drawn].tolist(), skip_special_tokens=True)
                match = end.search(text) if end else None
                texts[n] = text[: match.end()] if match else text
    return texts


def _passes(body: Any, texts: GrowingTexts, own: Sequence[Tensor], batch: Batch) -> Callable[..., Any]:
    """Return a forward pass for `generate`: the first reads the texts `own`, each later one the token drawn last.

    Its states are those of the batch's `going` texts: [going, 1, H].
    """
    begun = False

    def forward(input_ids: Tensor, **_: Any) -> BaseModelOutputWithPastAndCrossAttentions:
        nonlocal begun
        if not begun:
            begun, states = True, texts.begin(own)
        else:
            stay = batch.drop_ended(lambda count: even_size(body, count))
            if stay is not None:
                texts.keep(torch.tensor(stay, device=input_ids.device))
            states = texts.grow(input_ids[batch.going, -1])
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=states)

    return forward


def _encoded(
    model: LoadedModel, prefix: str, openings: Sequence[Opening], max_new_tokens: int
) -> tuple[list[int], list[list[int]]]:
    """Return the token ids of prefix and openings; raise UsageError if the model can't continue them."""
    if not model.shares_prefixes:
        raise UsageError(
            f"The model {model.name!r} can't generate: it is not causal, or transformers doesn't give access to its "
            f"attention; {WAY_OUT}."
        )
    start = encode(model, [prefix])["input_ids"][0]
    encoded = encode(model, [o.text for o in openings], add_special_tokens=False)["input_ids"]
    if not start or not all(encoded):
        raise UsageError(
            "Generation needs a prefix and openings of at least one token each; give texts that are not empty."
        )
    longest = max(map(len, encoded))
    if model.max_tokens is not None and len(start) + longest + max_new_tokens > model.max_tokens:
        raise UsageError(
            f"The model {model.name!r} can't generate sentences here: the text to continue "
            f"({len(start) + longest} tokens) and {max_new_tokens} new tokens exceed its limit of "
            f"{model.max_tokens} tokens; {WAY_OUT}."
        )
    return start, encoded
