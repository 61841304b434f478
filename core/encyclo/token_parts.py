"""The parts of a capture of texts: tokens with their activations, and the texts that they are from.

/tokens/   activations scale text position token span
/texts/    number file line start content

A part keeps texts in their order. `start` and `content` are the characters of a text from the first to the last of its
windows that the part keeps tokens of.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encyclo import crc, half_precision
from encyclo.schema import SAMPLES, TEXT, Array, Hierarchy, checksum_of

TOKENS = {
    "activations": SAMPLES["activations"],
    "scale": SAMPLES["scale"],
    "text": Array("int32", ("n",)),
    "position": Array("int32", ("n",)),
    "token": Array("int32", ("n",)),
    "span": Array("int32", ("n", 2)),
}
TEXTS = {
    "number": Array("int64", ("T",)),
    "file": Array(TEXT, ("T",)),
    "line": Array("int64", ("T",)),
    "start": Array("int64", ("T",)),
    "content": Array(TEXT, ("T",)),
}
TOKEN_PART: Hierarchy = {"tokens": TOKENS, "texts": TEXTS}


@dataclass(frozen=True)
class TokenColumns:
    """All of a part but its activations: n tokens, T texts.

    scale: float32 [n, L]
    text: int32 [n], the row of the token's text among the part's texts
    position: int32 [n], from 0 at the text's first token; tokens that the tokenizer adds don't count
    token: int32 [n], the token's id
    span: int32 [n, 2], the token's characters in the text, [start, end)
    number: int64 [T], each text's number in the capture, from 0
    file: T strings, the text's file; line: int64 [T], its line or row there, from 1
    start: int64 [T], the character of the text at which `content` begins; content: T strings
    """

    scale: NDArray[np.float32]
    text: NDArray[np.int32]
    position: NDArray[np.int32]
    token: NDArray[np.int32]
    span: NDArray[np.int32]
    number: NDArray[np.int64]
    file: list[str]
    line: NDArray[np.int64]
    start: NDArray[np.int64]
    content: list[str]

    def __len__(self) -> int:
        return len(self.text)

    def checksum(self) -> str:
        """Return a sha256 over the columns."""
        return checksum_of(self)


@dataclass(frozen=True)
class TokenPart(TokenColumns):
    """Tokens as columns, with their activations, float16 [n, L, H]: `activations * scale` are the values."""

    activations: NDArray[np.float16]

    @property
    def prompt(self) -> list[str]:
        """A token has no prompt of its own, so that a commit records no checksum of one."""
        return []

    def values(self) -> NDArray[np.float32]:
        """Return the activations decoded, float32 [n, L, H]."""
        return half_precision.decode(self.activations, self.scale)

    def columns(self) -> TokenColumns:
        """Return all columns but the activations."""
        return TokenColumns(**{name: getattr(self, name) for name in COLUMNS})

    def checksum(self, sums: crc.Sums | None = None) -> str:
        """Return a sha256 over the content; pass the activations' checksums as `sums` if they are known."""
        return checksum_of(self, sums)


COLUMNS = {
    name: array for table in TOKEN_PART.values() for name, array in table.items() if name != "activations"
}
"""The columns of `TokenColumns`."""
