"""The bundled concepts: 20 categories of 50, each with a definition written for encyclo.

core_lists/ has one CSV file per category, with the columns name, part_of_speech, countable, broader and definition. A
concept's id is its name, which is unique. The option `examples` adds sentences by other authors, which test the
interpreter (example_sentences.py).
"""

import csv
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, field_validator

from encyclo import hookimpl
from encyclo.types import Concept
from encyclo_concepts.example_sentences import from_file, from_wordnet

LICENCE = "written for encyclo, whose own terms apply"
CATEGORIES = (
    "animals", "body", "food", "artefacts", "places", "nature", "substances", "people_and_roles",
    "society_and_law", "economy", "science", "mathematics", "technology", "time", "actions", "perception",
    "emotions", "mind_and_knowledge", "ethics_and_character", "language_and_art",
)  # fmt: skip


class Options(BaseModel):
    """Options of the concept list `core`."""

    model_config = ConfigDict(extra="forbid")

    categories: list[str] = []
    """Only these categories, such as ["animals", "emotions"]; an empty list means all."""
    examples: Literal["wordnet"] | Path | None = None
    """Sentences by other authors, for tests: `wordnet`, or a file with the columns concept and sentence."""

    @field_validator("categories")
    @classmethod
    def _known(cls, categories: list[str]) -> list[str]:
        if unknown := sorted(set(categories) - set(CATEGORIES)):
            raise ValueError(
                f"there is no category {', '.join(unknown)}; use some of {', '.join(CATEGORIES)}"
            )
        return categories


@hookimpl
def load_concepts(options: Options) -> Iterator[Concept]:
    """Yield the concepts, taking the categories in turn, so that a small --limit covers all categories."""
    lists = [read_category(c) for c in CATEGORIES if not options.categories or c in options.categories]
    concepts = [concept for row in zip(*lists, strict=True) for concept in row]
    if options.examples == "wordnet":
        yield from from_wordnet(concepts)
    elif options.examples:
        names = {concept.name for category in CATEGORIES for concept in read_category(category)}
        yield from from_file(concepts, Path(options.examples), names)
    else:
        yield from concepts


def read_category(category: str) -> list[Concept]:
    """Return a category's concepts in the order of its file."""
    text = files("encyclo_concepts").joinpath("core_lists", f"{category}.csv").read_text(encoding="utf-8")
    return [
        Concept(
            id=row["name"],
            name=row["name"],
            definition=row["definition"],
            category=category.replace("_", " "),
            part_of_speech=row["part_of_speech"],
            broader=row["broader"] or None,
            broader_name=row["broader"],
            countable={"yes": True, "no": False}.get(row["countable"]),
        )
        for row in csv.DictReader(text.splitlines())
    ]
