"""Read a text with a run's interpreter, token by token.

The model gets a long text in windows: at most 1,000 new characters, after at most 250 earlier ones for context,
which are not read again; both are cut at a blank if there is one. A token is read as a mention is captured: with
the pooling `span`, the mean over its word's tokens up to it, so that a word's last token is read exactly like a
sample; with `last`, its own state; with `mean` and `mean-all`, the mean over the window up to it. In a run with
--chat a window is a message, and a conversation is read as a whole. In a run with --echo the model gets the window
twice, and tokens are read in the second copy; windows are cut at the end of a sentence if there is one, so that a
word has seen its whole sentence.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.chat import Chat, Message, Place, pieces_around, placed
from encyclo.echo import doubled, second_copy
from encyclo.entry_words import EntryWords
from encyclo.errors import DamagedError, UsageError
from encyclo.pooling import pooled_tokens
from encyclo.query.readings import Candidate, TokenReading
from encyclo.query.word_readings import WORD, entries_at, read_words
from encyclo.statistics.confidence import Calibrator, best_scores
from encyclo.statistics.word_reader import WordReader
from encyclo.storage import safe_read
from encyclo.types import RESIDUAL, Interpreter, Model

FRESH = 1000
CONTEXT = 250
MOST_TOKENS = 512
CHUNK = 2**16
SENTENCE_END = re.compile(r"""[.!?]["')\]”’]*\s+|\n""")


@dataclass(frozen=True)
class Window:
    """The tokens of a window that are read: `spans`, their characters in `text`, and what is read of them."""

    text: str
    start: int
    """Where `text` starts in the whole text."""
    spans: list[tuple[int, int]]
    values: NDArray[np.float32]
    """Their pooled activations, [tokens, L, H]."""
    first: bool
    """Whether the first of them is the first token that the model got, after special ones."""


