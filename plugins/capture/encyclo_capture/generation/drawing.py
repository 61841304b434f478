"""Draws the tokens of a batch of texts, so that each names its word and ends in time."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from encyclo.errors import CaptureError
from encyclo.types import Opening
from encyclo_capture.generation.vocabulary import Vocabulary

MIN_P = 0.05
"""A token is drawn only if it is at least this times as likely as the likeliest (min-p sampling,
arXiv:2407.01082), before temperature."""
REQUIRED_BONUS, REQUIRED_GROWTH = 2.0, 0.5
"""The bonus of a required word's first token until the text contains the word, in nats, and its growth per token."""
END_PENALTY = 3.0
"""The penalty of every end of a sentence until then, and until the text has MIN_TOKENS tokens, in nats."""
MIN_TOKENS = 7
LONG_AFTER, END_GROWTH = 12, 0.3
"""From LONG_AFTER tokens on, the full stop of a text that lacks no word gains END_GROWTH per token, in nats."""


class Batch:
    """Texts that grow together, one token each at a time; `generate` calls `draw`, then `has_ended`.

    Each text has its own uniform draws, from its opening's seed.
    """

    def __init__(
        self,
        openings: Sequence[Opening],
        vocabulary: Vocabulary,
        max_new_tokens: int,
        stop: re.Pattern[str] | None,
    ) -> None:
        device = vocabulary.ids.device
        self._vocabulary, self._stop = vocabulary, stop
        self.drawn: list[list[int]] = [[] for _ in openings]
        """The numbers of each text's tokens."""
        self._texts = [""] * len(openings)
        self._ended = [False] * len(openings)
        self._step = 0
        self._words = [[word.lower() for word in opening.required_words] for opening in openings]
        self._named = torch.tensor([[bool(words)] for words in self._words], device=device)
        self._first = torch.zeros(len(openings), len(vocabulary.ids), device=device)
        for row, opening in enumerate(openings):
            self._first[row, [n for word in opening.required_words for n in vocabulary.first[word]]] = 1.0
        self._temperatures = torch.tensor([[opening.temperature] for opening in openings], device=device)
        draws = [np.random.default_rng(o.seed).random(max_new_tokens, np.float32) for o in openings]
        self._uniforms = torch.from_numpy(np.stack(draws, axis=1)).to(device)

    def draw(self, _: Tensor, scores: Tensor) -> Tensor:
        """Draw a token of each text: float32 [texts, V] -> 0 for the token drawn, -inf for the others.

        Raises CaptureError if a score is not finite.
        """
        if not scores.isfinite().all():
            raise CaptureError(
                "The model's scores for the next token are not finite, so it can't generate; switch generation off "
                "with -o diverse.generated=0."
            )
        scores = self._adjusted(scores)
        best, likeliest = scores.max(dim=1, keepdim=True)
        scores = scores.masked_fill(scores < best + math.log(MIN_P), -torch.inf)
        odds = ((scores - best) / self._temperatures.clamp_min(1e-6)).exp().cumsum(dim=1)
        drawn = torch.searchsorted(odds, self._uniforms[self._step, :, None] * odds[:, -1:], right=True)
        drawn = torch.where(self._temperatures > 0, drawn, likeliest)
        self._append(drawn[:, 0].tolist())
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)

    def has_ended(self, ids: Tensor, *_: object, **__: object) -> Tensor:
        """Return which texts have ended: bool [texts]."""
        return torch.tensor(self._ended, device=ids.device)

    def _adjusted(self, scores: Tensor) -> Tensor:
        """Favour required words, then ends of sentences; forbid the tokens that are only read."""
        lacks = torch.tensor(
            [
                [bool(words) and not any(word in text.lower() for word in words)]
                for words, text in zip(self._words, self._texts, strict=True)
            ],
            device=scores.device,
        )
        early = lacks | self._named & (self._step < MIN_TOKENS)
        scores = scores + self._first * lacks * (REQUIRED_BONUS + REQUIRED_GROWTH * self._step)
        scores -= END_PENALTY * early * self._vocabulary.ends
        scores[:, self._vocabulary.first["."]] += ~lacks * (END_GROWTH * max(0, self._step - LONG_AFTER))
        return scores.masked_fill_(self._vocabulary.forbidden, -torch.inf)

    def _append(self, numbers: Sequence[int]) -> None:
        self._step += 1
        for row, number in enumerate(numbers):
            if self._ended[row]:
                continue
            self.drawn[row].append(number)
            self._texts[row] += self._vocabulary.pieces[number]
            matched = self._stop is not None and self._stop.search(self._texts[row])
            self._ended[row] = number == self._vocabulary.end or bool(matched)
