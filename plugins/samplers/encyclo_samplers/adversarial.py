"""Stage 3: prompts that the current interpreter misreads, to train the next one on.

Frames around a concept's mention are filled with the concepts it is most confused with. They use the contexts of
neighbours, contrast and negation, compounds, metaphor and quotation, rare senses, capitals and tags. A beam search
also chooses context words that lower the interpreter's margin: the concept's score minus the best other concept's.
The mention stays intact. A prompt that is truly about the other concept is dropped (`truly_about`).

The run records the attempts and the successful attacks with their margins in plugins/adversarial/attacks/.
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
from encyclo_samplers.templates import fingerprint, packaged

STAGE = 3
NEEDS_INTERPRETER = True
CONCEPTS_AT_ONCE = 64
"""Concepts attacked together: enough to fill the capture's batches, with little memory."""


class Options(BaseModel):
    """Options of the sampler `adversarial`."""

    model_config = ConfigDict(extra="forbid")

    beam: int = Field(2, ge=0, le=64)
    """Sentences that the search keeps at each step; 0 turns the search off."""
    words: int = Field(8, ge=2, le=1000)
    """Context words that the search tries per step and sentence."""
    steps: int = Field(2, ge=1, le=10)
    """Context words that the search adds to a sentence."""
    escapes: bool = True
    """Fill up the requested number with the failed attacks of smallest margin."""


@hookimpl
def sample_prompts(concepts: Sequence[Concept], stage: int, context: Context) -> Iterator[Prompt]:
    """Yield, concept by concept, at most the requested number of successful attacks, the lowest margin first.

    If fewer succeeded, the failed attacks of smallest margin follow (option `escapes`). If the run judges
    (`context.judging`), yield every attack, from frames that never make samples.
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
    """Write the record of these concepts' attacks; it replaces an earlier one of the same concepts."""
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(json.dumps(list(tried)).encode()).hexdigest()[:16]
    record = {
        concept: {"tried": len(attacks), "succeeded": [a.record() for a in attacks if a.margin < 0]}
        for concept, attacks in tried.items()
    }
    files.write_json(folder / f"{name}.json", record)


FINGERPRINT = fingerprint(packaged("attack_frames.toml"))
