"""Continuing many texts that share a beginning, so that none of them depends on the others.

The shared prefix goes through the network once; its keys and values serve every text. The texts are rows of a
batch of one fixed shape: a row that is done makes room for the next text. A processor rounds a row of a matrix
product the same way wherever it stands and whatever stands beside it, as long as the shapes are the same, so
that a text depends on its prefix, its opening and its seed alone, in bfloat16 too.

The head is most of a small model's work. It is computed for frequent tokens of English text, and for the
tokens of the row's own opening, which may be rare.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encyclo.errors import CaptureError, UsageError
from encyclo.types import Opening
from encyclo_capture.rows import Rows, attending, even_threads

if TYPE_CHECKING:
    from encyclo_capture.model import TransformersModel

Stop = Callable[[str], int | None]
More = Callable[[int, str], Sequence[Opening]]

WAY_OUT = "switch generation off with -o diverse.generated=0"
ROWS = 128
"""Texts that go on at once. More are hardly faster a text, and the last ones run alone for longer."""
ROOM = 16
"""An opening is given room for a multiple of so many tokens: openings of one length class share a batch."""
FREQUENT = 2**15
"""Token ids below this may be generated: tokenizers number what they learnt in falling frequency."""
WISHES = 8
"""A text may have so many wished-for first tokens; more are left out."""
LEAST = 0.05
"""A token is drawn only if it is at least this times as likely as the likeliest (min-p sampling,
arXiv:2407.01082), before temperature."""
WISH, WISH_GROWS = 2.0, 0.5
"""What the first token of a wished-for word gains until it stands in the text, in nats, and gains more a token."""
HOLD = 3.0
"""What every end of a sentence loses until then, in nats; and before the text has SHORTEST tokens."""
SHORTEST = 7
SHORT, END_GROWS = 12, 0.3
"""After so many tokens of a text that has what was wished for, its full stop gains so much more a token."""
# A blank and a word, the rest of a word, digits, or punctuation as prose has it; no code, no other scripts.
TEXT = re.compile(r"[ ]?[A-Za-z][a-z]*|[ ]?[A-Z]{2,4}|[ ]?[0-9]+|[ ]?[.,;:!?'\"()\-]+|'[a-z]+|\n+|[ ]")


class Head:
    """The network's way from a hidden state to the scores of the tokens that may come next."""

    def __init__(self, model: TransformersModel) -> None:
        self.weight, self.bias = model.head
        config = model.config
        self.cap = getattr(config, "final_logit_softcapping", None)
        self.scale = float(getattr(config, "logit_scale", None) or 1.0)
        self.scale /= float(getattr(config, "logits_scaling", None) or 1.0)
        self.pieces = _pieces(model.tokenizer)
        special = set(model.tokenizer.all_special_ids)
        self.end = model.tokenizer.eos_token_id
        ids = [
            i
            for i, piece in enumerate(self.pieces[: self.weight.shape[0]])
            # SentencePiece puts single characters last.
            if (i < FREQUENT or len(piece) == 1) and i not in special and TEXT.fullmatch(piece)
        ]
        ids += [self.end] if self.end is not None else []
        self.ids = torch.tensor(sorted(ids), device=self.weight.device)
        self.allowed = frozenset(ids)
        self.frequent = self.weight[self.ids]
        ends = [n for n, i in enumerate(sorted(ids)) if i == self.end or set(".!?\n") & set(self.pieces[i])]
        self.ends = torch.tensor(ends, device=self.weight.device)
        self._tokenizer = model.tokenizer
        self.full_stop = self.first_token(".", blank="")

    def first_token(self, word: str, blank: str = " ") -> int:
        """Return the first token of a word inside a sentence."""
        ids = self._tokenizer(blank + word, add_special_tokens=False)["input_ids"]
        return int(ids[0]) if ids else -1

    def score(self, hidden: Tensor, rare: Tensor) -> tuple[Tensor, Tensor]:
        """Score hidden [n, H] against the frequent tokens and `rare` int64 [n, k] (-1: none): [n, F], [n, k]."""
        often = torch.nn.functional.linear(hidden, self.frequent, self._own(self.ids))
        seldom = torch.matmul(self.weight[rare.clamp_min(0)], hidden[:, :, None])[..., 0]
        if self.bias is not None:
            seldom = seldom + self.bias[rare.clamp_min(0)]
        often, seldom = (self._bend(x) for x in (often, seldom))
        return often, seldom.masked_fill(rare < 0, float("-inf"))

    def _own(self, ids: Tensor) -> Tensor | None:
        return None if self.bias is None else self.bias[ids]

    def _bend(self, scores: Tensor) -> Tensor:
        if self.scale != 1.0:
            scores = scores * self.scale
        return scores if self.cap is None else torch.tanh(scores / self.cap) * self.cap


