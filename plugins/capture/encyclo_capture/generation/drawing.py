"""Draws the tokens of a batch of texts, so that each names its word and ends in time."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

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

DROPPED_FROM = 3 / 4
"""Ended texts are dropped from the passes when at most this share goes on: dropping copies keys and values."""


class Batch:
    """Texts that grow together, one token each at a time; `generate` calls `draw`, then `has_ended`.

    Each text has its own uniform draws, from its opening's seed. The network computes the `going` texts alone: those
    that have not ended, and a few that have.
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
        self._forbidden, self._ends = (
            marks.nonzero()[:, 0] for marks in (vocabulary.forbidden, vocabulary.ends)
        )
        self.drawn: list[list[int]] = [[] for _ in openings]
        """The numbers of each text's tokens."""
        self.going = list(range(len(openings)))
        self._texts = [""] * len(openings)
        self._ended = [False] * len(openings)
        self._step = 0
        self._words = [[word.lower() for word in opening.required_words] for opening in openings]
        self._first = [
            sorted({n for word in opening.required_words for n in vocabulary.first[word]})
            for opening in openings
        ]
        self._temperatures = torch.tensor([[opening.temperature] for opening in openings], device=device)
        draws = [np.random.default_rng(o.seed).random(max_new_tokens, np.float32) for o in openings]
        self._uniforms = torch.from_numpy(np.stack(draws, axis=1)).to(device)
        self._choice = torch.full((len(openings), len(vocabulary.ids)), -torch.inf, device=device)
        self._chosen: tuple[Tensor, Tensor] | None = None

    def drop_ended(self, size: Callable[[int], int]) -> list[int] | None:
        """Leave ended texts out of `going` once a quarter has ended; return the places of those that stay in it.

        `size` gives the number of texts to go on with, at least the number given; None if all stay.
        """
        live = [place for place, text in enumerate(self.going) if not self._ended[text]]
        count = size(len(live))
        if count > len(self.going) * DROPPED_FROM:
            return None
        ended = [place for place, text in enumerate(self.going) if self._ended[text]]
        stay = sorted(live + ended[: count - len(live)])
        self.going = [self.going[place] for place in stay]
        return stay

    def draw(self, _: Tensor, scores: Tensor) -> Tensor:
        """Draw a token of each `going` text: float32 [going, V] -> [texts, V], 0 for the token drawn, -inf for others.

        Raises CaptureError if a score is not finite.
        """
        if not torch.stack(scores.aminmax()).isfinite().all():
            raise CaptureError(
                "The model's scores for the next token are not finite, so it can't generate; switch generation off "
                "with -o diverse.generated=0."
            )
        scores = self._adjusted(scores)
        best, likeliest = scores.max(dim=1, keepdim=True)
        numbers, kept = _likely(scores, best + math.log(MIN_P))
        temperatures = self._temperatures[self.going]
        odds = ((kept - best) / temperatures.clamp_min(1e-6)).exp().cumsum(dim=1)
        uniforms = self._uniforms[self._step, self.going, None]
        places = torch.searchsorted(odds, uniforms * odds[:, -1:], right=True).clamp_max(odds.shape[1] - 1)
        drawn = torch.where(temperatures > 0, numbers.gather(1, places), likeliest)[:, 0]
        self._append(drawn.tolist())
        if self._chosen is not None:
            self._choice[self._chosen] = -torch.inf
        self._chosen = torch.tensor(self.going, device=drawn.device), drawn
        self._choice[self._chosen] = 0.0
        return self._choice

    def has_ended(self, ids: Tensor, *_: object, **__: object) -> Tensor:
        """Return which texts have ended: bool [texts]."""
        return torch.tensor(self._ended, device=ids.device)

    def _adjusted(self, scores: Tensor) -> Tensor:
        """Favour required words, then ends of sentences; forbid the tokens that are only read."""
        lacking = [not self._has_word(text) for text in self.going]
        early = [
            lacks or (self._step < MIN_TOKENS and bool(self._words[text]))
            for lacks, text in zip(lacking, self.going, strict=True)
        ]
        favoured = [
            (row, n) for row, text in enumerate(self.going) if lacking[row] for n in self._first[text]
        ]
        if favoured:
            rows, numbers = torch.tensor(favoured, device=scores.device).unbind(1)
            scores[rows, numbers] += REQUIRED_BONUS + REQUIRED_GROWTH * self._step
        lacks, is_early = torch.tensor([lacking, early], device=scores.device)[..., None]
        scores[:, self._ends] -= END_PENALTY * is_early
        scores[:, self._vocabulary.first["."]] += ~lacks * (END_GROWTH * max(0, self._step - LONG_AFTER))
        scores[:, self._forbidden] = -torch.inf
        return scores

    def _has_word(self, text: int) -> bool:
        """Return whether a text contains a word that it requires, or requires none."""
        said = self._texts[text].lower()
        return not self._words[text] or any(word in said for word in self._words[text])

    def _append(self, numbers: Sequence[int]) -> None:
        self._step += 1
        for text, number in zip(self.going, numbers, strict=True):
            if self._ended[text]:
                continue
            self.drawn[text].append(number)
            self._texts[text] += self._vocabulary.pieces[number]
            matched = self._stop is not None and self._stop.search(self._texts[text])
            self._ended[text] = number == self._vocabulary.end or bool(matched)


def _likely(scores: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
    """Return the numbers of each row's scores of at least `least`, ascending, and the scores: [rows, most] each.

    Shorter rows are filled with their last number and the score -inf.
    """
    rows, columns = (scores >= least).nonzero(as_tuple=True)
    counts = rows.bincount(minlength=len(scores))
    places = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    most = int(counts.max())
    last = columns[counts.cumsum(0) - 1]
    numbers = last[:, None].repeat(1, most)
    kept = scores.new_full((len(scores), most), -torch.inf)
    numbers[rows, places] = columns
    kept[rows, places] = scores[rows, columns]
    return numbers, kept
