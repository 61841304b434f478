"""Creates attacks on an interpreter and scores them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from random import Random

import numpy as np

from encyclo.english import as_word
from encyclo.types import Concept, Context, Prompt
from encyclo_samplers.attack_frames import CONFUSED, Frame, fill, frames

NEIGHBOURS = 8
"""Attacks draw from at most this many concepts that the target is most confused with."""
WORD = re.compile(r"[^\W\d_]{4,}")


@dataclass(frozen=True)
class Attack:
    """A prompt and the interpreter's reading of it."""

    prompt: Prompt
    margin: float
    """The concept's score minus the best other concept's; negative if the prompt is misread."""
    other: Concept
    """The best other concept."""

    def record(self) -> dict[str, str | float]:
        """Return the attack as the run records it."""
        text, family = self.prompt.text, self.prompt.family
        return {"text": text, "family": family, "margin": self.margin, "read_as": self.other.name}


@dataclass(frozen=True)
class Target:
    """A concept under attack, the concepts it is most confused with, context words, and a random generator."""

    concept: Concept
    others: tuple[Concept, ...]
    words: tuple[str, ...]
    random: Random


class AttackSearch:
    """Finds attacks on a run's interpreter, with the run's capture."""

    def __init__(self, context: Context, beam: int, words: int, steps: int) -> None:
        """Each of the search's `steps` tries `words` words on each sentence and keeps `beam` sentences."""
        assert (
            context.interpreter is not None and context.capture is not None and context.signatures is not None
        )
        self.context, self.beam, self.words, self.steps = context, beam, words, steps
        self.interpreter, self.capture = context.interpreter, context.capture
        self.signatures = context.signatures
        by_id = {concept.id: concept for concept in context.all_concepts}
        self.concepts = [by_id[name] for name in self.interpreter.concepts]
        self.place = {concept.id: index for index, concept in enumerate(self.concepts)}

    def attack(self, concepts: Sequence[Concept], stage: int) -> dict[str, list[Attack]]:
        """Return {concept id: scored attacks}, without prompts that are truly about the concept they are read as."""
        targets = self._targets(concepts, stage)
        framed = [prompt for target in targets for prompt in self._fill_frames(target)]
        prompts = list(dict.fromkeys([*framed, *self._beam_search(targets)]))
        attacks: dict[str, list[Attack]] = {concept.id: [] for concept in concepts}
        for attack in self._read(prompts):
            concept = self.concepts[self.place[attack.prompt.concept]]
            if attack.margin >= 0 or not truly_about(attack.prompt, concept, attack.other):
                attacks[concept.id].append(attack)
        return attacks

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
        """Return the words of the others' names and definitions, without the words of the concept's names."""
        excluded = {word.lower() for name in _words(concept) for word in WORD.findall(name)}
        names = [_words(other)[0] for other in others]
        meanings = [word for other in others for word in WORD.findall(other.definition)]
        words = dict.fromkeys(word for word in (*names, *meanings) if word.lower() not in excluded)
        return tuple(words)

    def _fill_frames(self, target: Target) -> list[Prompt]:
        """Return each frame once, filled with a random choice of the target's others."""
        prompts = []
        for frame in self._frames(target, search=False):
            others = target.random.sample(target.others, min(CONFUSED, len(target.others)))
            prompt = fill(frame, target.concept, others)
            if prompt is not None:
                prompts.append(prompt)
        return prompts

    def _frames(self, target: Target, search: bool) -> list[Frame]:
        every_frame = frames(target.concept.part_of_speech, self.context.judging)
        return [frame for frame in every_frame if (frame.kind == "search") == search]

    def _beam_search(self, targets: Sequence[Target]) -> list[Prompt]:
        """Return the result of a beam search over context words: at most `beam` sentences per concept.

        All concepts take each step together, which fills the capture's batches.
        """
        if self.beam == 0:
            return []
        frame = {t.concept.id: t.random.choice(self._frames(t, search=True)) for t in targets}
        chosen: dict[str, list[tuple[str, ...]]] = {}
        beams: dict[str, list[Prompt]] = {}
        for _ in range(self.steps):
            tried: dict[Prompt, tuple[str, ...]] = {}
            for target in targets:
                name = target.concept.id
                words = target.random.sample(target.words, min(self.words, len(target.words)))
                for start, word in product(chosen.get(name, [()]), words):
                    prompt = fill(frame[name], target.concept, (), (*start, word))
                    if word not in start and prompt is not None:
                        tried[prompt] = (*start, word)
            beams = {}
            for attack in sorted(self._read(list(tried)), key=lambda a: (a.margin, a.prompt.text)):
                beam = beams.setdefault(attack.prompt.concept, [])
                if len(beam) < self.beam:
                    beam.append(attack.prompt)
            chosen = {name: [tried[prompt] for prompt in beam] for name, beam in beams.items()}
        return [prompt for target in targets for prompt in beams.get(target.concept.id, [])]

    def _read(self, prompts: Sequence[Prompt]) -> list[Attack]:
        """Score each prompt; return it as an attack."""
        if not prompts:
            return []
        scores = self.interpreter.read(self.capture(prompts))
        rows, own = np.arange(len(prompts)), [self.place[prompt.concept] for prompt in prompts]
        others = scores.copy()
        others[rows, own] = -np.inf
        best = others.argmax(axis=1)
        margins = scores[rows, own] - others[rows, best]
        return [
            Attack(prompt, float(margin), self.concepts[other])
            for prompt, margin, other in zip(prompts, margins, best.tolist(), strict=True)
        ]


def related(concept: Concept, other: Concept) -> bool:
    """Return whether confusing the two is hardly wrong: they share a word, or one is the broader concept.

    No frame says which sense of a shared word is meant.
    """
    names = {name.casefold() for name in _words(concept)}
    shared = names & {name.casefold() for name in _words(other)}
    return bool(shared) or concept.broader == other.id or other.broader == concept.id


def truly_about(prompt: Prompt, concept: Concept, other: Concept) -> bool:
    """Return whether reading a prompt as `other` is right.

    It is if the two concepts are related, or if the mention is part of a longer name of `other` ("dog" in "hot dog").
    """
    if related(concept, other):
        return True
    assert prompt.span is not None
    start, end = prompt.span
    for name in _words(other):
        for match in re.finditer(re.escape(name), prompt.text, re.IGNORECASE):
            if match.start() <= start and end <= match.end():
                return True
    return False


def _words(concept: Concept) -> tuple[str, ...]:
    """Return the words by which texts mention a concept, its name first."""
    return (as_word(concept).name, *concept.aliases, *concept.held_out_aliases)
