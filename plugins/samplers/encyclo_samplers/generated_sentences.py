"""Sentences that the model itself writes about a concept, at several temperatures; only usable ones are kept.

The model goes on with a small dictionary of examples, so that one line of it becomes a sentence with the word.
What was kept is recorded in the run, a file a slice of concepts, and never generated twice.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from encyclo.seeds import derive_seed
from encyclo.storage import files
from encyclo.types import Concept, Context, Opening, Prompt
from encyclo_samplers.inflection import forms
from encyclo_samplers.sentence_filter import fault, find_mention, sentence_end

REGISTERS = ("news", "dialogue", "novel", "advice", "question", "history", "letter")
PREFIX = """\
Short examples from a dictionary: for every word a source, and one sentence that uses the word.

river, news: After a week of heavy rain, two rivers burst their banks on Sunday.
borrow, dialogue: "I borrowed her umbrella and lost it," he admitted.
patience, advice: Good bread needs a warm kitchen and some patience.
narrow, novel: They squeezed through the narrow gate and ran.
bridge, history: The old town had three bridges before the war.
honest, question: Would an honest shopkeeper have kept the change?
salt, letter: We are all well, but the soup still needs salt.
"""
EXAMPLES = tuple(re.findall(r": (.+)$", PREFIX, re.M))[1:]
LONGEST = 32
"""New tokens a sentence may have."""
NAMED_AT_ONCE = 5


@dataclass
class Yield:
    """What generation gave for one concept: sentences kept, how many were asked for, why others were dropped."""

    kept: list[Prompt] = field(default_factory=list)
    asked: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Recipe:
    """How sentences are generated: kinds of them in all, and how many tries each has."""

    temperatures: tuple[float, ...]
    attempts: int

    def kind(self, concept: Concept, stage: int, context: Context, number: int) -> tuple[str, float]:
        """Return register and temperature of a concept's sentence `number`: all kinds in turn, shuffled."""
        kinds = [(register, t) for register in REGISTERS for t in self.temperatures]
        context.random(stage, concept.id).shuffle(kinds)
        return kinds[number % len(kinds)]


def generate(
    concepts: Sequence[Concept], wanted: Mapping[str, int], stage: int, context: Context, recipe: Recipe
) -> dict[str, Yield]:
    """Return each concept's sentences, at most `wanted` of them: from the run's record, or generated now.

    For a sentence that can't be kept another is asked for; each of those wanted has `attempts` tries.
    """
    record = context.folder / "generated" / f"{_key(concepts, wanted, stage, context, recipe)}.json"
    found = _recorded(record)
    if found is not None:
        return found
    assert context.model is not None
    begun = time.perf_counter()
    desk = _Desk(concepts, wanted, stage, context, recipe)
    if openings := desk.first():
        context.model.generate(PREFIX, openings, LONGEST, sentence_end, desk.answer)
    found = {concept.id: desk.drafts[concept.id].found for concept in concepts}
    _keep(record, found, wanted)
    _tell(context, concepts, found, wanted, time.perf_counter() - begun)
    return found


def is_word(name: str) -> bool:
    """Return whether a name has a letter or digit: without one no sentence can be seen to mention it."""
    return any(character.isalnum() for character in name)


@dataclass
class _Draft:
    """A concept's sentences on their way. Number n + wanted stands in for number n, should that be refused."""

    concept: Concept
    wanted: int
    found: Yield = field(default_factory=Yield)
    asked: set[int] = field(default_factory=set)
    ended: dict[int, Prompt | None] = field(default_factory=dict)
    """What has ended and waits for earlier ones to be judged; None what was refused at once."""
    judged: int = 0


