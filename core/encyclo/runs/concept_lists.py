"""A run's concept lists: read and joined; what several may not share, and what they share with a warning."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import combinations, islice
from pathlib import Path
from typing import TYPE_CHECKING

from encyclo.config import RunConfig
from encyclo.english import without_qualifier
from encyclo.errors import ConceptListWarning, UsageError
from encyclo.labelled_sentences import with_examples
from encyclo.plugins.manager import Plugins
from encyclo.plugins.values import shown
from encyclo.types import Concept

if TYPE_CHECKING:
    from pydantic import BaseModel

MOST_CONCEPTS = 2_000_000
"""The most concepts of a list without --limit."""
EXAMPLES = "--examples FILE"
MOST_CHARACTERS = 2_000_000_000
"""The most characters of a list's names, definitions, aliases and examples together."""
NAMED = 3
"""How many shared ids or names a message gives."""


def load_concepts(
    config: RunConfig, plugins: Plugins, options: Mapping[str, BaseModel | None]
) -> list[Concept]:
    """Return the concepts of each `--concepts` and of `--limit`, checked, with the sentences of `--examples`.

    `options` is keyed by list. Raises PluginError or UsageError.
    """
    lists: dict[str, list[Concept]] = {}
    for name in config.concept_lists:
        left = None if config.limit is None else config.limit - sum(map(len, lists.values()))
        if left == 0:
            break
        lists[name] = read_list(plugins, name, options.get(name), left)
    check_lists(lists)
    concepts = [concept for found in lists.values() for concept in found]
    if config.examples:
        return with_examples(concepts, Path(os.path.expanduser(config.examples)), EXAMPLES)
    return concepts


def read_list(plugins: Plugins, name: str, options: BaseModel | None, limit: int | None) -> list[Concept]:
    """Return the concepts of one list, at most `limit`. Raises PluginError or UsageError.

    A list that never ends is read until MOST_CONCEPTS or MOST_CHARACTERS, so that it can't fill the memory.
    """
    loaded = plugins.call("load_concepts", name, options=options)
    concepts: list[Concept] = []
    seen: set[str] = set()
    characters = 0
    with closing(plugins.iterate(name, loaded)) as given:
        for concept in islice(given, limit):
            if concept.id in seen:
                raise plugins.fault(
                    name, f"gave the concept id {shown(concept.id)} twice; give each concept its own"
                )
            if limit is None and len(concepts) == MOST_CONCEPTS:
                raise plugins.fault(
                    name, f"gave more than {MOST_CONCEPTS:,} concepts; give the number wanted with --limit"
                )
            texts = (concept.name, concept.definition, *concept.aliases, *concept.examples)
            characters += sum(map(len, texts))
            if characters > MOST_CHARACTERS:
                raise plugins.fault(
                    name,
                    f"gave concepts with more than {MOST_CHARACTERS:,} characters; give fewer with --limit",
                )
            seen.add(concept.id)
            concepts.append(concept)
    if not concepts:
        raise UsageError(
            f"The concept list {name!r} (--concepts) gave no concept; check its options (-o {name}.…) or its file."
        )
    return concepts


def check_lists(lists: Mapping[str, Sequence[Concept]]) -> None:
    """Raise UsageError if two lists share an id; warn if they share a name. `lists` is keyed by plugin."""
    for (one, first), (other, second) in combinations(lists.items(), 2):
        ids = {concept.id for concept in first}
        if both := [concept.id for concept in second if concept.id in ids]:
            raise UsageError(
                f"The concept lists {one} and {other} (--concepts) both have the concept {_named('id', both)}; "
                "leave them out of one list, or give them other ids there."
            )
        names = {_word(concept) for concept in first}
        if both := list(dict.fromkeys(c.name for c in second if _word(c) in names)):
            warnings.warn(
                f"The concept lists {one} and {other} share the {_named('name', both)}; each list's concept has an "
                "entry of its own; where both mean the same, readings are divided between them and confidences fall.",
                ConceptListWarning,
                stacklevel=2,
            )


def _word(concept: Concept) -> str:
    return without_qualifier(concept.name).casefold()


def _named(kind: str, found: Sequence[str]) -> str:
    """Return `id 'a'`, or `ids 'a', 'b', 'c' and 4 more`."""
    more = f" and {len(found) - NAMED:,} more" if len(found) > NAMED else ""
    return f"{kind}{'s' if len(found) > 1 else ''} {', '.join(map(shown, found[:NAMED]))}{more}"
