"""Cut a round's plan into units; a unit's id is a hash of everything that determines its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from encyclo.held_out_aliases import held_out
from encyclo.pipeline.rounds import Plan
from encyclo.runs.session import Session, Stage, fields_of
from encyclo.storage.ledger import Commit, Unit
from encyclo.types import RESIDUAL, Concept

SAMPLES_PER_UNIT = 2_000


def plan_units(concepts: Sequence[Concept], plan: Plan, recipe: Mapping[str, Any]) -> list[Unit]:
    """Cut the plan's concepts into units of about SAMPLES_PER_UNIT samples, at least one concept each.

    `recipe` is everything else that determines a unit's content (model, layers, sampler, options, seed).
    """
    units = []
    for start, end in _slices(plan.wanted):
        chosen, wanted, done = (c[start:end] for c in (plan.concepts, plan.wanted, plan.done))
        content = {
            "recipe": recipe,
            "stage": plan.stage,
            "concepts": [_fields(concepts[i], recipe["seed"]) for i in chosen],
            "wanted": wanted,
            "done": done,
        }
        text = json.dumps(content, sort_keys=True, ensure_ascii=True)
        identity = hashlib.sha256(text.encode()).hexdigest()[:32]
        units.append(Unit(identity, plan.stage, chosen, wanted, done, plan.sampler))
    return units


def _fields(concept: Concept, seed: int) -> dict[str, Any]:
    if out := held_out(concept, seed):
        concept = replace(concept, held_out_aliases=(*concept.held_out_aliases, *out))
    return fields_of(concept)


def recipe(session: Session, stage: Stage, earlier: Sequence[Commit]) -> dict[str, Any]:
    """Return everything but the concepts that determines a unit's content.

    A sampler that needs an interpreter depends on all earlier samples, so their checksums are included.
    """
    config = session.config
    used = (stage.sampler, config.capture)
    options = {name: session.options[name] for name in used}
    return {
        "weights": session.model.weights_sha256,
        "dtype": session.model.dtype,
        "layers": session.schema.layer_index,
        "pooling": config.pooling,
        "seed": config.seed,
        "after": [c.checksum for c in earlier] if session.looks(stage) else None,
        "plugins": [
            [name, session.plugins.load(name).version, session.plugins.traits(name).fingerprint]
            for name in used
        ],
        # The unit itself has its stage and the numbers wanted.
        "options": {
            n: o.model_dump(mode="json", exclude={"stage", "per_concept"}) for n, o in options.items() if o
        },
        # Without --echo, --chat and --site, units keep the ids that they had before.
        **({"echo": True} if config.echo else {}),
        **({"chat": session.chat_frame} if config.chat else {}),
        **({"site": config.site} if config.site != RESIDUAL else {}),
    }


def _slices(wanted: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield [start, end) so that each slice wants at most SAMPLES_PER_UNIT samples or is one concept."""
    start = total = 0
    for place, number in enumerate(wanted):
        if place > start and total + number > SAMPLES_PER_UNIT:
            yield start, place
            start, total = place, 0
        total += number
    if start < len(wanted):
        yield start, len(wanted)
