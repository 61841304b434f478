"""`--chat`: the model gets each text as a message in its chat template, and only the text's own tokens are read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from encyclo.errors import UsageError
from encyclo.types import ChatModel, Model, Prompt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Message = Mapping[str, str]
"""{"role": ..., "content": ...}"""
Range = tuple[int, int]

MARK = "\ue000"
"""Begins and ends the stand-ins of messages: a private-use character, which no chat template contains."""
SHAPE = '[{"role": "user", "content": "Hello!"}]'


@dataclass(frozen=True)
class Chat:
    """How a run's texts become messages: their role, and the system prompt before them."""

    role: str = "user"
    system: str | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Chat | None:
        """Return the same of a run's recorded configuration; None without --chat."""
        return cls(config["chat_role"], config["chat_system"]) if config.get("chat") else None

    @property
    def remark(self) -> str:
        """What a summary says of it."""
        return f"each text as a message of the role {self.role} (--chat)"

    def frame(self, model: Model) -> str:
        """Return what the model gets before a text. Raises UsageError if it has no fitting chat template."""
        return self._pieces(model)[0]

    def given(self, model: Model, text: str, pieces: Sequence[str] = ()) -> tuple[str, Place]:
        """Return the conversation up to the end of `text`, and the text's place in it.

        What the template writes after the text is left out: a causal model's states don't depend on it.
        """
        whole, (place,) = placed(model, self._messages(text), [self._at], pieces or self._pieces(model))
        return whole[: place.end], place

    def prompts(self, model: Model, prompts: Sequence[Prompt], pooling: str) -> tuple[list[Prompt], str]:
        """Return the prompts as messages, and the pooling that reads each text there as `pooling` reads it alone.

        Spans are moved. For `mean` the span is the whole text, which the pooling `span` averages.
        """
        pieces, moved = self._pieces(model), []
        for prompt in prompts:
            text, place = self.given(model, prompt.text, pieces)
            span = (0, len(prompt.text)) if pooling == "mean" else prompt.span
            moved.append(Prompt(prompt.concept, text, place.of(span) if span else None, prompt.family))
        return moved, "span" if pooling == "mean" else pooling

    @property
    def _at(self) -> int:
        return 0 if self.system is None else 1

    def _messages(self, text: str) -> list[Message]:
        before = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*before, {"role": self.role, "content": text}]

    def _pieces(self, model: Model) -> list[str]:
        return pieces_around(model, self._messages(""), [self._at])


@dataclass(frozen=True)
class Place:
    """Where a message's content is in a conversation: [start, end), without blanks that the template strips."""

    start: int
    end: int
    offset: int
    """Where the content's first character is, or would be."""

    def of(self, span: Range) -> Range:
        """Return the characters of `span`, a range of the content."""
        return max(span[0] + self.offset, self.start), min(span[1] + self.offset, self.end)

    def tokens(
        self, spans: Sequence[Range], states: NDArray[np.float32]
    ) -> tuple[list[Range], NDArray[np.float32]]:
        """Return the content's own tokens: their ranges in the content, and their states [tokens, L, H]."""
        inside = [(max(a, self.start), min(b, self.end)) for a, b in spans]
        own = [token for token, (a, b) in enumerate(inside) if a < b]
        return [(inside[t][0] - self.offset, inside[t][1] - self.offset) for t in own], states[own]


def placed(
    model: Model, messages: Sequence[Message], read: Sequence[int], pieces: Sequence[str]
) -> tuple[str, list[Place]]:
    """Return the conversation, and the places of the contents of the messages `read`.

    Raises UsageError if the template does not write `pieces` around these contents, with or without outer blanks.
    """
    text, places, at = _written(model, messages), [], len(pieces[0])
    faithful = text.startswith(pieces[0])
    for number, after in zip(read, pieces[1:], strict=True):
        content = messages[number]["content"]
        kept = next((c for c in (content, content.strip()) if text.startswith(c + after, at)), None)
        faithful, kept = faithful and kept is not None, kept or ""
        places.append(Place(at, at + len(kept), at - content.index(kept)))
        at += len(kept) + len(after)
    if not faithful or at != len(text):
        raise UsageError(
            f"The chat template of the model {model.name!r} changes the texts of messages, so that they can't be found "
            "in it; use another model, or leave --chat out."
        )
    return text, places


def pieces_around(model: Model, messages: Sequence[Message], read: Sequence[int]) -> list[str]:
    """Return what the template writes before, between and after the contents of the messages `read`."""
    marks = {number: f"{MARK}{number}{MARK}" for number in read}
    marked = [{**m, "content": marks.get(number, m["content"])} for number, m in enumerate(messages)]
    rest, pieces = _written(model, marked), []
    for number, mark in marks.items():
        before, found, rest = rest.partition(mark)
        if not found or mark in rest:
            raise UsageError(
                f"The chat template of the model {model.name!r} does not write each message once and in order, such as "
                f"that of the role {messages[number]['role']!r}; use another role, or leave the message out."
            )
        pieces.append(before)
    return [*pieces, rest]


def _written(model: Model, messages: Sequence[Message]) -> str:
    assert isinstance(model, ChatModel)  # as the core's handle of every model is
    return model.conversation(messages)


def parse_conversation(text: str) -> list[Message]:
    """Read a conversation in JSON. Raises UsageError if it is none, or has no words."""
    try:
        messages = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"With --chat the text is a conversation in JSON, such as {SHAPE}, but this is not JSON: {error}."
        ) from error
    if not isinstance(messages, list) or not all(map(_is_message, messages)):
        raise UsageError(
            f"With --chat the text is a list of messages in JSON, each with a role and a content, such as {SHAPE}; "
            "correct it."
        )
    if not any(message["content"].strip() for message in messages):
        raise UsageError("There is nothing to read: the conversation has no words; give a message some.")
    return messages


def joined(messages: Sequence[Message]) -> str:
    """Return the messages' contents, with a line break between them: the text that readings refer to."""
    return "\n".join(message["content"] for message in messages)


def message_places(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return each message's role, and where its content starts and ends in the `joined` text."""
    places: list[dict[str, Any]] = []
    for message in messages:
        start = places[-1]["end"] + 1 if places else 0
        places.append({"role": message["role"], "start": start, "end": start + len(message["content"])})
    return places


def _is_message(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"role", "content"}
        and all(isinstance(part, str) for part in value.values())
    )
