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
from encyclo.types import Concept, Context, Opening, Prompt, TextGenerator
from encyclo_samplers.inflection import forms
from encyclo_samplers.sentence_filter import STOP, fault, find_mention, sentence_end

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


_told: set[Path] = set()
"""Folders of runs whose model can't write, where that has been said."""


def can_write(context: Context) -> bool:
    """Return whether the run's model writes sentences; say once a run that it doesn't."""
    if isinstance(context.model, TextGenerator):
        return True
    if context.progress is not None and context.folder not in _told and context.model is not None:
        _told.add(context.folder)
        context.progress.stage(
            f"The model {context.model.name!r} can't write sentences: written frames stand in for them; "
            "-o diverse.generated=0 asks for none"
        )
    return False


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
    assert isinstance(context.model, TextGenerator)
    begun = time.perf_counter()
    found = _in_rounds(concepts, wanted, stage, context, recipe, context.model)
    _keep(record, found, wanted)
    _tell(context, concepts, found, wanted, time.perf_counter() - begun)
    return found


def is_word(name: str) -> bool:
    """Return whether a name has a letter or digit: without one no sentence can be seen to mention it."""
    return any(character.isalnum() for character in name)


def _in_rounds(
    concepts: Sequence[Concept],
    wanted: Mapping[str, int],
    stage: int,
    context: Context,
    recipe: Recipe,
    model: TextGenerator,
) -> dict[str, Yield]:
    """Ask for all sentences, judge them in order, then ask for others in place of those refused, and so on.

    A concept's sentence number n + wanted replaces number n, until each has had its attempts. A round's sentences
    are judged in order, together with those kept so far.
    """
    found = {concept.id: Yield() for concept in concepts}
    asked = [(concept, n) for concept in concepts if is_word(concept.name) for n in range(wanted[concept.id])]
    while asked:
        openings, families = zip(*(_opening(*one, stage, context, recipe) for one in asked), strict=True)
        texts = model.generate(PREFIX, openings, LONGEST, STOP)
        refused = []
        for (concept, number), family, text in zip(asked, families, texts, strict=True):
            own = found[concept.id]
            own.asked += 1
            text = " ".join(text[: sentence_end(text)].split())
            reason = fault(text, concept, [*EXAMPLES, *(prompt.text for prompt in own.kept)])
            if reason is None:
                own.kept.append(Prompt(concept.id, text, find_mention(text, concept), family))
                continue
            own.dropped[reason] += 1
            if number + wanted[concept.id] < recipe.attempts * wanted[concept.id]:
                refused.append((concept, number + wanted[concept.id]))
        asked = refused
    return found


def _opening(
    concept: Concept, number: int, stage: int, context: Context, recipe: Recipe
) -> tuple[Opening, str]:
    """Return how a concept's sentence `number` begins, and its family."""
    register, temperature = recipe.kind(concept, stage, context, number)
    seed = derive_seed(context.seed, stage, concept.id, "generated", number)
    words = forms(concept.name, concept.part_of_speech)
    opening = Opening(f"{concept.name}, {register}:", temperature, seed, words)
    return opening, f"generated.{register}.T{temperature:g}"


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
        [context.model.weights_sha256, context.model.dtype, context.model.device],
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
