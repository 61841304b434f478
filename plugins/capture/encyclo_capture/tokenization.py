"""Tokenises prompts and finds the tokens to pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from encyclo.errors import CaptureError
from encyclo.pooling import pooled_tokens
from encyclo.types import Prompt
from encyclo_capture.loading.refusals import refusing

BLANKS = ["\u2581", "\u0120"]
"""A blank in the vocabularies of SentencePiece and of byte-level BPE."""


class TokenisingModel(Protocol):
    """The part of a model that tokenising needs."""

    name: str

    vocab_size: int
    """The number of tokens that the model has embeddings for."""

    @property
    def tokenizer(self) -> Any:
        """A fast tokenizer of transformers."""
        ...

    @property
    def max_tokens(self) -> int | None:
        """The maximum number of tokens per text, if the model states one."""
        ...


@dataclass(frozen=True, slots=True)
class TokenisedPrompt:
    """A prompt's token ids and the positions of its pooled tokens."""

    position: int
    """The prompt's index among the given prompts."""
    ids: tuple[int, ...]
    pooled: tuple[int, ...]

    @property
    def needed(self) -> tuple[int, ...]:
        """The tokens up to the last pooled one: a causal model needs no others."""
        return self.ids[: self.pooled[-1] + 1]


def tokenise(model: TokenisingModel, prompts: Sequence[Prompt], pooling: str) -> list[TokenisedPrompt]:
    """Tokenise whole prompts, with the model's special tokens.

    Raises CaptureError, naming the prompt, if it is too long for the model or has no token to pool.
    """
    if not prompts:  # transformers' tokenizers fail on an empty list
        return []
    encoded = encode(
        model,
        [prompt.text for prompt in prompts],
        return_offsets_mapping=True,
        return_attention_mask=False,
        padding=False,
        truncation=False,
    )
    limit = model.max_tokens
    columns = zip(
        encoded["input_ids"], encoded["offset_mapping"], encoded["special_tokens_mask"], strict=True
    )
    result = []
    for position, (prompt, (ids, offsets, special)) in enumerate(zip(prompts, columns, strict=True)):
        if limit is not None and len(ids) > limit:
            raise CaptureError(
                f"The prompt {_shown(prompt.text)} has {len(ids)} tokens, but {model.name} takes at most {limit}; "
                "shorten it."
            )
        pooled = pooled_tokens(offsets, special, prompt.span, pooling)
        if not pooled:
            raise CaptureError(
                f"The pooling {pooling} finds no token in the prompt {_shown(prompt.text)}: "
                f"{_lost(prompt, pooling)}; change the prompt, or leave it out."
            )
        result.append(TokenisedPrompt(position, tuple(ids), pooled))
    return result


def encode(model: TokenisingModel, texts: list[str], **options: Any) -> Mapping[str, list[Any]]:
    """Call the model's tokenizer; `options` are its own. Every token that the text itself doesn't have is special.

    If a text begins with the token that the tokenizer puts before every text, it doesn't get a second one. Raises
    CaptureError, naming a text, if the tokenizer fails or gives a token that the model has no embedding for.
    """
    with refusing(
        f"The tokenizer of the model {model.name!r} fails on {_first(texts)}",
        CaptureError,
        "; check its tokenizer.json",
    ):
        encoded = model.tokenizer(texts, return_special_tokens_mask=True, **options)
        _mark_added(model.tokenizer, texts, encoded)
    for text, ids in zip(texts, encoded["input_ids"], strict=True):
        if (highest := max(ids, default=0)) >= model.vocab_size:
            raise CaptureError(
                f"The tokenizer of the model {model.name!r} gives the token {highest} for {_shown(text)}, but the "
                f"model's last token is {model.vocab_size - 1}; use the tokenizer that belongs to these weights."
            )
    return encoded


def _mark_added(tokenizer: Any, texts: Sequence[str], encoded: Mapping[str, list[list[Any]]]) -> None:
    """Mark as special what the tokenizer's own mask lacks: a text's own BOS, and a blank that the text doesn't have.

    Tokenizers that put a blank before a text's first word make a token of it if the script has no spaces, and
    give it the word's first character as its range.
    """
    blanks = set(tokenizer.convert_tokens_to_ids(BLANKS)) - {tokenizer.unk_token_id, None}
    ranges = encoded.get("offset_mapping")
    for row, (ids, special) in enumerate(
        zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True)
    ):
        if special[:2] == [1, 0] and ids[0] == ids[1]:
            for column in encoded.values():
                del column[row][0]
            special[0] = 1
        if ids[:1] == [tokenizer.bos_token_id]:
            special[0] = 1
        if ranges is None or blanks.isdisjoint(ids):
            continue
        for place, (start, end) in enumerate(ranges[row]):
            if ids[place] in blanks and not texts[row][start:end].isspace():
                special[place] = 1


def _first(texts: Sequence[str]) -> str:
    return _shown(texts[0]) + (f" or one of {len(texts) - 1} other texts" if len(texts) > 1 else "")


def _lost(prompt: Prompt, pooling: str) -> str:
    if pooling == "span" and prompt.span is not None:
        return f"its mention {prompt.text[slice(*prompt.span)]!r} has no token"
    return "it has no token of its own"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
