"""Prompts as tokens, and which of them the pooling reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from encyclo.errors import CaptureError
from encyclo.pooling import pooled_tokens
from encyclo.types import Prompt


class TokenisingModel(Protocol):
    """What tokenising needs of a model."""

    name: str

    @property
    def tokenizer(self) -> Any:
        """A fast tokenizer of transformers."""
        ...

    @property
    def max_tokens(self) -> int | None:
        """The most tokens a text may have, where the model says so."""
        ...


@dataclass(frozen=True, slots=True)
class TokenisedPrompt:
    """A prompt's token ids, and the positions that its pooling averages."""

    position: int
    """The prompt's place in the prompts handed in."""
    ids: tuple[int, ...]
    pooled: tuple[int, ...]

    @property
    def needed(self) -> tuple[int, ...]:
        """The tokens that a causal model needs: up to the last pooled one."""
        return self.ids[: self.pooled[-1] + 1]


def tokenise(model: TokenisingModel, prompts: Sequence[Prompt], pooling: str) -> list[TokenisedPrompt]:
    """Tokenise whole prompts, with the special tokens that the model expects.

    Raises CaptureError naming a prompt that is too long for the model or whose mention has no token.
    """
    if not prompts:  # transformers' tokenizers fail on none
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
    found = []
    for position, (prompt, (ids, offsets, special)) in enumerate(zip(prompts, columns, strict=True)):
        if limit is not None and len(ids) > limit:
            raise CaptureError(
                f"The prompt {_shown(prompt)} has {len(ids)} tokens, more than the {limit} that {model.name} takes."
            )
        pooled = pooled_tokens(offsets, special, prompt.span, pooling)
        if not pooled:
            raise CaptureError(
                f"No token of the prompt {_shown(prompt)} can be read with the pooling {pooling}: "
                f"{_lost(prompt, pooling)}."
            )
        found.append(TokenisedPrompt(position, tuple(ids), pooled))
    return found


def _lost(prompt: Prompt, pooling: str) -> str:
    if pooling == "span" and prompt.span is not None:
        return f"its mention {prompt.text[slice(*prompt.span)]!r} has no token"
    return "it has no token of its own"


def _shown(prompt: Prompt) -> str:
    return repr(prompt.text if len(prompt.text) <= 80 else prompt.text[:77] + "...")
