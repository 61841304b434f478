"""Generation by transformers' own `generate`, under the same rules as encyclo's: what contexts.py compares with.

As fast as its hooks allow: the head is cut down to the tokens that may come, the prefix is read once and its cache
copied for each row, and a row's token is drawn among the likely ones alone.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from encyclo.types import Opening
from encyclo_capture.generation import engine
from encyclo_capture.generation.scoring_head import ScoringHead
from encyclo_capture.model import TransformersModel

ROWS = 128


class Head(nn.Linear):
    """A linear layer whose input is laid out anew: a batched product would copy the weight for every row."""

    def forward(self, hidden: Tensor) -> Tensor:
        flat = nn.functional.linear(hidden.reshape(-1, hidden.shape[-1]), self.weight)
        return flat.view(*hidden.shape[:-1], -1)


class Batch:
    """What draws and what stops the rows of one call of `generate`; ids: the tokens that its head scores."""

    def __init__(
        self,
        head: ScoringHead,
        openings: Sequence[Opening],
        encoded: list[list[int]],
        end: re.Pattern[str],
        began: int,
    ) -> None:
        self.head, self.end, self.began = head, end, began
        required = [
            sorted({head.first_token(w) for w in o.required_words})[: engine.MAX_REQUIRED] for o in openings
        ]
        own = [{*ids, *more} for ids, more in zip(encoded, required, strict=True)]
        self.ids = torch.tensor(sorted(head.allowed.union(*own)))
        column = {token: n for n, token in enumerate(self.ids.tolist())}
        self.mask = torch.full((len(openings), len(column)), -math.inf)
        self.mask[:, [column[i] for i in head.allowed]] = 0
        for row, ids in enumerate(own):
            self.mask[row, [column[i] for i in ids]] = 0
        self.required = [[column[i] for i in ids] for ids in required]
        ends = {i for i in column if i == head.end or set(".!?\n") & set(head.pieces[i])}
        self.ends, self.full_stop = [column[i] for i in ends], column[head.full_stop]
        self.words = [tuple(word.lower() for word in o.required_words) for o in openings]
        self.temperatures = torch.tensor([o.temperature for o in openings])
        self.generator = torch.Generator().manual_seed(openings[0].seed % 2**63)
        self.said, self.done = [""] * len(openings), [False] * len(openings)

    def draw(self, read: Tensor, scores: Tensor) -> Tensor:
        """Return scores of which the greatest is the token drawn: uint8 [rows, largest token + 1]."""
        length, scores = read.shape[1] - self.began, scores + self.mask
        for row, words in enumerate(self.words):
            if self.done[row]:
                continue
            lacks = bool(words) and not any(word in self.said[row].lower() for word in words)
            if lacks:
                scores[row, self.required[row]] += engine.REQUIRED_BONUS + engine.REQUIRED_GROWTH * length
            else:
                scores[row, self.full_stop] += engine.END_GROWTH * max(0, length - engine.LONG_AFTER)
            if lacks or (words and length < engine.MIN_TOKENS):
                scores[row, self.ends] -= engine.END_PENALTY
        likely = scores >= scores.amax(1, keepdim=True) + math.log(engine.MIN_P)
        rows, columns = likely.nonzero(as_tuple=True)
        noise = torch.empty(len(rows)).exponential_(generator=self.generator).log()
        keys = scores[rows, columns] / self.temperatures[rows] - noise
        best = torch.full((len(scores),), -math.inf).scatter_reduce(0, rows, keys, "amax")
        won = keys == best[rows]
        tokens = torch.zeros(len(scores), dtype=torch.int64)
        tokens[rows[won]] = self.ids[columns[won]]
        chosen = torch.zeros(len(scores), int(tokens.max()) + 1, dtype=torch.uint8)
        return chosen.scatter_(1, tokens[:, None], 1)

    def stops(self, read: Tensor, scores: Any, **_: Any) -> Tensor:
        """Return which rows are done: bool [rows]."""
        for row, token in enumerate(read[:, -1].tolist()):
            if self.done[row]:
                continue
            if token != self.head.end:
                self.said[row] += self.head.pieces[token]
            self.done[row] = token == self.head.end or bool(self.end.search(self.said[row]))
        return torch.tensor(self.done)


class LibraryGeneration:
    """The network that encyclo has loaded, as a transformers model that generates."""

    def __init__(self, model: TransformersModel) -> None:
        from transformers import AutoModelForCausalLM

        self.model, self.weight = model, model.head[0]
        with torch.device("meta"):
            self.causal: Any = AutoModelForCausalLM.from_config(model.config).eval()
            self.causal.lm_head = Head(1, 1, bias=False)
        setattr(self.causal, self.causal.base_model_prefix, model.network)

    def generate(self, prefix: str, openings: Sequence[Opening], max_new_tokens: int, stop: str) -> list[str]:
        """Continue prefix + each opening, as `TransformersModel.generate` does; a batch has one seed."""
        end, tokenizer = re.compile(stop), self.model.tokenizer
        start = tokenizer(prefix)["input_ids"]
        encoded = tokenizer([o.text for o in openings], add_special_tokens=False)["input_ids"]
        by_length = sorted(range(len(openings)), key=lambda n: len(encoded[n]))
        texts = [""] * len(openings)
        with torch.inference_mode():
            read = self.model.network(input_ids=torch.tensor([start]), use_cache=True).past_key_values
            for first in range(0, len(by_length), ROWS):
                numbers = by_length[first : first + ROWS]
                said = self._batch(
                    start,
                    read,
                    [openings[n] for n in numbers],
                    [encoded[n] for n in numbers],
                    max_new_tokens,
                    end,
                )
                for n, text in zip(numbers, said, strict=True):
                    match = end.search(text)
                    texts[n] = text[: match.end()] if match else text
        return texts

    def _batch(
        self,
        start: list[int],
        read: Any,
        openings: list[Opening],
        encoded: list[list[int]],
        longest: int,
        end: re.Pattern[str],
    ) -> list[str]:
        from transformers import LogitsProcessorList, StoppingCriteriaList

        width, pad = max(map(len, encoded)), self.model.tokenizer.pad_token_id
        ids = torch.tensor([start + [pad] * (width - len(own)) + own for own in encoded])
        mask = torch.tensor([[1] * len(start) + [0] * (width - len(own)) + [1] * len(own) for own in encoded])
        batch = Batch(self.model.scoring_head, openings, encoded, end, ids.shape[1])
        self.causal.lm_head.weight = nn.Parameter(self.weight[batch.ids], requires_grad=False)
        cache = copy.deepcopy(read)
        cache.batch_repeat_interleave(len(openings))
        self.causal.generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            max_new_tokens=longest,
            do_sample=False,
            pad_token_id=pad,
            logits_processor=LogitsProcessorList([batch.draw]),
            stopping_criteria=StoppingCriteriaList([batch.stops]),
        )
        return batch.said
