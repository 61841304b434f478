"""Continuing many texts that share a beginning, so that none of them depends on the others.

The shared prefix goes through the network once; its keys and values serve every text. The texts are rows of a
batch of one fixed shape: a row that is done makes room for the next text. A processor rounds a row of a matrix
product the same way wherever it stands and whatever stands beside it, as long as the shapes are the same, so
that a text depends on its prefix, its opening and its seed alone, in bfloat16 too.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encyclo.errors import CaptureError, UsageError
from encyclo.types import Opening
from encyclo_capture.generation.prefix_attention import Rows, attending, even_threads
from encyclo_capture.generation.scoring_head import WAY_OUT, ScoringHead
from encyclo_capture.loading.loaded_model import LoadedModel

ROWS = 128
"""Texts that go on at once. More are hardly faster a text, and the last ones run alone for longer."""
ROOM = 16
"""An opening is given room for a multiple of so many tokens: openings of one length class share a batch."""
MAX_REQUIRED = 8
"""First tokens of required words that a text may have at most; more are left out."""
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


@dataclass
class _Text:
    """A text on its way: what is read before it, and what has been drawn so far."""

    opening: tuple[int, ...]
    rare: NDArray[np.int64]
    required_tokens: NDArray[np.bool_]
    """Which of `rare` begin a required word."""
    required_words: tuple[str, ...]
    temperature: float
    uniforms: NDArray[np.float64]
    drawn: list[int] = field(default_factory=list)
    said: str = ""
    fed: int = 0

    @property
    def lacks_required(self) -> bool:
        """Whether the text still holds none of the required words."""
        return bool(self.required_words) and not any(
            word in self.said.lower() for word in self.required_words
        )

    @property
    def too_early(self) -> bool:
        """Whether the text should not end yet."""
        return self.lacks_required or (bool(self.required_words) and len(self.drawn) < MIN_TOKENS)

    def bonus(self) -> NDArray[np.float32]:
        """Return what each of `rare` gains now, in nats; the last is the full stop."""
        gains = np.zeros(len(self.rare), np.float32)
        length = len(self.drawn)
        if self.lacks_required:
            gains[self.required_tokens] = REQUIRED_BONUS + REQUIRED_GROWTH * length
        else:
            gains[-1] = END_GROWTH * max(0, length - LONG_AFTER)
        return gains


def continue_texts(
    model: LoadedModel,
    head: ScoringHead,
    prefix: str,
    openings: Sequence[Opening],
    max_new_tokens: int,
    stop: str | None,
) -> list[str]:
    """Return the continuations; see `encyclo.types.TextGenerator`.

    Raises UsageError for an empty prefix or opening, and where the model has too little room.
    """
    start = tuple(model.tokenizer(prefix)["input_ids"])
    if not start:
        raise UsageError("Generation needs a prefix of at least one token.")
    end = None if stop is None else re.compile(stop)
    texts: list[_Text] = []
    by_room: dict[int, deque[_Text]] = {}
    encoded = model.tokenizer([o.text for o in openings], add_special_tokens=False)["input_ids"]
    for opening, ids in zip(openings, encoded, strict=True):
        room = ROOM * max(1, math.ceil(len(ids) / ROOM))
        if model.max_tokens is not None and len(start) + room + max_new_tokens > model.max_tokens:
            raise UsageError(
                f"An opening of {room} tokens after a prefix of {len(start)} leaves no room for {max_new_tokens} "
                f"more: the model {model.name!r} takes {model.max_tokens}; {WAY_OUT}."
            )
        texts.append(_begin(opening, ids, room, head, max_new_tokens))
        by_room.setdefault(room, deque()).append(texts[-1])
    with torch.inference_mode(), even_threads():
        for room, waiting in sorted(by_room.items()):
            _continue_class(model, head, start, waiting, room + max_new_tokens, end)
    return [_cut(model.tokenizer.decode(text.drawn, skip_special_tokens=True), end) for text in texts]


def _cut(text: str, end: re.Pattern[str] | None) -> str:
    found = end.search(text) if end else None
    return text[: found.end()] if found else text


def _begin(opening: Opening, ids: list[int], room: int, head: ScoringHead, longest: int) -> _Text:
    if not ids:
        raise UsageError("Generation needs openings of at least one token each.")
    required = sorted({head.first_token(word) for word in opening.required_words})[:MAX_REQUIRED]
    seldom = sorted({i for i in ids if i not in head.allowed and i not in required})
    rare = np.full(room + MAX_REQUIRED + 1, -1, np.int64)
    rare[: len(seldom)] = seldom
    rare[room : room + len(required)] = required
    rare[-1] = head.full_stop
    begins_required = np.arange(len(rare)) >= room
    begins_required[-1] = False
    words = tuple(word.lower() for word in opening.required_words)
    uniforms = np.random.default_rng(opening.seed).random(longest)
    return _Text(tuple(ids), rare, begins_required, words, opening.temperature, uniforms)


def _continue_class(
    model: LoadedModel,
    head: ScoringHead,
    start: tuple[int, ...],
    waiting: deque[_Text],
    room: int,
    end: re.Pattern[str] | None,
) -> None:
    """Continue the texts of one length class, each with room for so many tokens of its own."""
    device = model.device
    places = np.zeros(ROWS, np.int64)
    rows = Rows(torch.zeros(ROWS, dtype=torch.int64, device=device), room)
    rare = np.full((ROWS, len(waiting[0].rare)), -1, np.int64)
    at: list[_Text | None] = [None] * ROWS
    with attending(model.network, rows):
        model.network(
            input_ids=torch.tensor([start], device=device),
            position_ids=torch.arange(len(start), device=device)[None],
            use_cache=False,
        )
        rows.reading_prefix = False
        while waiting or any(text is not None for text in at):
            tokens = _feed(at, waiting, rare, places)
            rows.place = torch.from_numpy(places).to(device)
            hidden = model.network(
                input_ids=torch.from_numpy(tokens)[:, None].to(device),
                position_ids=(rows.place + len(start))[:, None],
                use_cache=False,
            ).last_hidden_state[:, 0]
            drawing = [(row, text) for row, text in enumerate(at) if text and text.fed >= len(text.opening)]
            if not drawing:
                continue
            for (row, text), token in zip(drawing, _draw(head, hidden, rare, drawing), strict=True):
                if not _goes_on(head, text, token, end):
                    at[row] = None


def _feed(
    at: list[_Text | None], waiting: deque[_Text], rare: NDArray[np.int64], places: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the token that each row reads next, and note its place; a free row takes the next text."""
    tokens = np.zeros(ROWS, np.int64)
    for row in range(ROWS):
        text = at[row]
        if text is None and waiting:
            text = at[row] = waiting.popleft()
            rare[row] = text.rare
        if text is not None:
            opened = text.fed < len(text.opening)
            tokens[row] = text.opening[text.fed] if opened else text.drawn[-1]
            places[row] = text.fed
            text.fed += 1
    return tokens


