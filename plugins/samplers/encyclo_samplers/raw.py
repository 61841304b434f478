"""Stage 0: the concept's name alone, without its qualifier."""

from collections.abc import Iterator, Sequence

from encyclo import hookimpl
from encyclo.english import as_word
from encyclo.types import Concept, Prompt

STAGE = 0


@hookimpl
def sample_prompts(concepts: Sequence[Concept]) -> Iterator[Prompt]:
    """Yield one prompt per concept: its name without a qualifier."""
    for concept in concepts:
        name = as_word(concept).name
        yield Prompt(concept.id, name, (0, len(name)), family="raw")