def _pieces(tokenizer: Any) -> list[str]:
    """Return every token's text; SentencePiece marks blanks by ▁, byte-level BPE by Ġ and line ends by Ċ."""
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return [(token or "").replace("▁", " ").replace("Ġ", " ").replace("Ċ", "\n") for token in tokens]


@dataclass
class _Text:
    """A text on its way: what is read before it, and what has been drawn so far."""

    position: int
    opening: tuple[int, ...]
    rare: NDArray[np.int64]
    wished: NDArray[np.bool_]
    wishes: tuple[str, ...]
    temperature: float
    luck: NDArray[np.float64]
    drawn: list[int] = field(default_factory=list)
    said: str = ""
    fed: int = 0

    @property
    def lacks_wish(self) -> bool:
        """Whether the text holds none of the words wished for."""
        return bool(self.wishes) and not any(wish in self.said.lower() for wish in self.wishes)

    @property
    def held(self) -> bool:
        """Whether the text should not end yet."""
        return self.lacks_wish or (bool(self.wishes) and len(self.drawn) < SHORTEST)

    def bonus(self) -> NDArray[np.float32]:
        """Return what each of `rare` gains now, in nats; the last is the full stop."""
        gains = np.zeros(len(self.rare), np.float32)
        length = len(self.drawn)
        if self.lacks_wish:
            gains[self.wished] = WISH + WISH_GROWS * length
        else:
            gains[-1] = END_GROWS * max(0, length - SHORT)
        return gains


class _Work:
    """What is to be continued, by length class, and what has been said."""

    def __init__(
        self,
        model: TransformersModel,
        start: tuple[int, ...],
        max_new_tokens: int,
        stop: Stop | None,
        more: More | None,
    ) -> None:
        self.model, self.start, self.longest, self.stop, self.more = model, start, max_new_tokens, stop, more
        self.head = model.scoring_head
        self.texts: list[str] = []
        self.waiting: dict[int, deque[_Text]] = {}

    def take(self, openings: Sequence[Opening], first: bool = False) -> None:
        """Let the openings wait, at the places that follow; before all others if they are to be `first`."""
        if not openings:
            return
        encoded = self.model.tokenizer([o.text for o in openings], add_special_tokens=False)["input_ids"]
        for opening, ids in zip(openings, encoded, strict=True):
            room = ROOM * max(1, math.ceil(len(ids) / ROOM))
            self._check_room(room)
            text = _begin(len(self.texts), opening, ids, room, self.head, self.longest)
            waiting = self.waiting.setdefault(room, deque())
            waiting.appendleft(text) if first else waiting.append(text)
            self.texts.append("")

    def next_class(self) -> int | None:
        """Return the smallest room that texts wait for; None where none do."""
        return min((room for room, waiting in self.waiting.items() if waiting), default=None)

    def end(self, text: _Text) -> None:
        """Keep what a text says; whatever is to be said because of it goes before all that waits."""
        said: str = self.model.tokenizer.decode(text.drawn, skip_special_tokens=True)
        said = said if self.stop is None else said[: self.stop(said)]
        self.texts[text.position] = said
        if self.more is not None:
            self.take(self.more(text.position, said), first=True)

    def _check_room(self, room: int) -> None:
        most, before = self.model.max_tokens, len(self.start)
        if most is not None and before + room + self.longest > most:
            raise UsageError(
                f"An opening of {room} tokens after a prefix of {before} leaves no room for {self.longest} more: "
                f"the model {self.model.name!r} takes {most}; {WAY_OUT}."
            )


def continue_texts(
    model: TransformersModel,
    prefix: str,
    openings: Sequence[Opening],
    max_new_tokens: int,
    stop: Stop | None,
    more: More | None = None,
) -> list[str]:
    """Return the continuations; see `encyclo.types.Model.generate`.

    Raises UsageError where the model is not causal, or its attention can't be followed.
    """
    if not openings:
        return []
    if not model.shares_prefixes:
        raise UsageError(
            f"The model {model.name!r} can't generate: it is no causal model whose attention transformers lets "
            f"encyclo follow; {WAY_OUT}."
        )
    start = tuple(model.tokenizer(prefix)["input_ids"])
    if not start:
        raise UsageError("Generation needs a prefix of at least one token.")
    work = _Work(model, start, max_new_tokens, stop, more)
    work.take(openings)
    with torch.inference_mode(), even_threads():
        while (room := work.next_class()) is not None:
            _continue_class(work, room)
    return work.texts


