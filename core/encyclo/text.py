r"""Text as stores keep it: names and prompts are data, whatever characters they hold.

UTF-8 has no lone surrogates, and HDF5's strings end at the first NUL. A column in which a text has either is
written escaped, and says so in its attribute `escaped` (1): a backslash is `\\`, a NUL `\0`, a surrogate
`\uD800` with its four digits. Every other column is written as it is. The same in every store.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

ESCAPED = "escaped"
"""The attribute of a column whose texts are escaped."""

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_SPECIAL = re.compile("[\\\\\0\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_ESCAPE = re.compile(r"\\(?:(\\)|(0)|u([0-9A-F]{4}))|\\")


def printable(text: str) -> str:
    """Return a stranger's text as a terminal may have it: control characters but line ends and tabs replaced.

    An escape sequence in a concept's name would otherwise move the cursor or rename the window.
    """
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def utf8(text: str) -> str:
    r"""Return the text with lone surrogates, which UTF-8 has none of, written as `\ud800`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def needs_escape(texts: Iterable[str]) -> bool:
    """Return whether one of the texts can't be stored as it is."""
    joined = "".join(texts)
    if joined.isascii():
        return "\0" in joined
    return _UNSTORABLE.search(joined) is not None


def escape(texts: Sequence[str], needed: bool) -> list[str]:
    """Return the texts as they are stored; `needed` where one of the column's texts needs it."""
    return [_SPECIAL.sub(_escape, text) for text in texts] if needed else list(texts)


def unescape(texts: Sequence[str], escaped: bool) -> list[str]:
    """Return what `escape` was given. Raises ValueError for a text that `escape` never writes."""
    return [_ESCAPE.sub(_unescape, text) for text in texts] if escaped else list(texts)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character == "\\":
        return "\\\\"
    return "\\0" if character == "\0" else f"\\u{ord(character):04X}"


def _unescape(match: re.Match[str]) -> str:
    if match[1]:
        return "\\"
    if match[2]:
        return "\0"
    if match[3] and 0xD800 <= int(match[3], 16) <= 0xDFFF:
        return chr(int(match[3], 16))
    raise ValueError(f"a text has the unknown escape {match.string[match.start() :][:8]!r}")
