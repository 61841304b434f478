"""Sentences by other authors for concepts that come without: WordNet's examples, or a user's file.

They become the concepts' `examples`, which judge the interpreter and are never trained on.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from encyclo.english import find_mention
from encyclo.errors import UsageError
from encyclo.types import Concept
from encyclo_concepts.gloss import split_gloss
from encyclo_concepts.table_files import FORMATS, fault, read_records
from encyclo_concepts.wndb import first_senses, read_synsets
from encyclo_concepts.wordnet import find_database

OPTION = "core.examples"
COLUMNS = ("concept", "sentence")


def from_wordnet(concepts: Sequence[Concept]) -> Iterator[Concept]:
    """Yield the concepts with the examples of their name's most frequent WordNet sense that mention the name.

    A sense of the concept's own part of speech; nothing says that it is the concept's meaning. Raises UsageError
    where no WordNet is installed.
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
    """Yield the concepts with a user's sentences; those of other `known` names are passed over.

    Raises UsageError naming the file and the line that names no concept or doesn't mention the one it names.
    """
    path = Path(os.path.expanduser(path))
    kind = FORMATS.get(path.suffix.lower(), "names")
    if kind == "names":
        raise UsageError(
            f"The name of {path} doesn't say how its sentences are written; give -o {OPTION}= a .csv, .tsv or "
            ".jsonl file with the columns concept and sentence, or the word wordnet."
        )
    sentences: dict[str, dict[str, None]] = {concept.name: {} for concept in concepts}
    by_name = {concept.name: concept for concept in concepts}
    for line, record in read_records(path, kind, COLUMNS, option=OPTION, encoding_option=""):
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