def _begin(position: int, opening: Opening, ids: list[int], room: int, head: Head, longest: int) -> _Text:
    if not ids:
        raise UsageError("Generation needs openings of at least one token each.")
    wished = sorted({head.first_token(wish) for wish in opening.wishes})[:WISHES]
    seldom = sorted({i for i in ids if i not in head.allowed and i not in wished})
    rare = np.full(room + WISHES + 1, -1, np.int64)
    rare[: len(seldom)] = seldom
    rare[room : room + len(wished)] = wished
    rare[-1] = head.full_stop
    is_wish = np.arange(len(rare)) >= room
    is_wish[-1] = False
    wishes = tuple(wish.lower() for wish in opening.wishes)
    luck = np.random.default_rng(opening.seed).random(longest)
    return _Text(position, tuple(ids), rare, is_wish, wishes, opening.temperature, luck)


def _continue_class(work: _Work, room: int) -> None:
    """Continue the texts of one length class, those that come up on the way too."""
    model, head, start, waiting = work.model, work.head, work.start, work.waiting[room]
    device = model.device
    places = np.zeros(ROWS, np.int64)
    rows = Rows(torch.zeros(ROWS, dtype=torch.int64, device=device), room + work.longest)
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
            gains, hold = np.zeros(rare.shape, np.float32), np.zeros((ROWS, 1), np.float32)
            for row, text in drawing:
                gains[row] = text.bonus()
                hold[row] = HOLD * text.held
            often, seldom = head.score(hidden, torch.from_numpy(rare).to(device))
            seldom += torch.from_numpy(gains).to(device, seldom.dtype)
            often[:, head.ends] -= torch.from_numpy(hold).to(device, often.dtype)
            for (row, text), token in zip(drawing, _draw(head, often, seldom, rare, drawing), strict=True):
                if not _goes_on(head, text, token, work.stop):
                    at[row] = None
                    work.end(text)


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
    head: Head, often: Tensor, seldom: Tensor, rare: NDArray[np.int64], drawing: list[tuple[int, _Text]]
) -> list[int]:
    """Draw each row's next token by its own luck, from the tokens that are likely enough (LEAST)."""
    best = torch.maximum(often.amax(dim=1), seldom.amax(dim=1)).float()
    least = (best + math.log(LEAST)).to(often.dtype)[:, None]
    found = []
    for scores in (often, seldom):
        row, column = (scores >= least).nonzero(as_tuple=True)
        found.append((row.cpu().numpy(), column.cpu().numpy(), scores[row, column].float().cpu().numpy()))
    ids = head.ids.cpu().numpy()
    (row_often, often_column, score), (row_seldom, own_column, own_score) = found
    rows = np.concatenate([row_often, row_seldom])
    tokens = np.concatenate([ids[often_column], rare[row_seldom, own_column]])
    scores_found = np.concatenate([score, own_score]).astype(np.float64)
    order = np.lexsort((tokens, rows))
    rows, tokens, scores_found = rows[order], tokens[order], scores_found[order]
    first = np.searchsorted(rows, np.arange(ROWS + 1))
    chosen = []
    for row_number, text in drawing:
        own = slice(first[row_number], first[row_number + 1])
        values = scores_found[own]
        if not np.isfinite(values).all() or not len(values):
            raise CaptureError("The model's scores for the next token are not finite; generation stops here.")
        if text.temperature <= 0:
            chosen.append(int(tokens[own][values.argmax()]))
            continue
        weights = np.exp((values - values.max()) / text.temperature).cumsum()
        pick = np.searchsorted(weights, text.luck[len(text.drawn)] * weights[-1], side="right")
        chosen.append(int(tokens[own][min(pick, len(weights) - 1)]))
    return chosen


def _goes_on(head: Head, text: _Text, token: int, stop: Stop | None) -> bool:
    """Put the token behind the text; return whether there is more to come."""
    if token == head.end:
        return False
    text.drawn.append(token)
    text.said += head.pieces[token]
    if stop is not None and stop(text.said) is not None:
        return False
    return len(text.drawn) < len(text.luck)
