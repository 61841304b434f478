"""What a hook returns and the core calls later: a model, an interpreter (stores: `encyclo.plugins.store_handles`).

A handle passes each call on to the plugin's object and checks the answer. Errors name the plugin, wherever the
call comes from: an interpreter may be read while a scorer runs, a store while an interpreter is trained. The
plugin that made the object gets it back as it made it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from encyclo.errors import UsageError
from encyclo.plugins.guards import Blame
from encyclo.plugins.values import (
    WrongAnswer,
    check_array,
    check_text,
    check_whole,
    is_finite,
    shown,
    with_article,
)
from encyclo.schema import LARGEST_HIDDEN, LARGEST_LAYER_COUNT
from encyclo.storage.checksums import list_files
from encyclo.types import Opening

T = TypeVar("T")
FORWARD, TOKENS, GENERATE, CONVERSATION, READ = (
    f"has a method {name} whose answer" for name in ("forward", "tokens", "generate", "conversation", "read")
)


@dataclass(frozen=True)
class Owner:
    """The plugin that an answer comes from. `mark` marks errors with its name, `blame` reports them as its own."""

    name: str
    mark: Blame
    blame: Blame


class Handle:
    """An object that a hook returned. Attributes without a check are the object's own."""

    KIND: ClassVar[str]
    """What it is, with its article, for messages."""
    NEEDS: ClassVar[tuple[str, ...]]
    """The attributes that the object must have."""

    def __init__(self, answer: Any, owner: Owner, hook: str) -> None:
        self._object, self._owner = answer, owner
        lacking = [name for name in self.NEEDS if not _has(answer, name)]
        if lacking:
            raise WrongAnswer(
                f"returned {with_article(answer)} from {hook}, which is not {self.KIND}: it has no "
                f"{lacking[0]}; add it"
            )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._object, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return _as_it_is, (self._object,)  # a copy, or another process, gets the plugin's object

    def given_to(self, plugin: str) -> Any:
        """Return what `plugin` gets: the object itself if it is the plugin's own, else this handle."""
        return self._object if plugin == self._owner.name else self

    def _blame(self) -> AbstractContextManager[None]:
        return self._owner.blame()


