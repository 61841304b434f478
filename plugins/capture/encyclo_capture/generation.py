"""Continuing many texts that share a beginning, by transformers' own `generate`.

The vocabulary is cut down to plain English text and the openings' own tokens: the head is most of a small model's
work. The prefix goes through the network once a call; each batch starts from a copy of its keys and values.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache, LogitsProcessor, StoppingCriteria

from encyclo.errors import CaptureError, UsageError
from encyclo.types import Opening
from encyclo_capture.batch_sizes import even_size
from encyclo_capture.cpu.workers import replica_of
from encyclo_capture.loading.loaded_model import LoadedModel
from encyclo_capture.loading.silence import quiet_transformers

WAY_OUT = "switch generation off with -o diverse.generated=0"
BATCH = 64
"""Texts that go on at once. A batch takes as many steps as its longest text."""
FREQUENT = 2**15
"""Token ids below this may be generated: tokenizers number what they learnt in falling frequency."""
# A blank and a word, the rest of a word, digits, or punctuation as prose has it; no code, no other scripts.
TEXT = re.compile(r"[ ]?[A-Za-z][a-z]*|[ ]?[A-Z]{2,4}|[ ]?[0-9]+|[ ]?[.,;:!?'\"()\-]+|'[a-z]+|\n+|[ ]")
MIN_P = 0.05
"""A token is drawn only if it is at least this times as likely as the likeliest (min-p sampling,
arXiv:2407.01082), before temperature."""
REQUIRED_BONUS, REQUIRED_GROWTH = 2.0, 0.5
"""What the first token of a required word gains until one stands in the text, in nats, and what it gains a token."""
END_PENALTY = 3.0
"""What every end of a sentence loses until then, in nats; and before the text has MIN_TOKENS tokens."""
MIN_TOKENS = 7
LONG_AFTER, END_GROWTH = 12, 0.3
"""Once a text with a required word has LONG_AFTER tokens, its full stop gains END_GROWTH more a token, in nats."""


class Vocabulary:
    """The tokens that a call needs, numbered anew: those that may be generated, and those that are read."""

    def __init__(
        self, model: LoadedModel, prefix: Sequence[int], encoded: Sequence[Sequence[int]], words: set[str]
    ) -> None:
        tokenizer = model.tokenizer
        pieces, end = _pieces(tokenizer)[: len(model.head[0])], tokenizer.eos_token_id
        firsts = {
            word: tokenizer(word, add_special_tokens=False)["input_ids"][0]
            for word in [".", *(f" {word}" for word in words)]
        }
        # SentencePiece puts single characters last.
        text = {n for n, p in enumerate(pieces) if (n < FREQUENT or len(p) == 1) and TEXT.fullmatch(p)}
        read = {token for ids in encoded for token in ids}
        allowed = (text | read | set(firsts.values())) - set(tokenizer.all_special_ids) | ({end} - {None})
        known = sorted(allowed | read | set(prefix))
        self._numbers = {token: number for number, token in enumerate(known)}
        self.ids = torch.tensor(known, device=model.device)
        """The tokenizer's own numbers, int64 [V], rising."""
        self.pieces = [pieces[token] for token in known]
        self.first = {word.strip(): self._numbers[token] for word, token in firsts.items()}
        """The first token of each required word inside a sentence, and the full stop."""
        self.end = self._numbers.get(end)
        self.ends = torch.tensor(
            [t == end or bool(set(".!?\n") & set(p)) for t, p in zip(known, self.pieces, strict=True)],
            device=model.device,
        )
        self.forbidden = torch.tensor([token not in allowed for token in known], device=model.device)

    def numbers(self, ids: Sequence[int]) -> list[int]:
        """Return the new numbers of a text's tokens."""
        return [self._numbers[token] for token in ids]


def _pieces(tokenizer: Any) -> list[str]:
    """Return every token's text; SentencePiece marks blanks by ▁, byte-level BPE by Ġ and line ends by Ċ."""
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return [(token or "").replace("▁", " ").replace("Ġ", " ").replace("Ċ", "\n") for token in tokens]


class _Embedding(nn.Module):
    """A network's own embedding, of tokens that are numbered anew."""

    def __init__(self, original: nn.Module, ids: Tensor) -> None:
        super().__init__()
        self.original, self.ids = original, ids

    def forward(self, numbers: Tensor) -> Tensor:
        """Return the embeddings: int64 [n, t] -> [n, t, H]."""
        states: Tensor = self.original(self.ids[numbers])
        return states