@dataclass(frozen=True)
class TextReader:
    """Reads texts with a run's interpreter; made by `Encyclopedia.reader`."""

    interpreter: Interpreter
    names: Sequence[str]
    model: Model
    layer_index: tuple[int, ...]
    pooling: str
    calibrator: Calibrator | None
    """None if the run could not calibrate."""
    words: EntryWords | None = None
    """None if the run did not record them: every token is then read as with `any_word`."""
    echo: bool = False
    """Whether the model gets each window twice and is read in the second copy, as in a run with --echo."""
    word_reader: WordReader | None = None
    """None unless the run has learned from labelled mentions."""
    chat: Chat | None = None
    """How a window becomes a message, as in a run with --chat."""

    def read(
        self, text: str | Iterable[str], top: int = 3, at_least: float = 0.5, any_word: bool = False
    ) -> Iterator[TokenReading]:
        """Yield a reading of each token of `text` (a string or pieces of one), except blank tokens.

        A reading has the `top` likeliest candidates. The reader abstains below the confidence `at_least`, and always
        if the run could not calibrate. Unless `any_word`, only entries whose word ends with the token have a
        confidence above 0 (see `encyclo.query.word_readings`). Raises UsageError if the text is blank.
        """
        something = False
        for window in self.windows_of(text):
            something = True
            yield from self.read_window(window, top, at_least, any_word)
        if not something:
            raise UsageError("There is nothing to read: the text is empty or blank; give at least a word.")

    def read_conversation(
        self, messages: Sequence[Message], top: int = 3, at_least: float = 0.5, any_word: bool = False
    ) -> Iterator[TokenReading]:
        """Yield a reading of each token of the messages' contents, joined by line breaks, as `read` does.

        The model gets the whole conversation in its chat template. Raises UsageError if it is too long.
        """
        contents = [doubled(m["content"]) if self.echo else m["content"] for m in messages]
        given = [{**m, "content": content} for m, content in zip(messages, contents, strict=True)]
        read = range(len(given))
        text, places = placed(self.model, given, read, pieces_around(self.model, given, read))
        spans, most = self.model.tokens(text), getattr(self.model, "max_tokens", None)
        if most is not None and len(spans) > most:
            raise UsageError(
                f"The conversation has {len(spans):,} tokens, but {self.model.name} takes at most {most:,}; shorten it."
            )
        states, start = self._states(text, spans), 0
        for message, place in zip(messages, places, strict=True):
            content = message["content"]
            if window := self._pooled(start, "", content, *place.tokens(spans, states), first=False):
                yield from self.read_window(window, top, at_least, any_word)
            start += len(content) + 1

    def windows_of(self, text: str | Iterable[str]) -> Iterator[Window]:
        """Yield the windows of `text` (a string or pieces of one) that have a token that is not blank."""
        for start, context, fresh in windows([text] if isinstance(text, str) else text, self.echo):
            for piece in self._fitting(start, context, fresh):
                if window := self._window(*piece):
                    yield window

    def _fitting(self, start: int, context: str, fresh: str) -> Iterator[tuple[int, str, str]]:
        """Yield the window, or pieces of it that fit the model."""
        if self._fits(context + fresh) or (not context and len(fresh) < 2):
            yield start, context, fresh
        elif len(context) > len(fresh) // 4:
            yield from self._fitting(start, context[len(context) // 2 + 1 :], fresh)
        else:
            middle = _cut(fresh, len(fresh) // 2, self.echo)
            yield from self._fitting(start, context, fresh[:middle])
            kept = (context + fresh[:middle])[-CONTEXT:]
            yield from self._fitting(start + middle, kept, fresh[middle:])

    def _given(self, text: str) -> tuple[str, Place | None]:
        """Return what the model gets for a window, and with --chat where the window is in it."""
        text = doubled(text) if self.echo else text
        return self.chat.given(self.model, text) if self.chat else (text, None)

    def _fits(self, text: str) -> bool:
        """Return whether a window has at most MOST_TOKENS tokens, and with the chat template fits the model."""
        given, place = self._given(text)
        spans = self.model.tokens(given)
        before = sum(end <= place.start for _, end in spans) if place else 0
        most = getattr(self.model, "max_tokens", None)
        return len(spans) - before <= MOST_TOKENS and (most is None or len(spans) <= most)

    def _window(self, start: int, context: str, fresh: str) -> Window | None:
        given, place = self._given(context + fresh)
        spans = self.model.tokens(given)
        states = self._states(given, spans)
        if place:
            return self._pooled(start, context, fresh, *place.tokens(spans, states), first=False)
        return self._pooled(start, context, fresh, spans, states, first=not self.echo)

    def _states(self, given: str, spans: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
        states = self.model.forward([given], self.layer_index)[0]
        if len(states) != len(spans):
            raise DamagedError(
                f"The model {self.model.name} gives {len(states)} states for {len(spans)} tokens; use the tokenizer "
                "that belongs to its network."
            )
        return states

    def _pooled(
        self,
        start: int,
        context: str,
        fresh: str,
        spans: Sequence[tuple[int, int]],
        states: NDArray[np.float32],
        first: bool,
    ) -> Window | None:
        """Return the window of the tokens in `fresh`; `first` says whether the model got nothing else before."""
        text = context + fresh
        if self.echo:
            spans, states = second_copy(text, spans, states)
        chosen = [i for i, (a, b) in enumerate(spans) if b > len(context) and text[a:b].strip()]
        if not chosen:
            return None
        values = _pooled(states, spans, text, self.pooling)[chosen]
        first = first and all(a == b for a, b in spans[: chosen[0]])
        return Window(text, start - len(context), [spans[i] for i in chosen], values, first)

    def read_window(
        self, window: Window, top: int, at_least: float, any_word: bool
    ) -> Iterator[TokenReading]:
        """Yield a reading of each token of a window, in their order; the arguments are those of `read`."""
        text, values = window.text, window.values
        scores = self.interpreter.read(values)
        best, columns = best_scores(scores)
        sure = familiar = None
        if self.calibrator:
            distance = self.calibrator.distribution.distance(values)
            sure = self.calibrator.confidences(best, distance)
            familiar = self.calibrator.in_distribution(best, distance)
            if self.words and not any_word:
                named = entries_at(text, [end for _, end in window.spans], self.words)
                learned = self.word_reader.confidences(values, named) if self.word_reader else None
                columns, sure = read_words(scores, columns, named, self.calibrator.temperature, learned)
        for row, (a, b) in enumerate(window.spans):
            a += len(text[a:b]) - len(text[a:b].lstrip())
            found = [
                Candidate(
                    self.interpreter.concepts[column],
                    self.names[column],
                    None if sure is None else float(sure[row, rank]),
                )
                for rank, column in enumerate(columns[row, :top].tolist())
            ]
            first = found[0]
            answered = first.confidence is not None and first.confidence >= at_least
            yield TokenReading(
                text[a:b].rstrip(),
                window.start + a,
                window.start + a + len(text[a:b].rstrip()),
                found,
                None if familiar is None else float(familiar[row]),
                first.name if answered else None,
            )


def check_trained_for(
    path: Path,
    model: Model,
    layers: Sequence[int],
    pooling: str,
    echo: bool,
    weights_sha256: str,
    chat: Chat | None = None,
    site: str = RESIDUAL,
) -> None:
    """Check that the interpreter was trained for this model, layers, site, pooling, --echo and --chat.

    Raises UsageError naming both. If the interpreter's config.json has no `trained_on`, the run's record is used.
    """
    there: dict[str, Any] = {
        "model": model.name,
        "weights_sha256": weights_sha256,
        "layers": list(layers),
        "pooling": pooling,
        "echo": echo,
        "chat": asdict(chat) if chat else None,
        "site": site,
    }
    file = path / "interpreter" / "config.json"
    try:
        config = safe_read.read_json(file, at_most=safe_read.INTERPRETER_JSON, within=path)
        there |= {key: value for key, value in (config.get("trained_on") or {}).items() if key in there}
        messages = _as_message(there["chat"])
    except (ValueError, AttributeError) as error:
        raise safe_read.refusal(file, str(error), safe_read.RESTORE, DamagedError) from error
    for what, trained, given in (
        ("the layers", there["layers"], list(layers)),
        ("the site", there["site"], site),
        ("the pooling", there["pooling"], pooling),
        ("texts given", *("twice (--echo)" if twice else "once" for twice in (there["echo"], echo))),
        ("texts given", messages, _as_message(asdict(chat) if chat else None)),
    ):
        if trained != given:
            raise UsageError(
                f"The interpreter in {path} was trained for {what} {trained} and can't read {given}; "
                "use the interpreter that belongs to this run."
            )
    if there["weights_sha256"] != model.weights_sha256:
        raise UsageError(
            f"The interpreter in {path} was trained for the model {there['model']} (weights "
            f"{str(there['weights_sha256'])[:12]}) and can't read {model.name} (weights "
            f"{model.weights_sha256[:12]}); read with the model it was trained for."
        )


def _as_message(chat: Mapping[str, Any] | None) -> str:
    """Return how texts are given: `alone (without --chat)`, or as messages of which role, after which system prompt."""
    if not chat:
        return "alone (without --chat)"
    system = chat.get("system")
    after = "" if system is None else f", after the system prompt {system!r}"
    return f"as messages of the role {chat.get('role')} (--chat{after})"


def windows(pieces: Iterable[str], sentences: bool = False) -> Iterator[tuple[int, str, str]]:
    """Cut a text that comes in pieces into windows: (start of the new part, context before it, new part).

    With `sentences` a new part ends with a sentence if one ends in its second half.
    """
    context, buffer, start = "", "", 0
    for piece in pieces:
        buffer += piece
        while len(buffer) > FRESH:
            end = _cut(buffer, FRESH, sentences)
            yield start, context, buffer[:end]
            context, start = _context(context + buffer[:end]), start + end
            buffer = buffer[end:]
    if buffer:
        yield start, context, buffer


def read_pieces(path: Path) -> Iterator[str]:
    """Yield the text of a UTF-8 file in pieces. Raises UsageError if it can't be read or is not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    try:
        with path.open("rb") as handle:
            while data := handle.read(CHUNK):
                if b"\0" in data:
                    raise UsageError(f"{path} is not a text: it has NUL bytes; give a UTF-8 text file.")
                yield decoder.decode(data)
            yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text ({error.reason}); convert it to UTF-8 first.") from error
    except OSError as error:
        raise UsageError(
            f"{path} can't be read: {error.strerror or error}; name a text file that you may read."
        ) from error


def _cut(text: str, most: int, sentences: bool) -> int:
    """Return where to cut within the first `most` characters: after the last blank, else after `most`.

    With `sentences`, after the last sentence if one ends in the second half.
    """
    if sentences and (ends := [match.end() for match in SENTENCE_END.finditer(text, most // 2, most)]):
        return ends[-1]
    for place in range(most, most // 2, -1):
        if text[place - 1].isspace():
            return place
    return max(most, 1)


def _context(text: str) -> str:
    tail = text[-CONTEXT:]
    head, blank, rest = tail.partition(" ")
    return rest if blank and len(head) < CONTEXT // 2 and len(text) > CONTEXT else tail


def _pooled(
    states: NDArray[np.float32], spans: Sequence[tuple[int, int]], text: str, pooling: str
) -> NDArray[np.float32]:
    """Return each token's pooled activation, float32 [tokens, L, H], as if the text ended there."""
    special = [start == end for start, end in spans]
    words = [match.span() for match in WORD.finditer(text)]
    total = np.concatenate([np.zeros((1, *states.shape[1:])), np.cumsum(states, axis=0, dtype=np.float64)])
    bounds = np.empty((len(spans), 2), np.int64)  # the tokens read are consecutive
    for place, (start, end) in enumerate(spans):
        begin = next((a for a, b in words if max(a, start) < min(b, end)), start)
        until, lowest = place + 1, 0
        if pooling == "span":  # tokens before the word are not in the mean
            lowest = place
            while lowest and spans[lowest - 1][1] > begin:
                lowest -= 1
        read = pooled_tokens(spans[lowest:until], special[lowest:until], (begin, end), pooling)
        bounds[place] = (lowest + read[0], lowest + read[-1] + 1) if read else (place, until)
    first, last = bounds.T
    means = (total[last] - total[first]) / (last - first)[:, None, None]
    result: NDArray[np.float32] = means.astype(np.float32)
    return result
