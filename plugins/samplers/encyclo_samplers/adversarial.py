"""Stage 3: prompts that the current interpreter misreads, in the hope that the next one won't.

For each concept, frames around its mention are filled with what it is most confused with: the contexts of its
neighbours, contrast and negation, compounds, metaphor and quotation, rare senses, capitals and tags; and a
beam search chooses context words that lower the interpreter's margin (the concept's score less the best
other's). The mention stays intact. What is misread because the text truly is about the other concept is no
attack and is dropped (`truly_about`).

What was tried and what succeeded, with its margin, is kept in the run: plugins/adversarial/attacks/.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from encyclo import hookimpl
from encyclo.storage import files
from encyclo.types import Concept, Context, Prompt
from encyclo_samplers.attack_search import Attack, AttackSearch

STAGE = 3
NEEDS_INTERPRETER = True
CONCEPTS_AT_ONCE = 64
"""Concepts whose attacks are read together: enough to fill the capture's batches, little memory."""


class Options(BaseModel):
    """Options of the sampler `adversarial`."""

    model_config = ConfigDict(extra="forbid")

    beam: int = Field(2, ge=0, le=64)
    """Sentences that the search keeps at each step; 0 leaves the search out."""
    words: int = Field(8, ge=2, le=1000)
    """Context words that the search tries at each step."""
    steps: int = Field(2, ge=1, le=10)
    """Words that the search chooses for one sentence."""
    escapes: bool = True
    """Fill up what is wanted with the attacks that failed most narrowly."""


@hookimpl
def sample_prompts(concepts: Sequence[Concept], stage: int, context: Context) -> Iterator[Prompt]:
    """Yield, concept by concept, the attacks that succeeded, the worst misread first, as many as are wanted.

    Where fewer succeeded, the narrowest escapes follow (`escapes`). Where the run judges (`context.judging`)
    every attack is yielded, from frames that never make samples.
    """
    options = context.options
    assert isinstance(options, Options)
    search = AttackSearch(context, options.beam, options.words, options.steps)
    tried: dict[str, list[Attack]] = {}
    for start in range(0, len(concepts), CONCEPTS_AT_ONCE):
        for concept, attacks in search.attack(concepts[start : start + CONCEPTS_AT_ONCE], stage).items():
            if context.judging:
                yield from (attack.prompt for attack in attacks)
                continue
            tried[concept] = attacks
            candidates = attacks if options.escapes else [a for a in attacks if a.margin < 0]
            worst_first = sorted(candidates, key=lambda a: (a.margin, a.prompt.text))
            yield from (attack.prompt for attack in worst_first[: context.prompts_for(concept)])
    if not context.judging:
        _record(context.folder / "attacks", tried)


def _record(folder: Path, tried: dict[str, list[Attack]]) -> None:
    """Write what was tried on these concepts; the same concepts' earlier record is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(json.dumps(list(tried)).encode()).hexdigest()[:16]
    record = {
        concept: {
            "tried": len(attacks),
            "succeeded": [
                {"text": a.prompt.text, "family": a.prompt.family, "margin": a.margin, "read_as": a.read_as}
                for a in attacks
                if a.margin < 0
            ],
        }
        for concept, attacks in tried.items()
    }
    files.write_json(folder / f"{name}.json", record)
