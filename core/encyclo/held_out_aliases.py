"""Half of each entry's aliases are held out of sampling: they test whether an interpreter reads a word it never saw."""

from __future__ import annotations

import dataclasses

from encyclo.english import find_mention
from encyclo.seeds import derive_seed
from encyclo.types import Concept

MOSTLY = 0.5
"""A word whose uses mean an entry at least this often means it without further context."""


def held_out(concept: Concept, seed: int) -> tuple[str, ...]:
    """Return the half of a concept's aliases that no prompt may use; if their number is odd, a coin rounds."""
    order = sorted(set(concept.aliases), key=lambda alias: derive_seed(seed, "alias", concept.id, alias))
    coin = derive_seed(seed, "aliases", concept.id) % 2
    return tuple(order[: (len(order) + coin) // 2])


def without_held_out(concept: Concept, seed: int) -> Concept:
    """Return the concept as samplers get it: its held-out aliases are in `held_out_aliases` only."""
    out = held_out(concept, seed)
    kept = [place for place, alias in enumerate(concept.aliases) if alias not in out]
    shares = concept.word_shares
    return dataclasses.replace(
        concept,
        aliases=tuple(concept.aliases[place] for place in kept),
        word_shares=(shares[0], *(shares[1 + place] for place in kept)) if shares else (),
        held_out_aliases=(*concept.held_out_aliases, *out),
    )


def clear_aliases(concept: Concept) -> tuple[str, ...]:
    """Return the aliases that mostly mean the concept, as far as its list knows."""
    shares = concept.word_shares[1:] or (1.0,) * len(concept.aliases)
    return tuple(alias for alias, share in zip(concept.aliases, shares, strict=True) if share >= MOSTLY)


def named(concept: Concept, name: str) -> Concept:
    """Return the concept under another of its names; whether that one is countable is not known."""
    return dataclasses.replace(concept, name=name, aliases=(), word_shares=(), countable=None)


def mentions_held_out(text: str, concept: Concept) -> bool:
    """Return whether a text has a held-out alias of the concept, inflected or not."""
    return any(find_mention(text, named(concept, alias)) for alias in concept.held_out_aliases)
