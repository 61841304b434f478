"""Text as data: which characters stores can hold, and which a terminal or a file may show."""

from __future__ import annotations

import re
from collections.abc import Iterable

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """Return text from outside made safe for a terminal: control characters, except line ends and tabs, are replaced.

    An escape sequence in a concept's name would otherwise move the cursor or rename the window.
    """
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def utf8(text: str) -> str:
    r"""Return the text with lone surrogates, which UTF-8 can't encode, written as `\ud800`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def unstorable(texts: Iterable[str]) -> str | None:
    """Return the first character that can't be stored, such as "U+0000"; None if there is none.

    HDF5's strings end at the first NUL, and UTF-8 can't encode lone surrogates.
    """
    found = _UNSTORABLE.search("".join(texts))
    return f"U+{ord(found[0]):04X}" if found else None
