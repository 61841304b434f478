"""Text as data: which characters stores can hold, and which a terminal or a file may show."""

from __future__ import annotations

import re
from collections.abc import Iterable

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, but not the tab and the line end
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # they change the direction or end the line
    "\ud800-\udfff]"  # lone surrogates, which UTF-8 has none of
)

NAMES: dict[str, str] = {}
"""What this process's messages call a folder: a run's URL, in place of the folder that the run is copied to."""


def named(text: str) -> str:
    """Return a message with the names of `NAMES`."""
    for folder, name in NAMES.items():
        text = text.replace(folder, name)
    return text


def printable(text: str) -> str:
    r"""Return text from outside made safe for a terminal: what would control it is written as `\x1b` or `\u202e`.

    Line ends and tabs stay. An escape sequence in a concept's name would otherwise move the cursor, rename the
    window or hide what stands behind it; a bidirectional one would show a file's name backwards.
    """
    return _UNSAFE.sub(_escape, text)


def one_line(text: str) -> str:
    """Return a foreign text as `printable` does, on one line: a line end is written as an escape, too."""
    return printable(text).replace("\n", "\\n")


def utf8(text: str) -> str:
    r"""Return the text with lone surrogates, which UTF-8 can't encode, written as `\ud800`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def unstorable(texts: Iterable[str]) -> str | None:
    """Return the first character that can't be stored, such as "U+0000"; None if there is none.

    HDF5's strings end at the first NUL, and UTF-8 can't encode lone surrogates.
    """
    found = _UNSTORABLE.search("".join(texts))
    return f"U+{ord(found[0]):04X}" if found else None


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
