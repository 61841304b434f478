"""Windows: the tokens of a text that a model reads together, and those of them that are kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from encyclo.types import Samples


@dataclass(frozen=True, slots=True)
class TextTokens:
    """A text's tokens: n of its own, and those that the tokenizer adds before and after them.

    ids: int32 [n]; ranges: int32 [n, 2], each token's characters [start, end), empty for one that stands for none
    """

    ids: NDArray[np.int32]
    ranges: NDArray[np.int32]
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenWindow:
    """Token ids that a model reads together, special ones included; `kept` are the kept ones' places, ascending."""

    ids: tuple[int, ...]
    kept: tuple[int, ...]


@runtime_checkable
class WindowModel(Protocol):
    """A model that reads windows; optional (see `encyclo.types.Model`). `encyclo capture` needs it."""

    @property
    def max_tokens(self) -> int | None:
        """The most tokens of a window, special ones included; None if the model states none."""
        ...

    def split_text(self, text: str) -> TextTokens:
        """Return a text's tokens."""
        ...

    def read_windows(self, given: Sequence[TokenWindow], layers: Sequence[int]) -> Iterable[Samples]:
        """Yield the hidden states of the kept tokens in batches, in any order.

        A batch's `positions` count the kept tokens of the windows, one window after another.
        """
        ...

    def check_windows(self, given: Sequence[TokenWindow], layers: Sequence[int]) -> dict[str, float]:
        """Compare `read_windows` with a plain pass; return each check's worst value. Raise CaptureError if it fails."""
        ...


def cut(count: int, room: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Cut `count` tokens into windows of at most `room`, one at each multiple of `stride` (at most `room`).

    Yields (start, fresh, stop): the window is [start, stop), and its tokens from `fresh` on are in no window before.
    So each token is fresh once, in the window that has the most tokens before it.
    """
    fresh = 0
    for start in range(0, count, stride):
        stop = min(start + room, count)
        yield start, fresh, stop
        if stop == count:
            return
        fresh = stop
