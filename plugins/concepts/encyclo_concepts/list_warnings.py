"""Warnings about a user's list: what can be read, and may not be meant."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path

from encyclo.errors import ConceptListWarning
from encyclo.table_files import Record, shown, where

MARKER = re.compile(r"\s*(?:[-*•]|\d{1,6}[.)]|(?P<comment>#+))\s+(?=\S)")
"""What a line of a bulleted or numbered list begins with, or a comment."""
LONGEST_NAME = 100


def without_markers(records: Sequence[Record]) -> list[Record]:
    """Return the names without their bullets and numbers; lines that begin with `# ` are left out."""
    found = [(place, record["name"], MARKER.match(record["name"])) for place, record in records]
    return [
        (place, {"name": name[marker.end() :] if marker else name})
        for place, name, marker in found
        if not (marker and marker["comment"])
    ]


def warn_of_markers(path: Path, records: Sequence[Record]) -> None:
    """Warn if names begin with a bullet, a number or `# `, which were kept."""
    marked = [(place, record["name"].strip()) for place, record in records if MARKER.match(record["name"])]
    if marked:
        place, name = marked[0]
        _warn(
            f"{path} {where(place)}: the name is taken as {shown(name)}{_others(marked)}; leave out bullets, "
            "numbers and comments with -o file.markers=strip, or keep them with -o file.markers=keep."
        )


def warn_of_names(path: Path, names: Sequence[tuple[int | str, str]]) -> None:
    """Warn of names with invisible characters, and of very long ones. names: places with names."""
    unseen = [(place, name) for place, name in names if any(map(_is_invisible, name))]
    if unseen:
        place, name = unseen[0]
        code = ord(next(filter(_is_invisible, name)))
        _warn(
            f"{path} {where(place)}: the name {shown(name)} has the invisible character U+{code:04X}"
            f"{_others(unseen)}; prompts contain it, so delete it unless it belongs there."
        )
    long = [(place, name) for place, name in names if len(name) > LONGEST_NAME]
    if long:
        place, name = long[0]
        _warn(
            f"{path} {where(place)}: the name {shown(name)} has {len(name):,} characters{_others(long)}; one of more "
            f"than {LONGEST_NAME} rarely fits a prompt, so shorten it, or move the text to the column definition."
        )


def warn_of_nouns(path: Path, records: Sequence[Record]) -> None:
    """Warn if the list gives names alone, so that every concept is a noun."""
    if all(record.keys() <= {"name", "id"} for _, record in records):
        _warn(
            f"{path} has names alone, so every concept is taken for a noun; if some are verbs, adjectives or adverbs, "
            "say so in a column part_of_speech of a .csv file."
        )


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) == "Cf"


def _others(found: Sequence[object]) -> str:
    more = len(found) - 1
    return f" ({more:,} more like it)" if more else ""


def _warn(text: str) -> None:
    warnings.warn(text, ConceptListWarning, stacklevel=3)
