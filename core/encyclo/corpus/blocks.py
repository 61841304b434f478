"""Cuts texts into windows, and gathers windows into blocks: a block is what one unit of a capture holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from encyclo.corpus.settings import CaptureSettings
from encyclo.corpus.text_files import SourceText, check_text
from encyclo.windows import TextTokens, TokenWindow, WindowModel, cut

CONTEXT = 1024
"""The most tokens of a window by default."""
PART_BYTES = 2**26
"""About the bytes of a part's activations."""
MOST_TOKENS = 2**17
"""The most tokens of a block's windows, kept or not: work that a killed process loses."""

Tokens = NDArray[np.int32]


@dataclass
class Block:
    """Windows of texts in their order, and what is stored of them beside the activations (see `TokenColumns`)."""

    windows: list[TokenWindow] = field(default_factory=list)
    text: list[Tokens] = field(default_factory=list)
    position: list[Tokens] = field(default_factory=list)
    token: list[Tokens] = field(default_factory=list)
    span: list[Tokens] = field(default_factory=list)
    texts: list[tuple[int, SourceText, int, int]] = field(default_factory=list)
    """Each text's number, the text, and the first and the end of its characters that are the block's."""
    rows: int = 0
    size: int = 0
    """The tokens of all windows."""

    def identity(self, recipe: str) -> str:
        """Return a hash of what determines the block's content; `recipe` is that of everything but the texts."""
        digest = hashlib.sha256(recipe.encode())
        for window in self.windows:
            for numbers in (window.ids, window.kept):
                digest.update(np.array((len(numbers), *numbers), "<i8").data)
        for number, source, start, end in self.texts:
            digest.update(
                f"{number} {source.line} {start} {end} {source.file}\n".encode("utf-8", "surrogatepass")
            )
        return digest.hexdigest()[:32]


@dataclass
class Cutter:
    """Cuts texts into blocks of about `rows` kept tokens; counts the texts, and those that were skipped."""

    model: WindowModel
    settings: CaptureSettings
    rows: int
    texts: int = 0
    skipped: int = 0

    def blocks(self, sources: Iterable[SourceText]) -> Iterator[Block]:
        """Yield the blocks. The same texts give the same blocks. Raises UsageError naming a text's file and line."""
        block = Block()
        for source in sources:
            if not check_text(source, self.settings.skip_empty):
                self.skipped += 1
                continue
            for window, fresh, stop, kept, tokens in self._windows(source):
                if block.windows and (
                    block.rows + len(kept) > self.rows or block.size + len(window.ids) > MOST_TOKENS
                ):
                    yield block
                    block = Block()
                self._add(block, source, window, fresh, stop, kept, tokens)
            self.texts += 1
        if block.windows:
            yield block

    def _add(
        self,
        block: Block,
        source: SourceText,
        window: TokenWindow,
        fresh: int,
        stop: int,
        kept: Tokens,
        tokens: TextTokens,
    ) -> None:
        count = len(tokens.ids)
        start = int(tokens.ranges[fresh, 0]) if fresh else 0
        end = len(source.text)
        if stop < count:
            end = int(max(tokens.ranges[stop - 1, 1], tokens.ranges[stop, 0]))
        if block.texts and block.texts[-1][0] == self.texts:
            start = block.texts.pop()[2]
        block.texts.append((self.texts, source, start, end))
        block.windows.append(window)
        block.text.append(np.full(len(kept), len(block.texts) - 1, np.int32))
        block.position.append(kept)
        block.token.append(tokens.ids[kept])
        block.span.append(tokens.ranges[kept])
        block.rows += len(kept)
        block.size += len(window.ids)

    def _windows(self, source: SourceText) -> Iterator[tuple[TokenWindow, int, int, Tokens, TextTokens]]:
        """Yield each window of a text that has kept tokens: it, its fresh tokens [fresh, stop), the kept ones."""
        tokens = self.model.split_text(source.text)
        count, before = len(tokens.ids), len(tokens.before)
        if not count:
            raise source.fault("the model's tokenizer finds no token in its text; remove it")
        chosen = choose(source, tokens, self.settings.tokens)
        room, stride = self.room(tokens)
        for start, fresh, stop in cut(count, room, stride):
            kept = chosen[np.searchsorted(chosen, fresh) : np.searchsorted(chosen, stop)]
            if len(kept):
                ids = (*tokens.before, *tokens.ids[start:stop].tolist(), *tokens.after)
                yield TokenWindow(ids, tuple((kept - start + before).tolist())), fresh, stop, kept, tokens

    def room(self, tokens: TextTokens) -> tuple[int, int]:
        """Return the most tokens of its own that a window holds, and the tokens to the next window's beginning."""
        room = context_of(self.settings, self.model) - len(tokens.before) - len(tokens.after)
        return room, min(self.settings.stride or room, room)


def context_of(settings: CaptureSettings, model: WindowModel) -> int:
    """Return the most tokens of a window, special ones included."""
    return settings.context or min(CONTEXT, model.max_tokens or CONTEXT)


def choose(source: SourceText, tokens: TextTokens, wanted: str | int) -> Tokens:
    """Return the positions of the tokens to keep, ascending. Raises UsageError for a span without a token."""
    count = len(tokens.ids)
    if wanted == "all":
        return np.arange(count, dtype=np.int32)
    if wanted == "last":
        return np.array([count - 1], np.int32)
    if isinstance(wanted, int):
        return np.arange(wanted - 1, count, wanted, dtype=np.int32)
    marked = np.zeros(count, bool)
    start, end = tokens.ranges.T
    for first, last in source.spans or ():
        inside = (start < last) & (end > first) & (end > start)
        if not inside.any():
            raise source.fault(f"no token is in its span [{first}, {last}]; widen the span, or remove it")
        marked |= inside
    return np.flatnonzero(marked).astype(np.int32)


def rows_of_part(layers: int, hidden: int) -> int:
    """Return about how many tokens a part holds."""
    return max(1, PART_BYTES // (2 * layers * hidden))
