"""Sentences that the model itself writes about a concept, at several temperatures; only usable ones are kept.

The model continues a small dictionary of examples, so that each new line becomes a sentence with the word. The kept
sentences are recorded in the run, one file per slice of concepts, and are never generated twice.
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
from random import Random
from typing import Any

from encyclo.english import as_word, qualifier
from encyclo.errors import StoreError
from encyclo.held_out_aliases import clear_aliases
from encyclo.seeds import derive_seed
from encyclo.storage import files, safe_read
from encyclo.types import Concept, Context, Opening, Prompt, TextGenerator
from encyclo_samplers.alias_mentions import alias_or_name
from encyclo_samplers.descriptions import sense_values
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
"""The largest number of new tokens in a sentence."""
NAMED_AT_ONCE = 5


@dataclass
class Yield:
    """The generated sentences of one concept: those kept, how many were asked for, why others were dropped."""

    kept: list[Prompt] = field(default_factory=list)
    asked: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Recipe:
    """How sentences are generated: at which temperatures, and with how many tries each."""

    temperatures: tuple[float, ...]
    attempts: int

    def kind(self, concept: Concept, stage: int, context: Context, number: int) -> tuple[str, float]:
        """Return register and temperature of a concept's sentence `number`: all kinds in turn, shuffled."""
        kinds = [(register, t) for register in REGISTERS for t in self.temperatures]
        context.random(stage, concept.id).shuffle(kinds)
        return kinds[number % len(kinds)]


_reported: set[Path] = set()
"""Folders of runs for which a message has already said that the model can't write."""


def can_write(context: Context) -> bool:
    """Return whether the run's model writes sentences; report once per run that it doesn't."""
    if isinstance(context.model, TextGenerator) and getattr(context.model, "can_generate", True):
        return True
    if context.progress is not None and context.folder not in _reported and context.model is not None:
        _reported.add(context.folder)
        context.progress.stage(
            f"The model {context.model.name!r} can't write sentences, so written frames are used instead; "
            "-o diverse.generated=0 turns generation off"
        )
    return False


def generate(
    concepts: Sequence[Concept], wanted: Mapping[str, int], stage: int, context: Context, recipe: Recipe
) -> dict[str, Yield]:
    """Return each concept's sentences, at most `wanted` of them: from the run's record, or newly generated.

    A sentence that can't be kept is replaced by another; each wanted sentence has `attempts` tries.
    """
    record = context.folder / "generated" / f"{_key(concepts, wanted, stage, context, recipe)}.json"
    found = _recorded(record)
    if found is not None:
        return found
    assert isinstance(context.model, TextGenerator)
    begun = time.perf_counter()
    found = _in_rounds(concepts, wanted, stage, context, recipe, context.model)
    _keep(record, found, wanted)
    _report(context, concepts, found, wanted, time.perf_counter() - begun)
    return found


def is_word(name: str) -> bool:
    """Return whether a name has a letter or digit: without one, no sentence can be recognised as mentioning it."""
    return any(character.isalnum() for character in name)


def _in_rounds(
    concepts: Sequence[Concept],
    wanted: Mapping[str, int],
    stage: int,
    context: Context,
    recipe: Recipe,
    model: TextGenerator,
) -> dict[str, Yield]:
    """Ask for all sentences, check them in order, then ask for replacements of the refused ones, and so on.

    A concept's sentence number n + wanted replaces number n, until each has had its attempts. A round's sentences
    are judged in order, together with those kept so far.
    """
    found = {concept.id: Yield() for concept in concepts}
    asked = [
        (concept, n)
        for concept in concepts
        if is_word(as_word(concept).name)
        for n in range(wanted[concept.id])
    ]
    while asked:
        openings, families = zip(*(_opening(*one, stage, context, recipe) for one in asked), strict=True)
        texts = model.generate(PREFIX, openings, LONGEST, STOP)
        refused = []
        for (concept, number), family, text in zip(asked, families, texts, strict=True):
            own = found[concept.id]
            word = _word(concept, number, stage, context)
            own.asked += 1
            text = " ".join(text[: sentence_end(text)].split())
            reason = fault(text, word, [*EXAMPLES, *(prompt.text for prompt in own.kept)])
            if reason is None:
                own.kept.append(Prompt(concept.id, text, find_mention(text, word), family))
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
    word = _word(concept, number, stage, context)
    words = forms(as_word(word).name, concept.part_of_speech)
    opening = Opening(f"{_headword(word)}, {register}:", temperature, seed, words)
    return opening, f"generated.{register}.T{temperature:g}"


def _word(concept: Concept, number: int, stage: int, context: Context) -> Concept:
    """Return the concept under the word that its sentence `number` is asked for: its name or an alias."""
    return alias_or_name(concept, Random(derive_seed(context.seed, stage, concept.id, "alias", number)))


def _headword(concept: Concept) -> str:
    """Return the dictionary's word for a concept; if its name has a qualifier, with what settles the sense."""
    word = as_word(concept).name
    if not qualifier(" ".join(concept.name.split())):
        return word
    values = sense_values(concept)
    about = values.get("topic") or values.get("definition")
    return f"{word} ({about})" if about else word


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
        [[c.id, _headword(c), c.part_of_speech, wanted[c.id], *clear_aliases(c)] for c in concepts],
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _keep(record: Path, found: Mapping[str, Yield], wanted: Mapping[str, int]) -> None:
    """Write what was generated, atomically."""
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
    """Return a record's content; None if it is missing or unreadable (the sentences are then generated again)."""
    try:
        content = safe_read.read_json(record, at_most=safe_read.PLUGIN_JSON, within=record.parent)
        return {
            concept: Yield(
                [Prompt(concept, text, (start, end), family) for text, start, end, family in own["kept"]],
                own["asked"],
                Counter(own["dropped"]),
            )
            for concept, own in content.items()
        }
    except (StoreError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _report(
    context: Context,
    concepts: Sequence[Concept],
    found: Mapping[str, Yield],
    wanted: Mapping[str, int],
    seconds: float,
) -> None:
    """Report how much was kept, at which rate, and which concepts have too few sentences."""
    if context.progress is None:
        return
    kept, asked = (sum(n) for n in zip(*((len(y.kept), y.asked) for y in found.values()), strict=True))
    if asked:
        context.progress.stage(
            f"Generated {asked:,} sentences about {len(concepts):,} concepts and kept {kept:,} of them "
            f"({kept / asked:.0%}), {kept / seconds:,.0f} per second"
        )
    short = [c.name for c in concepts if len(found[c.id].kept) < wanted[c.id]]
    if short:
        more = f" and {len(short) - NAMED_AT_ONCE:,} more" if len(short) > NAMED_AT_ONCE else ""
        context.progress.stage(
            f"Too few usable sentences about {', '.join(short[:NAMED_AT_ONCE])}{more}; written frames fill the gap"
        )
