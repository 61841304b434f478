"""`--echo`: the model gets each text twice and is read in the second copy, whose states have seen the whole text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.chat import Chat
from encyclo.errors import CaptureError
from encyclo.types import Prompt

SEPARATOR = "\n"
"""After a line break, tokenizers such as gemma's cut a text as they do at its start; after a blank they don't."""
REMARK = "each text twice (--echo)"


Ranges = list[tuple[int, int]]


def how_given(config: Mapping[str, Any]) -> str:
    """Return what summaries say of a recorded configuration's --echo and --chat, each after a comma."""
    chat = Chat.of(config)
    return (f", {REMARK}" if config.get("echo") else "") + (f", {chat.remark}" if chat else "")


def doubled(text: str) -> str:
    """Return the text, SEPARATOR, and the text again."""
    return f"{text}{SEPARATOR}{text}"


def doubled_prompts(prompts: Sequence[Prompt], pooling: str) -> tuple[list[Prompt], str]:
    """Return the prompts with doubled texts, and the pooling that reads their second copies as `pooling` the first.

    Spans are moved to the second copy. For `mean` the span is the second copy, which the pooling `span` averages.
    """
    moved = []
    for prompt in prompts:
        offset = len(prompt.text) + len(SEPARATOR)
        span = (0, len(prompt.text)) if pooling == "mean" else prompt.span
        place = (span[0] + offset, span[1] + offset) if span else None
        moved.append(Prompt(prompt.concept, doubled(prompt.text), place, prompt.family))
    return moved, "span" if pooling == "mean" else pooling


def second_copy(
    text: str, spans: Sequence[tuple[int, int]], states: NDArray[np.float32]
) -> tuple[Ranges, NDArray[np.float32]]:
    """Return the tokens of the second copy of `text`: their ranges in `text`, and their states [tokens, L, H].

    `spans` and `states` are those of `doubled(text)`. Special tokens are left out.
    """
    offset = len(text) + len(SEPARATOR)
    places = [place for place, (_, end) in enumerate(spans) if end > offset]
    # A text that begins with a line break may share its first token with SEPARATOR.
    return [(max(spans[p][0] - offset, 0), spans[p][1] - offset) for p in places], states[places]


@contextmanager
def explained() -> Iterator[None]:
    """Add to a CaptureError in the block that the model gets each text twice."""
    try:
        yield
    except CaptureError as error:
        raise CaptureError(
            f"{str(error).removesuffix('.')}; with --echo the model gets each text twice."
        ) from error
