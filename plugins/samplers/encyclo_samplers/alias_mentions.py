"""How a prompt mentions its concept: by the name, or about a third of the time by an alias that mostly means it."""

from __future__ import annotations

from random import Random

from encyclo.held_out_aliases import clear_aliases, named
from encyclo.types import Concept

SHARE = 1 / 3
"""The part of a concept's prompts that use an alias, if it has a clear one."""
FINGERPRINT = f"aliases {SHARE}"
"""Makes prompts differ, for the samplers' fingerprints, from those of the versions that used names only."""


def alias_or_name(concept: Concept, random: Random) -> Concept:
    """Return the concept, or about a third of the time the concept under a clear alias, if it has one."""
    aliases = clear_aliases(concept)
    return named(concept, random.choice(aliases)) if aliases and random.random() < SHARE else concept