class ModelHandle(Handle):
    """A model (see `encyclo.types.Model`), its description checked at once."""

    KIND = "a model"
    NEEDS = (
        "name", "source", "depth", "hidden_size", "dtype", "device", "weights_sha256", "forward", "tokens",
    )  # fmt: skip

    def __init__(self, answer: Any, owner: Owner) -> None:
        super().__init__(answer, owner, "load_model")
        texts = {
            key: check_text(getattr(answer, key), f"returned a model whose {key}")
            for key in ("name", "source", "dtype", "device")
        }
        self.name, self.source, self.dtype, self.device = texts.values()
        self.depth = check_whole(answer.depth, "returned a model whose depth", 1, LARGEST_LAYER_COUNT)
        self.hidden_size = check_whole(
            answer.hidden_size, "returned a model whose hidden_size", 1, LARGEST_HIDDEN
        )

    def _optional(self, name: str) -> Any:
        """Return an attribute that a model may lack; an AttributeError inside a property is an error."""
        there = hasattr(type(self._object), name) or hasattr(self._object, name)
        return getattr(self._object, name) if there else None

    @property
    def weights_sha256(self) -> str:
        """A hash of the weight files."""
        with self._blame():
            found = check_text(self._object.weights_sha256, "returned a model whose weights_sha256")
            if not found:
                raise WrongAnswer(
                    "returned a model whose weights_sha256 is empty, but must be a hash of its weight files"
                )
            return found

    @property
    def model_sha256(self) -> str | None:
        """A hash of weights, configuration and tokenizer, if the model has one."""
        with self._blame():
            found = self._optional("model_sha256")
            return None if found is None else check_text(found, "returned a model whose model_sha256")

    @property
    def licence(self) -> str | None:
        """The terms of the weights, if the model has them."""
        with self._blame():
            found = self._optional("licence")
            return None if found is None else check_text(found, "returned a model whose licence")

    @property
    def quantisation(self) -> str | None:
        """How the weights are quantised, if they are."""
        with self._blame():
            found = self._optional("quantisation")
            return None if found is None else check_text(found, "returned a model whose quantisation")

    @property
    def max_tokens(self) -> int | None:
        """The most tokens of a text, if the model says so."""
        with self._blame():
            found = self._optional("max_tokens")
            return None if found is None else check_whole(found, "returned a model whose max_tokens", 1)

    def forward(self, texts: Sequence[str], layers: Sequence[int]) -> list[NDArray[np.float32]]:
        """Return the hidden states of every token, one float32 [tokens, L, H] for each text."""
        with self._blame():
            states = _listed(self._object.forward(texts, layers), len(texts), FORWARD)
            shape = (None, len(layers), self.hidden_size)
            found = [check_array(item, "float32", shape, f"{FORWARD} has an item that") for item in states]
            if not all(map(is_finite, found)):
                raise WrongAnswer(
                    f"{FORWARD} has a hidden state that is not finite (computed in {self.dtype}); use a device "
                    "or compute type with a wider range"
                )
            return found

    def tokens(self, text: str) -> list[tuple[int, int]]:
        """Return the character range of each token of `forward`'s states; (0, 0) for special tokens."""
        with self._blame():
            found = _listed(self._object.tokens(text), None, TOKENS)
            try:
                ranges = np.array(found) if found else np.empty((0, 2), np.int64)
            except ValueError as error:
                raise WrongAnswer(f"{TOKENS} must have two int, start and end, for every token") from error
            ranges = check_array(ranges, "int64", (None, 2), f"{TOKENS}, as an array,")
            if not ((ranges[:, 0] >= 0) & (ranges[:, 0] <= ranges[:, 1]) & (ranges[:, 1] <= len(text))).all():
                raise WrongAnswer(
                    f"{TOKENS} has a range outside the text, but each token needs 0 <= start <= end <= {len(text)}"
                )
            return [(start, end) for start, end in ranges.tolist()]

    def release(self) -> None:
        """Let the model free its weights, if it can."""
        with self._blame():
            release = self._optional("release")
            if release is not None:
                release()

    def conversation(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return the text of messages in the chat template. Raises UsageError if the model's plugin knows none."""
        with self._blame():
            write = self._optional("conversation")
            if write is None:
                raise UsageError(
                    f"The model {self.name!r} has no chat template; use a chat model, or leave --chat out."
                )
            return check_text(write(messages), CONVERSATION)


class TextModelHandle(ModelHandle):
    """A model that can write text (see `encyclo.types.TextGenerator`)."""

    @property
    def can_generate(self) -> bool:
        """Whether it continues texts, if the model says so."""
        with self._blame():
            return self._optional("can_generate") is not False

    def generate(
        self, prefix: str, openings: Sequence[Opening], max_new_tokens: int, stop: str | None = None
    ) -> list[str]:
        """Return a continuation of `prefix` plus each opening's text."""
        with self._blame():
            found = self._object.generate(prefix, openings, max_new_tokens, stop)
            texts = _listed(found, len(openings), GENERATE)
            return [check_text(text, f"{GENERATE} has a text that") for text in texts]


class InterpreterHandle(Handle):
    """An interpreter (see `encyclo.types.Interpreter`)."""

    KIND = "an interpreter"
    NEEDS = ("concepts", "read", "add_concepts", "save")

    def __init__(self, answer: Any, owner: Owner, hook: str) -> None:
        super().__init__(answer, owner, hook)
        self.concepts = self._known()

    def read(self, activations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score every concept: float32 [n, L, H] -> float32 [n, C]."""
        with self._blame():
            shape = (len(activations), len(self.concepts))
            scores = check_array(self._object.read(activations), "float32", shape, READ)
            if not is_finite(scores):
                wrong = scores[~np.isfinite(scores)]
                raise WrongAnswer(
                    f"{READ} has {wrong[0]} as a score ({len(wrong):,} of {scores.size:,} are not finite), but must "
                    "have finite numbers"
                )
            return scores

    def add_concepts(self, ids: Sequence[str], signatures: NDArray[np.float32]) -> None:
        """Add concepts by their signatures, float32 [k, L, H]."""
        with self._blame():
            self._object.add_concepts(ids, signatures)
            wanted, self.concepts = [*self.concepts, *ids], self._known()
            if self.concepts != wanted:
                raise WrongAnswer(
                    f"has an interpreter that lists {len(self.concepts):,} concepts after add_concepts, but must "
                    f"list the {len(wanted):,} that it had and got, in that order"
                )

    def save(self, folder: Path) -> None:
        """Write model.safetensors and config.json into the existing `folder`."""
        with self._blame():
            self._object.save(folder)
            try:
                saved = list_files(folder)
            except ValueError as error:
                raise WrongAnswer(
                    f"saved what no run may hold: {error}; save only plain files and folders"
                ) from error
            if "config.json" not in saved:
                raise WrongAnswer(
                    "saved no config.json in the interpreter's folder; write one in the method save"
                )

    def _known(self) -> list[str]:
        concepts = _listed(self._object.concepts, None, "returned an interpreter whose attribute concepts")
        for concept in concepts:
            check_text(concept, "returned an interpreter of which a concept's id")
        return concepts


def _listed(value: object, length: int | None, what: str) -> list[Any]:
    """Return a list (or a tuple as one), of `length` items if one is given."""
    if not isinstance(value, list | tuple):
        raise WrongAnswer(f"{what} is {shown(value)}, but must be a list")
    if length not in (None, len(value)):
        raise WrongAnswer(f"{what} has {len(value):,} items, but must have {length:,}")
    return list(value)


def _has(answer: object, part: str) -> bool:
    """Return whether `answer` has `part`, without computing it: a hash of the weights takes a while."""
    if isinstance(answer, type):
        return False
    try:
        inspect.getattr_static(answer, part)
    except AttributeError:
        return part in getattr(type(answer), "__annotations__", {}) or (
            hasattr(type(answer), "__getattr__") and hasattr(answer, part)
        )
    return True


def _as_it_is(value: T) -> T:
    return value
