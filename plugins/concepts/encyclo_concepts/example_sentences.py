"""Sentences by other authors for concepts that have none: WordNet's examples, or a user's file.

They become the concepts' `examples`, which test the interpreter and are never used for training.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from encyclo.english import find_mention
from encyclo.errors import UsageError
from encyclo.table_files import FORMATS, fault, read_records
from encyclo.types import Concept
from encyclo_concepts.gloss import split_gloss
from encyclo_concepts.wndb import first_senses, read_synsets
from encyclo_concepts.wordnet import find_database

OPTION = "core.examples"
COLUMNS = ("concept", "sentence")


def from_wordnet(concepts: Sequence[Concept]) -> Iterator[Concept]:
    """Yield the concepts with the examples of their name's most frequent WordNet sense that mention the name.

    The sense has the concept's part of speech, but it may not be the concept's meaning. Raises UsageError if WordNet is
    not installed.
    """
    folder = find_database(None)
    parts = sorted({concept.part_of_speech for concept in concepts})
    _, synsets = read_synsets(folder, parts)
    glosses = {(synset.part_of_speech, synset.offset): synset.gloss for synset in synsets}
    first = {part: first_senses(folder, part) for part in parts}
    for concept in concepts:
        part = concept.part_of_speech
        sense = first[part].get(concept.name.lower().replace(" ", "_"))
        sentences = split_gloss(glosses[part, sense])[1] if sense is not None else ()
        yield dataclasses.replace(
            concept, examples=tuple(s for s in sentences if find_mention(s, concept) is not None)
        )


def from_file(concepts: Sequence[Concept], path: Path, known: Collection[str]) -> Iterator[Concept]:
    """Yield the concepts with a user's sentences; those of other `known` names are ignored.

    Raises UsageError, naming file and line, for an unknown concept or a sentence that doesn't mention its concept.
    """
    path = Path(os.path.expanduser(path))
    kind = FORMATS.get(path.suffix.lower(), "names")
    if kind == "names":
        raise UsageError(
            f"{path} is not a .csv, .tsv or .jsonl file; give -o {OPTION}=FILE with such a file that has the columns "
            f"concept and sentence, or -o {OPTION}=wordnet."
        )
    sentences: dict[str, dict[str, None]] = {concept.name: {} for concept in concepts}
    by_name = {concept.name: concept for concept in concepts}
    for line, record in read_records(path, kind, COLUMNS, f"-o {OPTION}=FILE"):
        name, sentence = (" ".join(str(record.get(column, "")).split()) for column in COLUMNS)
        if name not in known:
            raise fault(
                path, line, f"there is no concept {name!r} in the list; correct the name or delete the line"
            )
        if name not in by_name:
            continue
        if find_mention(sentence, by_name[name]) is None:
            raise fault(path, line, f"its sentence doesn't mention {name!r}; correct it or delete the line")
        sentences[name][sentence] = None
    return (dataclasses.replace(concept, examples=tuple(sentences[concept.name])) for concept in concepts)
