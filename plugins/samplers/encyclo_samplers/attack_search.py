"""Making attacks on an interpreter and reading what it makes of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from encyclo.types import Concept, Context, Prompt
from encyclo_samplers.attack_frames import CONFUSED, Frame, fill, frames

NEIGHBOURS = 8
"""A concept's most confused others, from which attacks draw."""
WORD = re.compile(r"[^\W\d_]{4,}")


@dataclass(frozen=True)
class Attack:
    """A prompt and what the interpreter made of it."""

    prompt: Prompt
    margin: float
    """The concept's score less the best other's: negative where it is misread."""
    read_as: str
    """The best other's name."""


@dataclass(frozen=True)
class Target:
    """A concept under attack: its most confused others, words of their surroundings, its own chance."""

    concept: Concept
    others: tuple[Concept, ...]
    words: tuple[str, ...]
    random: Random


class Arena:
    """The run's capture and interpreter, and attacks on them."""

    def __init__(self, context: Context, beam: int, words: int, steps: int) -> None:
        assert (
            context.interpreter is not None and context.capture is not None and context.signatures is not None
        )
        self.context, self.beam, self.words, self.steps = context, beam, words, steps
        self.interpreter, self.capture = context.interpreter, context.capture
        self.signatures = context.signatures
        known = {concept.id: concept for concept in context.all_concepts}
        self.concepts = [known[name] for name in self.interpreter.concepts]
        self.place = {concept.id: index for index, concept in enumerate(self.concepts)}

    def attack(self, concepts: Sequence[Concept], stage: int) -> dict[str, list[Attack]]:
        """Return by concept id every attack on it, read; those truly about what they are read as are left out."""
        targets = self._targets(concepts, stage)
        written = [prompt for target in targets for prompt in self._written(target)]
        prompts = list(dict.fromkeys([*written, *self._searched(targets)]))
        found: dict[str, list[Attack]] = {concept.id: [] for concept in concepts}
        for attack, other in self._read(prompts):
            own = self.concepts[self.place[attack.prompt.concept]]
            if attack.margin >= 0 or not truly_about(attack.prompt, own, other):
                found[own.id].append(attack)
        return found

    def _targets(self, concepts: Sequence[Concept], stage: int) -> list[Target]:
        rows = [self.place[concept.id] for concept in concepts]
        scores = self.interpreter.read(self.signatures.mean[rows])
        targets = []
        for concept, row in zip(concepts, scores, strict=True):
            order = [self.concepts[i] for i in np.argsort(-row, kind="stable")[: NEIGHBOURS + 8].tolist()]
            others = tuple(o for o in order if o.id != concept.id and not related(concept, o))[:NEIGHBOURS]
            targets.append(
                Target(concept, others, self._vocabulary(concept, others), self._random(stage, concept))
            )
        return targets

    def _random(self, stage: int, concept: Concept) -> Random:
        return self.context.random(stage + 100 if self.context.judging else stage, concept.id)

    def _vocabulary(self, concept: Concept, others: Sequence[Concept]) -> tuple[str, ...]:
        """Return words of the others' surroundings, none of them the concept's own name or in it."""
        own = {word.lower() for name in (concept.name, *concept.aliases) for word in WORD.findall(name)}
        names = [other.name for other in others]
        meanings = [word for other in others for word in WORD.findall(other.definition)]
        words = dict.fromkeys(word for word in (*names, *meanings) if word.lower() not in own)
        return tuple(words)

    def _written(self, target: Target) -> list[Prompt]:
        """Return each frame once, filled with others drawn from the most confused."""
        prompts = []
        for frame in self._frames(target, search=False):
            others = target.random.sample(target.others, min(CONFUSED, len(target.others)))
            prompt = fill(frame, target.concept, others)
            if prompt is not None:
                prompts.append(prompt)
        return prompts

    def _frames(self, target: Target, search: bool) -> list[Frame]:
        known = frames(target.concept.part_of_speech, self.context.judging)
        return [frame for frame in known if (frame.kind == "search") == search]

    def _searched(self, targets: Sequence[Target]) -> list[Prompt]:
        """Return what a beam search over context words ends in: `beam` sentences a concept.

        All concepts take a step together, so that the capture's batches are full.
        """
        if self.beam == 0:
            return []
        beams: dict[str, list[tuple[str, ...]]] = {}
        frame = {t.concept.id: t.random.choice(self._frames(t, search=True)) for t in targets}
        best: dict[str, list[Prompt]] = {}
        for _ in range(self.steps):
            tried: dict[Prompt, tuple[str, ...]] = {}
            for target in targets:
                name = target.concept.id
                words = target.random.sample(target.words, min(self.words, len(target.words)))
                for chosen in beams.get(name, [()]):
                    for word in words:
                        prompt = fill(frame[name], target.concept, (), (*chosen, word))
                        if word not in chosen and prompt is not None:
                            tried[prompt] = (*chosen, word)
            ranked = sorted(
                (attack for attack, _ in self._read(list(tried))), key=lambda a: (a.margin, a.prompt.text)
            )
            best = {}
            for attack in ranked:
                kept = best.setdefault(attack.prompt.concept, [])
                if len(kept) < self.beam:
                    kept.append(attack.prompt)
            beams = {name: [tried[prompt] for prompt in kept] for name, kept in best.items()}
        return [prompt for target in targets for prompt in best.get(target.concept.id, [])]

    def _read(self, prompts: Sequence[Prompt]) -> list[tuple[Attack, Concept]]:
        """Return each prompt read, with the best other concept."""
        if not prompts:
            return []
        scores = self.interpreter.read(self.capture(prompts))
        own = np.array([self.place[prompt.concept] for prompt in prompts])
        best, margins = _margins(scores, own)
        return [
            (Attack(prompt, float(margin), self.concepts[other].name), self.concepts[other])
            for prompt, margin, other in zip(prompts, margins, best.tolist(), strict=True)
        ]


def _margins(
    scores: NDArray[np.float32], own: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return each row's best other column and the margin to it: [n] each, from scores [n, C]."""
    rows = np.arange(len(own))
    mine = scores[rows, own]
    others = scores.copy()
    others[rows, own] = -np.inf
    best = others.argmax(axis=1)
    return best, mine - others[rows, best]


def related(concept: Concept, other: Concept) -> bool:
    """Return whether reading one for the other is hardly wrong: they share a name, or one is the other's kind."""
    names = {name.casefold() for name in (concept.name, *concept.aliases)}
    shared = names & {name.casefold() for name in (other.name, *other.aliases)}
    return bool(shared) or concept.broader == other.id or other.broader == concept.id


def truly_about(prompt: Prompt, concept: Concept, other: Concept) -> bool:
    """Return whether a prompt read as `other` is read rightly.

    So it is where the two are related, or where the mention is part of a longer name of the other ("dog" in
    "hot dog").
    """
    if related(concept, other):
        return True
    assert prompt.span is not None
    start, end = prompt.span
    for name in (other.name, *other.aliases):
        for match in re.finditer(re.escape(name), prompt.text, re.IGNORECASE):
            if match.start() <= start and end <= match.end():
                return True
    return False
