"""The tokens of one call, and the network reduced to them: the head is most of a small model's work."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from encyclo_capture.cpu.workers import replica_of
from encyclo_capture.loading.loaded_model import LoadedModel
from encyclo_capture.loading.silence import quiet_transformers
from encyclo_capture.tokenization import encode

FREQUENT = 2**15
"""Token ids below this may be drawn: tokenizers number tokens by falling frequency."""
# A blank and a word, the rest of a word, digits, or the punctuation of prose; no code, no other scripts.
TEXT = re.compile(r"[ ]?[A-Za-z][a-z]*|[ ]?[A-Z]{2,4}|[ ]?[0-9]+|[ ]?[.,;:!?'\"()\-]+|'[a-z]+|\n+|[ ]")


class Vocabulary:
    """The V tokens of a call, numbered from 0: plain English text, and the call's own texts and words.

    ids:       int64 [V], the tokenizer's ids, ascending
    pieces:    the text of each token
    forbidden: bool [V], tokens that are only read: special ones
    ends:      bool [V], tokens that may end a sentence
    first:     the number of each word's first token within a sentence, and the full stop's, in a list
    end:       the number of the model's end token; None if it has none
    """

    def __init__(self, model: LoadedModel, texts: Iterable[Sequence[int]], words: Iterable[str]) -> None:
        tokenizer, size = model.tokenizer, len(model.head[0])
        pieces, text = pieces_of(tokenizer, size)
        asked = {**{word: f" {word}" for word in words}, ".": "."}
        encoded = encode(model, list(asked.values()), add_special_tokens=False)["input_ids"]
        firsts = {word: ids[:1] for word, ids in zip(asked, encoded, strict=True)}
        end, special = tokenizer.eos_token_id, set(tokenizer.all_special_ids)
        end = end if end is not None and end < len(pieces) else None
        known = sorted(text.union({end} - {None}, *firsts.values(), *texts))
        numbers = {token: number for number, token in enumerate(known)}
        self.ids = torch.tensor(known, device=model.device)
        self.pieces = [pieces[token] for token in known]
        self.first = {word: [numbers[token] for token in first] for word, first in firsts.items()}
        self.end = numbers.get(end)
        forbidden = [token in special and token != end for token in known]
        ends = [token == end or not {*".!?\n"}.isdisjoint(pieces[token]) for token in known]
        self.forbidden, self.ends = torch.tensor([forbidden, ends], device=model.device)

    def numbers(self, ids: Tensor) -> Tensor:
        """Return the numbers of the tokenizer's ids, of any shape; 0 for padding, which is negative."""
        return torch.searchsorted(self.ids, ids)


@lru_cache(maxsize=1)  # a run asks for each batch of sentences
def pieces_of(tokenizer: Any, size: int) -> tuple[list[str], frozenset[int]]:
    """Return the texts of the first `size` tokens, and which of them are plain English text."""
    tokens = tokenizer.convert_ids_to_tokens(list(range(min(size, len(tokenizer)))))
    # SentencePiece marks blanks by ▁, byte-level BPE by Ġ and line ends by Ċ.
    pieces = [(token or "").replace("▁", " ").replace("Ġ", " ").replace("Ċ", "\n") for token in tokens]
    # SentencePiece puts single characters last.
    plain = (i for i, p in enumerate(pieces) if (i < FREQUENT or len(p) == 1) and TEXT.fullmatch(p))
    return pieces, frozenset(plain)


def causal_network(model: LoadedModel, ids: Tensor) -> Any:
    """Return a causal network over the model's weights that reads and scores the tokens `ids`, int64 [V], by number."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    body: Any = replica_of(model.network)
    with torch.device("meta"), quiet_transformers():
        network = AutoModelForCausalLM.from_config(body.config)
    network.generation_config = GenerationConfig()
    setattr(network, network.base_model_prefix, body)
    body.get_input_embeddings().register_forward_pre_hook(lambda _, given: (ids[given[0]],))
    head, (weight, bias) = network.get_output_embeddings(), model.head
    head.weight = nn.Parameter(weight[ids], requires_grad=False)
    head.bias = None if bias is None else nn.Parameter(bias[ids], requires_grad=False)
    # If the states are a slice, torch copies the weight for each row.
    head.register_forward_pre_hook(lambda _, given: (given[0].contiguous(),))
    return network.eval()
