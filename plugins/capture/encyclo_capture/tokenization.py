"""Tokenises prompts and finds the tokens to pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from encyclo.errors import CaptureError
from encyclo.pooling import pooled_tokens
from encyclo.types import Prompt


class TokenisingModel(Protocol):
    """The part of a model that tokenising needs."""

    name: str

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
    encoded = model.tokenizer(
        [prompt.text for prompt in prompts],
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
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
                f"The prompt {_shown(prompt)} has {len(ids)} tokens, but {model.name} takes at most {limit}."
            )
        pooled = pooled_tokens(offsets, special, prompt.span, pooling)
        if not pooled:
            raise CaptureError(
                f"The pooling {pooling} finds no token in the prompt {_shown(prompt)}: "
                f"{_lost(prompt, pooling)}."
            )
        result.append(TokenisedPrompt(position, tuple(ids), pooled))
    return result


def _lost(prompt: Prompt, pooling: str) -> str:
    if pooling == "span" and prompt.span is not None:
        return f"its mention {prompt.text[slice(*prompt.span)]!r} has no token"
    return "it has no token of its own"


def _shown(prompt: Prompt) -> str:
    return repr(prompt.text if len(prompt.text) <= 80 else prompt.text[:77] + "...")
