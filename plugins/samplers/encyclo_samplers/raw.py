"""Stage 0: the concept's name alone."""

from collections.abc import Iterator, Sequence

from encyclo import hookimpl
from encyclo.types import Concept, Prompt

STAGE = 0


@hookimpl
def sample_prompts(concepts: Sequence[Concept]) -> Iterator[Prompt]:
    """Yield one prompt per concept: its name."""
    for concept in concepts:
        name = concept.name.strip()
        yield Prompt(concept.id, name, (0, len(name)), family="raw")
