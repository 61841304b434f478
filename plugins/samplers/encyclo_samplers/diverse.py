"""Stage 2: sentences as people write them, from three sources.

definition.*, relation.*   the concept described, never named (definitions.py)
frame.PART.GENRE.*         written frames: situations, registers, genres (diverse.toml)
generated.REGISTER.T*      sentences that the model writes (generated_sentences.py)
A concept's examples by other authors are never touched: they judge the interpreter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import islice

from pydantic import BaseModel, ConfigDict, Field

from encyclo import hookimpl
from encyclo.types import Concept, Context, Prompt
from encyclo_samplers import definitions, generated_sentences
from encyclo_samplers.templates import (
    draw,
    fill,
    fingerprint,
    fitting_templates,
    kind_of,
    load_templates,
    packaged,
)

STAGE = 2
FILE = "diverse.toml"
CONCEPTS_AT_ONCE = 200


class Options(BaseModel):
    """Options of the sampler `diverse`."""

    model_config = ConfigDict(extra="forbid")

    definitions: float = Field(0.2, ge=0, le=1)
    """The share of a concept's prompts that describe it without naming it."""
    generated: float = Field(0.5, ge=0, le=1)
    """The share that the model writes; written frames are the rest, and stand in for what is missing."""
    temperatures: list[float] = Field([0.7, 1.0, 1.3], min_length=1)
    """Temperatures at which the model writes."""
    attempts: int = Field(3, ge=1, le=20)
    """Tries that each of a concept's sentences has until one is usable."""


@hookimpl
def sample_prompts(concepts: Sequence[Concept], stage: int, context: Context) -> Iterator[Prompt]:
    """Yield at most as many prompts a concept as the run wants, no two alike, a batch of concepts at a time."""
    options = context.options
    assert isinstance(options, Options)
    recipe = generated_sentences.Recipe(tuple(options.temperatures), options.attempts)
    share = options.generated if options.generated and generated_sentences.can_write(context) else 0.0
    for batch in _batches(concepts):
        described = {c.id: _described(c, stage, context, options) for c in batch}
        wanted = {c.id: _share(share, context.prompts_for(c.id), len(described[c.id])) for c in batch}
        written = (
            generated_sentences.generate(batch, wanted, stage, context, recipe)
            if any(wanted.values())
            else {}
        )
        for concept in batch:
            kept = written[concept.id].kept if written else []
            yield from described[concept.id]
            lacking = context.prompts_for(concept.id) - len(described[concept.id]) - len(kept)
            yield from _frames(concept, lacking, stage, context)
            # Last: asked for again with others, they are other sentences, which would take the frames' places.
            yield from kept


def _batches(concepts: Sequence[Concept]) -> Iterator[list[Concept]]:
    remaining = iter(concepts)
    while batch := list(islice(remaining, CONCEPTS_AT_ONCE)):
        yield [dataclasses.replace(c, name=" ".join(c.name.split())) for c in batch]


def _share(share: float, wanted: int, taken: int) -> int:
    return min(round(share * wanted), wanted - taken)


def _described(concept: Concept, stage: int, context: Context, options: Options) -> list[Prompt]:
    whole = context.prompts_for(concept.id)
    # A signature needs at least one prompt that names the concept.
    wanted = min(round(options.definitions * whole), whole - 1)
    return definitions.describe(concept, wanted, context.random(stage, concept.id))


def _frames(concept: Concept, wanted: int, stage: int, context: Context) -> list[Prompt]:
    groups = load_templates(FILE)[kind_of(concept)]
    fitting = [list(fitting_templates(group, concept)) for group in groups.values()]
    chosen = draw([group for group in fitting if group], wanted, context.random(stage, concept.id))
    return [dataclasses.replace(fill(t, concept), family=f"frame.{t.family}") for t in chosen]


FINGERPRINT = fingerprint(packaged(FILE), packaged(definitions.FILE), generated_sentences.PREFIX)
