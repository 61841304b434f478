"""Suggestions for a name that was not found."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from itertools import chain

from encyclo.english import without_qualifier
from encyclo.text import printable

CLOSE = 1000
"""How many names that have parts in common with the one asked for are compared closely."""


def nearest_names(name: str, names: Sequence[str], count: int = 5) -> list[str]:
    """Return at most `count` names, or words of names, that `name` may mean, the likeliest first; case is ignored."""
    folded: dict[str, str] = {}
    for other in chain(names, map(without_qualifier, names)):
        folded.setdefault(other[:60].casefold(), other)
    asked = name[:60].casefold().strip()
    close = difflib.get_close_matches(asked, folded, n=CLOSE, cutoff=0.5)
    near = sorted(close, key=lambda other: -_likeness(asked, other))[:count]
    # A word of a longer name suggests that name, however long it is.
    holding = sorted(
        (key for key in folded if asked and asked in key and key not in near), key=lambda k: (len(k), k)
    )
    chosen = near[:1] + holding[: count - 1] + near[1:]
    return [printable(folded[key][:60]) for key in chosen[:count]]


def _likeness(one: str, other: str) -> float:
    """Return how like two texts are: by their common parts, by their letters in any order, and by the first letter.

    Letters that changed places ("aminal") break the common parts but are no other letters; the first is rarely wrong.
    """
    matcher = difflib.SequenceMatcher(None, one, other)
    return matcher.ratio() + matcher.quick_ratio() + (one[:1] == other[:1]) / 4