class _Head(nn.Module):
    """The rows of the language-model head for the tokens of a vocabulary."""

    def __init__(self, model: LoadedModel, ids: Tensor) -> None:
        super().__init__()
        weight, bias = model.head
        self.weight, self.bias = nn.Buffer(weight[ids]), None if bias is None else nn.Buffer(bias[ids])

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the scores: [n, t, H] -> [n, t, V]."""
        # Of states that are a slice torch would multiply a copy of the weight a row.
        return nn.functional.linear(hidden.contiguous(), self.weight, self.bias)


def _causal_network(model: LoadedModel, ids: Tensor) -> Any:
    """Return the model's network, over the same weights, with the embedding and head of these tokens alone."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    config = copy.deepcopy(model.config)
    config.vocab_size, config.tie_word_embeddings = len(ids), False
    config.pad_token_id = config.eos_token_id = config.bos_token_id = None
    with torch.device("meta"), quiet_transformers():
        network = AutoModelForCausalLM.from_config(config)
    body: Any = replica_of(model.network)
    body.set_input_embeddings(_Embedding(body.get_input_embeddings(), ids))
    setattr(network, network.base_model_prefix, body)
    network.set_output_embeddings(_Head(model, ids))
    network.generation_config = GenerationConfig()
    return network.eval()


class _Batch(StoppingCriteria):
    """The texts of a batch on their way; says which of them are done."""

    def __init__(
        self, vocabulary: Vocabulary, openings: Sequence[Opening], end: re.Pattern[str] | None
    ) -> None:
        self.openings, self._vocabulary, self._end = openings, vocabulary, end
        self.said = [""] * len(openings)
        self.tokens = 0
        self.lengths: dict[int, int] = {}
        """Row -> tokens, of the texts that are done."""

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Note each row's newest token; return bool [rows]."""
        self.tokens += 1
        for row, number in enumerate(input_ids[:, -1].tolist()):
            self.said[row] += self._vocabulary.pieces[number]
            if number == self._vocabulary.end or (self._end is not None and self._end.search(self.said[row])):
                self.lengths.setdefault(row, self.tokens)
        return torch.tensor([row in self.lengths for row in range(len(self.said))], device=input_ids.device)


