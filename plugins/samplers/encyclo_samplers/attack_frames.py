"""Frames of the adversarial sampler: sentences with slots for the concept and for names of other concepts."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from encyclo.english import as_word
from encyclo.types import Concept, Prompt
from encyclo_samplers.templates import SLOT, capital, packaged, put, written_form

OTHERS = ("other", "second", "third")
NOT_OWN = frozenset({*OTHERS, "meaning", "list"})
CONFUSED = 3
"""A frame names at most this many other concepts."""


@dataclass(frozen=True)
class Frame:
    """A sentence with slots; `kind` is its kind of attack, `family` its unique name."""

    kind: str
    family: str
    text: str

    @property
    def needs(self) -> frozenset[str]:
        """Return the slots other than the concept's."""
        return NOT_OWN & set(SLOT.findall(self.text))


@cache
def frames(part_of_speech: str, judging: bool) -> tuple[Frame, ...]:
    """Return the frames for a part of speech: to make samples or, if `judging`, only to judge."""
    role = "test" if judging else "train"
    group = "noun" if part_of_speech == "noun" else "other"
    return tuple(
        Frame(kind, f"adversarial.{kind}.{group}.{role}.{number}", line)
        for kind, groups in tomllib.loads(packaged("attack_frames.toml")).items()
        for number, line in groups[group][role].items()
    )


def fill(
    frame: Frame, concept: Concept, others: Sequence[Concept], words: Sequence[str] = ()
) -> Prompt | None:
    """Return the filled frame as a prompt about `concept`; None if a value for a slot is missing.

    Names are data: inserted text is never searched for slots.
    """
    values = dict(zip(OTHERS, (as_word(other).name for other in others), strict=False))
    if others and others[0].definition:
        values["meaning"] = others[0].definition
    if words:
        values["list"] = ", ".join(words)
    if not frame.needs <= values.keys():
        return None
    slot = next(match for match in SLOT.finditer(frame.text) if match[1] not in NOT_OWN)
    article, word = written_form(as_word(concept), slot[1])
    before = capital(put(frame.text[: slot.start()], values)) + article
    text = before + word + put(frame.text[slot.end() :], values)
    return Prompt(concept.id, text, (len(before), len(before) + len(word)), frame.family)
