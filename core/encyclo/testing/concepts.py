"""The contract of the hook `load_concepts`.

from encyclo.testing.concepts import ConceptsContract

class TestMine(ConceptsContract):
    plugin = "mine"
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import ClassVar

from encyclo.plugins.manager import Plugins
from encyclo.testing.contract import require
from encyclo.testing.hooked import HookContract, in_another_process
from encyclo.types import Concept

TEXTS = ("id", "name", "definition", "category", "part_of_speech")


class ConceptsContract(HookContract):
    """The contract of concept lists; subclass it and name the plugin."""

    hooks: ClassVar[tuple[str, ...]] = ("load_concepts",)

    def load(self) -> list[Concept]:
        """Return the plugin's concepts, as a new run gets them."""
        plugins = Plugins()
        found = plugins.call("load_concepts", self.plugin, options=self.filled_options())
        return list(plugins.iterate(self.plugin, found))

    def check_gives_concepts(self, folder: Path) -> None:
        """There is at least one, each is an `encyclo.types.Concept`, and its fields have their types."""
        concepts = self.load()
        require(concepts, "It gives no concept.")
        for concept in concepts:
            require(isinstance(concept, Concept), f"It gave {concept!r:.80}, which is not a Concept.")
            for name in TEXTS:
                text = getattr(concept, name)
                require(isinstance(text, str), f"{concept.id!r}: {name} is {text!r:.80}, but must be a str.")
            require(
                concept.broader is None or isinstance(concept.broader, str),
                f"{concept.id!r}: broader must be the id of a concept (a str) or None.",
            )
            require(
                concept.countable in (None, True, False),
                f"{concept.id!r}: countable must be True, False or None.",
            )
            for name in ("aliases", "examples"):
                texts = getattr(concept, name)
                require(
                    isinstance(texts, tuple) and all(isinstance(t, str) for t in texts),
                    f"{concept.id!r}: {name} must be a tuple of str.",
                )

    def check_ids_are_unique(self, folder: Path) -> None:
        """No two concepts share an id, and none is empty."""
        ids = [concept.id for concept in self.load()]
        require(all(ids), "A concept has no id.")
        twice = sorted({i for i in ids if ids.count(i) > 1}) if len(set(ids)) < len(ids) else []
        require(not twice, f"Ids are given twice: {twice[:5]}.")

    def check_names_can_be_written(self, folder: Path) -> None:
        """Every name has a letter or digit and no blank at either end; all texts are valid UTF-8, on one line."""
        for concept in self.load():
            name = concept.name
            require(
                any(c.isalnum() for c in name),
                f"{concept.id!r}: the name {name!r} has no letter or digit.",
            )
            require(name == name.strip(), f"{concept.id!r}: the name {name!r} has blanks at its ends.")
            for text in (*(getattr(concept, field) for field in TEXTS), *concept.aliases, *concept.examples):
                try:
                    text.encode()
                except UnicodeEncodeError:
                    require(False, f"{concept.id!r}: {text!r:.80} is not valid Unicode.")
                require(
                    "\0" not in text and "\n" not in text,
                    f"{concept.id!r}: {text!r:.80} is not a single line.",
                )

    def check_a_definition_says_more_than_the_name(self, folder: Path) -> None:
        """A definition, if there is one, is not just the name again."""
        for concept in self.load():
            same = concept.definition.strip().casefold() == concept.name.strip().casefold()
            require(not same, f"{concept.id!r} is defined by its own name.")

    def check_broader_concepts_are_no_circle(self, folder: Path) -> None:
        """No concept is broader than itself, in any number of steps."""
        broader = {concept.id: [concept.broader] for concept in self.load() if concept.broader is not None}
        try:
            TopologicalSorter(broader).prepare()
        except CycleError as error:
            first, *others = reversed(error.args[1][1:])
            path = " > ".join([first, *others[:4], first])
            require(False, f"{first!r} is broader than itself: {path}.")

    def check_is_the_same_every_time(self, folder: Path) -> None:
        """Loaded again, and in another process, it gives the same concepts in the same order."""
        first = digest(self.load())
        require(digest(self.load()) == first, "Loaded again in one process, it gives other concepts.")
        code = (
            "import sys, json; from encyclo.testing.concepts import ConceptsContract as C, digest; "
            "c = type('Named', (C,), {'plugin': sys.argv[1], 'options': json.loads(sys.argv[2])})(); "
            "print(digest(c.load()))"
        )
        elsewhere = in_another_process(code, self.plugin, json.dumps(dict(self.options)))
        require(
            elsewhere == first,
            "In another process it gives other concepts; perhaps it follows the order of a set.",
        )


def digest(concepts: list[Concept]) -> str:
    """Return a hash of the concepts and their order."""
    text = json.dumps([dataclasses.asdict(concept) for concept in concepts])
    return hashlib.sha256(text.encode()).hexdigest()
