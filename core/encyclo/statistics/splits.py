"""Split samples into training and judging, by whole prompt family or concept, never at random over samples.

The leak checks find what both sides of a split share: a prompt, or (for definitions) a word of the concept's name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from random import Random

from encyclo.english import content_stems, normalised, without_qualifier
from encyclo.seeds import derive_seed
from encyclo.types import Concept, Split

# The share of a stage's families that judge calibration, that judge accuracy, and that stop training,
# each. The rest trains.
HELD_OUT_SHARE = 0.15
UNSEEN_SHARE = 0.2
"""The share of concepts that the rung `unseen` keeps from training."""


Group = int | tuple[int, str]
"""A stage, or a stage and one of the samplers that share it."""


def split_families(
    families: Mapping[Group, Sequence[str]], seed: int, chosen: Collection[Group] = ()
) -> dict[str, Split]:
    """Assign every family to one split, whichever groups it occurs in.

    `families` lists each group's families; a family is assigned in its first group. A group with one new family
    only trains; with two, one tests; with three, one also calibrates; from four on, every split has at least one.
    All families of the groups in `chosen` only train: their prompts were chosen because they are misread, so they
    would make every interpreter look worse than it is.
    """
    assigned = {name: Split.TRAIN for group in chosen for name in families.get(group, ())}
    keyed = {group if isinstance(group, tuple) else (group,): names for group, names in families.items()}
    for key, names in sorted(keyed.items()):
        shuffled = sorted(set(names) - assigned.keys())
        Random(derive_seed(seed, "families", *key)).shuffle(shuffled)
        each = max(1, round(HELD_OUT_SHARE * len(shuffled)))
        held_out = [Split.TEST] * each + [Split.CALIBRATION] * each + [Split.VALIDATION] * each
        spare = len(shuffled) - 1
        for index, name in enumerate(shuffled):
            keep = index < min(spare, len(held_out))
            assigned[name] = held_out[index] if keep else Split.TRAIN
    return assigned


def unseen_concepts(concepts: Sequence[Concept], seed: int, fifth: int = 0) -> list[int]:
    """Return the indices of the fifth of the concepts that is kept from training, ascending.

    There are five such fifths, 0 to 4; `encyclo evaluate` uses the first.
    """
    order = sorted(range(len(concepts)), key=lambda i: derive_seed(seed, "unseen", concepts[i].id))
    first, last = (round(UNSEEN_SHARE * place * len(concepts)) for place in (fifth, fifth + 1))
    return sorted(order[first:last])


def leaked_prompts(training: Iterable[str], judging: Sequence[str]) -> set[int]:
    """Return the indices in `judging` of texts that are in `training` too, ignoring case and blanks.

    `training` is iterated once and may be long.
    """
    places: dict[str, list[int]] = {}
    for place, text in enumerate(judging):
        places.setdefault(normalised(text), []).append(place)
    return {place for text in training for place in places.get(normalised(text), ())}


def names_itself(concept: Concept, definition: str) -> bool:
    """Return whether a definition shares a content word with the concept's name or aliases, by their stems."""
    own = set().union(*(content_stems(without_qualifier(name)) for name in (concept.name, *concept.aliases)))
    return bool(own & content_stems(definition))