class _Draw(LogitsProcessor):
    """Draws each row's next token: makes required words likelier, keeps what is likely enough, and draws.

    Every text has uniform draws of its own, from its opening's seed. Its scores are rounded otherwise in another
    batch, so that it may still become another text there.
    """

    def __init__(self, vocabulary: Vocabulary, batch: _Batch, max_new_tokens: int) -> None:
        self._vocabulary, self._batch, device = vocabulary, batch, vocabulary.ids.device
        self._temperatures = torch.tensor([[o.temperature] for o in batch.openings], device=device)
        draws = [np.random.default_rng(o.seed).random(max_new_tokens, np.float32) for o in batch.openings]
        self._uniforms = torch.from_numpy(np.stack(draws)).to(device)
        self._words = [[word.lower() for word in o.required_words] for o in batch.openings]
        self._required = torch.zeros(len(batch.openings), len(vocabulary.ids), device=vocabulary.ids.device)
        for row, opening in enumerate(batch.openings):
            self._required[row, [vocabulary.first[word] for word in opening.required_words]] = 1.0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return 0 for the token drawn, -inf for the others: float32 [rows, V]."""
        said, tokens, device = self._batch.said, self._batch.tokens, scores.device
        if not scores.isfinite().all():
            raise CaptureError("The model's scores for the next token are not finite; generation stops here.")
        lacking = [
            bool(words) and not any(word in text.lower() for word in words)
            for words, text in zip(self._words, said, strict=True)
        ]
        lacks = torch.tensor(lacking, device=device)[:, None]
        wished = torch.tensor([bool(words) for words in self._words], device=device)[:, None]
        scores = scores + self._required * lacks * (REQUIRED_BONUS + REQUIRED_GROWTH * tokens)
        scores -= END_PENALTY * (lacks | wished & (tokens < MIN_TOKENS)) * self._vocabulary.ends
        scores[:, self._vocabulary.first["."]] += ~lacks[:, 0] * (END_GROWTH * max(0, tokens - LONG_AFTER))
        scores[:, self._vocabulary.forbidden] = -torch.inf
        best, likeliest = scores.max(dim=1, keepdim=True)
        scores = scores.masked_fill(scores < best + math.log(MIN_P), -torch.inf)
        weights = ((scores - best) / self._temperatures.clamp_min(1e-6)).exp().cumsum(dim=1)
        drawn = torch.searchsorted(weights, self._uniforms[:, tokens, None] * weights[:, -1:], right=True)
        drawn = torch.where(self._temperatures > 0, drawn, likeliest)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)


def continue_texts(
    model: LoadedModel, prefix: str, openings: Sequence[Opening], max_new_tokens: int, stop: str | None
) -> list[str]:
    """Return the continuations; see `encyclo.types.TextGenerator`.

    Raises UsageError where the model is not causal, for an empty prefix or opening, and where the model has too
    little room; CaptureError where its scores are not finite.
    """
    if not model.shares_prefixes:
        raise UsageError(
            f"The model {model.name!r} can't generate: it is no causal model whose attention transformers lets "
            f"encyclo follow; {WAY_OUT}."
        )
    start = model.tokenizer(prefix)["input_ids"]
    encoded = model.tokenizer([o.text for o in openings], add_special_tokens=False)["input_ids"]
    if not start or not all(encoded):
        raise UsageError("Generation needs a prefix and openings of at least one token each.")
    longest = max(map(len, encoded))
    if model.max_tokens is not None and len(start) + longest + max_new_tokens > model.max_tokens:
        raise UsageError(
            f"An opening of {longest} tokens after a prefix of {len(start)} leaves no room for {max_new_tokens} "
            f"more: the model {model.name!r} takes {model.max_tokens}; {WAY_OUT}."
        )
    vocabulary = Vocabulary(model, start, encoded, {w for o in openings for w in o.required_words})
    network = _causal_network(model, vocabulary.ids)
    end = None if stop is None else re.compile(stop)
    by_length = sorted(range(len(openings)), key=lambda n: len(encoded[n]))  # little padding
    texts = [""] * len(openings)
    with torch.inference_mode():
        prefix_ids = torch.tensor([vocabulary.numbers(start)], device=model.device)
        cache = DynamicCache(config=network.config)
        getattr(network, network.base_model_prefix)(
            input_ids=prefix_ids, past_key_values=cache, use_cache=True
        )
        for at in range(0, len(by_length), BATCH):
            chosen = by_length[at : at + BATCH]
            # Rows that only fill the batch up repeat its last text.
            filled = chosen + chosen[-1:] * (even_size(network, len(chosen)) - len(chosen))
            batch = _Batch(vocabulary, [openings[n] for n in filled], end)
            numbered = [vocabulary.numbers(encoded[n]) for n in filled]
            drawn = _generate(
                network,
                prefix_ids,
                cache,
                numbered,
                [_Draw(vocabulary, batch, max_new_tokens)],
                [batch],
                max_new_tokens,
            )
            for row, n in enumerate(chosen):
                ids = vocabulary.ids[drawn[row, : batch.lengths.get(row)]].tolist()
                texts[n] = _cut(model.tokenizer.decode(ids, skip_special_tokens=True), end)
    return texts


def _generate(
    network: Any,
    prefix: Tensor,
    cache: DynamicCache,
    numbered: Sequence[Sequence[int]],
    draw: list[LogitsProcessor],
    stop: list[StoppingCriteria],
    max_new_tokens: int,
) -> Tensor:
    """Return the numbers of the tokens drawn for each row: int64 [rows, at most max_new_tokens]."""
    longest = max(map(len, numbered))
    own = [[0] * (longest - len(text)) + list(text) for text in numbered]
    seen = [[0] * (longest - len(text)) + [1] * len(text) for text in numbered]
    before = prefix.expand(len(numbered), -1)
    asked = torch.cat([before, torch.tensor(own, device=prefix.device)], dim=1)
    known = copy.deepcopy(cache)
    known.batch_repeat_interleave(len(numbered))
    found: Tensor = network.generate(
        asked,
        attention_mask=torch.cat([torch.ones_like(before), torch.tensor(seen, device=prefix.device)], dim=1),
        past_key_values=known,
        max_new_tokens=max_new_tokens,
        do_sample=False,  # `_Draw` has drawn
        logits_processor=draw,
        stopping_criteria=stop,
    )
    return found[:, asked.shape[1] :]


def _cut(text: str, end: re.Pattern[str] | None) -> str:
    found = end.search(text) if end else None
    return text[: found.end()] if found else text
