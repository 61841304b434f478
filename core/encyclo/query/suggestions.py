"""Suggestions for a name that was not found."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from encyclo.text import printable


def nearest_names(name: str, names: Sequence[str], count: int = 5) -> list[str]:
    """Return at most `count` names that `name` may mean, the likeliest first; case is ignored."""
    folded: dict[str, str] = {}
    for other in names:
        folded.setdefault(other[:60].casefold(), other)
    asked = name[:60].casefold().strip()
    near = difflib.get_close_matches(asked, folded, n=count, cutoff=0.5)
    # A word of a longer name suggests that name, however long it is.
    holding = sorted(
        (key for key in folded if asked and asked in key and key not in near), key=lambda k: (len(k), k)
    )
    chosen = near[:1] + holding[: count - 1] + near[1:]
    return [printable(folded[key][:60]) for key in chosen[:count]]