def _draw(
    head: ScoringHead, hidden: Tensor, rare: NDArray[np.int64], drawing: list[tuple[int, _Text]]
) -> list[int]:
    """Draw the next token of each row in `drawing` by the text's own uniform draws."""
    rows, tokens, scores = _likely(head, hidden, rare, drawing)
    first = np.searchsorted(rows, np.arange(ROWS + 1))
    chosen = []
    for row, text in drawing:
        own = slice(first[row], first[row + 1])
        values = scores[own]
        if not np.isfinite(values).all() or not len(values):
            raise CaptureError("The model's scores for the next token are not finite; generation stops here.")
        if text.temperature <= 0:
            chosen.append(int(tokens[own][values.argmax()]))
            continue
        weights = np.exp((values - values.max()) / text.temperature).cumsum()
        pick = np.searchsorted(weights, text.uniforms[len(text.drawn)] * weights[-1], side="right")
        chosen.append(int(tokens[own][min(pick, len(weights) - 1)]))
    return chosen


def _likely(
    head: ScoringHead, hidden: Tensor, rare: NDArray[np.int64], drawing: list[tuple[int, _Text]]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return (row, token, score) of the tokens that are likely enough (MIN_P), sorted by row and token."""
    gains, penalty = np.zeros(rare.shape, np.float32), np.zeros((ROWS, 1), np.float32)
    for row, text in drawing:
        gains[row] = text.bonus()
        penalty[row] = END_PENALTY * text.too_early
    often, seldom = head.score(hidden, torch.from_numpy(rare).to(hidden.device))
    seldom += torch.from_numpy(gains).to(hidden.device, seldom.dtype)
    often[:, head.ends] -= torch.from_numpy(penalty).to(hidden.device, often.dtype)
    best = torch.maximum(often.amax(dim=1), seldom.amax(dim=1)).float()
    least = (best + math.log(MIN_P)).to(often.dtype)[:, None]
    rows, columns, values = [], [], []
    for scores in (often, seldom):
        row_numbers, column_numbers = (scores >= least).nonzero(as_tuple=True)
        rows.append(row_numbers.cpu().numpy())
        columns.append(column_numbers.cpu().numpy())
        values.append(scores[row_numbers, column_numbers].float().cpu().numpy())
    tokens = np.concatenate([head.ids.cpu().numpy()[columns[0]], rare[rows[1], columns[1]]])
    owner = np.concatenate(rows)
    order = np.lexsort((tokens, owner))
    return owner[order], tokens[order], np.concatenate(values).astype(np.float64)[order]


def _goes_on(head: ScoringHead, text: _Text, token: int, end: re.Pattern[str] | None) -> bool:
    """Put the token behind the text; return whether there is more to come."""
    if token == head.end:
        return False
    text.drawn.append(token)
    text.said += head.pieces[token]
    if end is not None and end.search(text.said):
        return False
    return len(text.drawn) < len(text.uniforms)