class _Desk:
    """Asks for sentences, judges them as they end and asks at once for others in place of those it refuses.

    Sentences end in any order. Whether one is too much like those kept before is judged in the order of their
    numbers, so that what is kept never depends on which ended first.
    """

    def __init__(
        self,
        concepts: Sequence[Concept],
        wanted: Mapping[str, int],
        stage: int,
        context: Context,
        recipe: Recipe,
    ) -> None:
        self.stage, self.context, self.recipe = stage, context, recipe
        self.drafts = {c.id: _Draft(c, wanted[c.id] if is_word(c.name) else 0) for c in concepts}
        self.places: list[tuple[_Draft, int, str]] = []
        """By place: whose sentence it is, its number there, its family."""

    def first(self) -> list[Opening]:
        """Return the openings of what is wanted."""
        return [self._ask(draft, n) for draft in self.drafts.values() for n in range(draft.wanted)]

    def answer(self, place: int, text: str) -> list[Opening]:
        """Judge the continuation at `place`; return the openings that it makes necessary."""
        draft, number, family = self.places[place]
        text, concept = " ".join(text.split()), draft.concept
        reason = fault(text, concept, EXAMPLES)
        if reason:
            draft.ended[number] = None
            return [*self._refuse(draft, number, reason), *self._judge(draft)]
        draft.ended[number] = Prompt(concept.id, text, find_mention(text, concept), family)
        return self._judge(draft)

    def _judge(self, draft: _Draft) -> list[Opening]:
        """Keep what has ended, in the order of the numbers, unless it repeats what is kept."""
        openings: list[Opening] = []
        while draft.judged < self.recipe.attempts * draft.wanted:
            number = draft.judged
            if number in draft.asked:
                if number not in draft.ended:
                    break
                prompt = draft.ended.pop(number)
                kept = draft.found.kept
                if prompt and (reason := fault(prompt.text, draft.concept, [other.text for other in kept])):
                    openings += self._refuse(draft, number, reason)
                elif prompt:
                    kept.append(prompt)
            draft.judged += 1
        return openings

    def _refuse(self, draft: _Draft, number: int, reason: str) -> list[Opening]:
        draft.found.dropped[reason] += 1
        following = number + draft.wanted
        return [self._ask(draft, following)] if following < self.recipe.attempts * draft.wanted else []

    def _ask(self, draft: _Draft, number: int) -> Opening:
        concept = draft.concept
        register, temperature = self.recipe.kind(concept, self.stage, self.context, number)
        draft.asked.add(number)
        draft.found.asked += 1
        self.places.append((draft, number, f"generated.{register}.T{temperature:g}"))
        seed = derive_seed(self.context.seed, self.stage, concept.id, "generated", number)
        wishes = forms(concept.name, concept.part_of_speech)
        return Opening(f"{concept.name}, {register}:", temperature, seed, wishes)


def _key(
    concepts: Sequence[Concept], wanted: Mapping[str, int], stage: int, context: Context, recipe: Recipe
) -> str:
    """Return a hash of everything that the sentences depend on."""
    assert context.model is not None
    parts: Any = [
        PREFIX,
        REGISTERS,
        LONGEST,
        dataclasses.asdict(recipe),
        [context.model.weights_sha256, context.model.dtype, context.device],
        [context.seed, stage],
        [[c.id, c.name, c.part_of_speech, wanted[c.id]] for c in concepts],
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _keep(record: Path, found: Mapping[str, Yield], wanted: Mapping[str, int]) -> None:
    """Write what was generated, whole or not at all."""
    record.parent.mkdir(parents=True, exist_ok=True)
    content = {
        concept: {
            "wanted": wanted[concept],
            "asked": own.asked,
            "dropped": dict(sorted(own.dropped.items())),
            "kept": [[p.text, *(p.span or ()), p.family] for p in own.kept],
        }
        for concept, own in found.items()
    }
    files.write_json(record, content)


def _recorded(record: Path) -> dict[str, Yield] | None:
    """Return what a record holds; None where there is none, or it can't be read (it is then made anew)."""
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        return {
            concept: Yield(
                [Prompt(concept, text, (start, end), family) for text, start, end, family in own["kept"]],
                own["asked"],
                Counter(own["dropped"]),
            )
            for concept, own in content.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _tell(
    context: Context,
    concepts: Sequence[Concept],
    found: Mapping[str, Yield],
    wanted: Mapping[str, int],
    seconds: float,
) -> None:
    """Say how much was kept, at which rate, and which concepts have too few sentences."""
    if context.progress is None:
        return
    kept, asked = (sum(n) for n in zip(*((len(y.kept), y.asked) for y in found.values()), strict=True))
    if asked:
        context.progress.stage(
            f"Generated {asked:,} sentences about {len(concepts):,} concepts and kept {kept:,} of them "
            f"({kept / asked:.0%}), {kept / seconds:,.0f} a second"
        )
    short = [c.name for c in concepts if len(found[c.id].kept) < wanted[c.id]]
    if short:
        more = f" and {len(short) - NAMED_AT_ONCE:,} more" if len(short) > NAMED_AT_ONCE else ""
        context.progress.stage(
            f"Too few usable sentences about {', '.join(short[:NAMED_AT_ONCE])}{more}: made up from written frames"
        )
