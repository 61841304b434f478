"""Sentences by other authors, each labelled with its concept: a CSV, TSV or JSON Lines file.

    concept,sentence,start,end,source
    dog,The hound slept.,4,9,novel
    ,He was at home.,7,9,novel

`concept` is an id, a name (with or without its qualifier) or an alias that only one concept has. `start` and `end` are
the mention's characters; without them the name or an alias is looked for, inflected or not. `source` says where the
sentence comes from.
A line without a concept is background: the marked words mean none of the concepts.

The sampler `sentences` makes prompts of such a file; `encyclo run --examples` tests with one, `encyclo learn` learns
from one, and `encyclo evaluate --running-text` reads one as running text (`encyclo.evaluation.labelled_text`).
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from encyclo.english import as_word, find_mention
from encyclo.errors import UsageError
from encyclo.regular_files import read_bytes
from encyclo.table_files import FORMATS, Place, fault, read_records, shown
from encyclo.types import Concept

COLUMNS = ("concept", "sentence", "start", "end", "source")
BACKGROUND = ""
"""What the column `concept` of a background line has."""
NOT_JUDGED = "?"
"""What it has if nothing is known of what the marked words mean."""
LARGEST = 2**30


@dataclass(frozen=True)
class Sentence:
    """A line of the file: whose sentence it is, the mention's place if the line gives one, and the source."""

    line: Place
    concept: str
    text: str
    span: tuple[int, int] | None
    source: str


Sentences = Mapping[str, Sequence[Sentence]]
"""Sentences by what the file's column `concept` has; background lines under BACKGROUND."""


@lru_cache(maxsize=2)
def read_sentences(path: Path, flag: str, digest: str) -> Sentences:
    """Return the file's sentences; `digest` is its `file_hash`, so that a changed file is read again.

    A concept's sentences differ in their text, background lines in text or place. `flag` names the file on the
    command line and stands in error messages. Raises UsageError naming file and line.
    """
    found: dict[str, dict[object, Sentence]] = defaultdict(dict)
    for sentence in read_lines(path, flag):
        key = sentence.text if sentence.concept else (sentence.text, sentence.span)
        found[sentence.concept].setdefault(key, sentence)
    return {concept: list(sentences.values()) for concept, sentences in found.items()}


def read_lines(path: Path, flag: str) -> Iterator[Sentence]:
    """Yield every line of the file. Raises UsageError naming file and line."""
    kind = FORMATS.get(path.suffix.lower(), "names")
    if kind == "names":
        raise UsageError(f"{path} is not a .csv, .tsv or .jsonl file; {advice(flag)}.")
    for line, record in read_records(path, kind, COLUMNS, flag):
        text, concept = str(record.get("sentence", "")), str(record["concept"]).strip()
        if not text.strip():
            raise fault(path, line, "its column sentence is empty; fill it in or delete the line")
        span = _span(path, line, record)
        yield Sentence(line, concept, text, span, str(record.get("source", "")).strip())


def labelled_lines(
    path: Path, flag: str, concepts: Sequence[Concept]
) -> list[tuple[Sentence, Concept | None]]:
    """Return every line of the file with its concept, None if it has none of `concepts`, in the file's order.

    Raises UsageError naming file and line.
    """
    lines = list(read_lines(path, flag))
    by_name: dict[str, list[Sentence]] = defaultdict(list)
    for line in lines:
        by_name[line.concept].append(line)
    owners = {
        line: concept for concept, own in sentences_of(concepts, concepts, path, by_name) for line in own
    }
    return [(line, owners.get(line)) for line in lines]


def file_hash(path: Path, flag: str) -> str:
    """Return the file's sha256. Raises UsageError if it can't be read."""
    return sha256(read_bytes(path, at_most=LARGEST, advice=advice(flag), error=UsageError)).hexdigest()


def advice(flag: str) -> str:
    """Return what to do about a file that can't be used, as the end of a sentence."""
    return f"give {flag} with a .csv, .tsv or .jsonl file that has the columns concept and sentence"


def sentences_of(
    concepts: Iterable[Concept], all_concepts: Sequence[Concept], path: Path, by_name: Sentences
) -> Iterator[tuple[Concept, list[Sentence]]]:
    """Yield each concept with its sentences, of which there may be none.

    Raises UsageError for a line whose name is several concepts' (of `all_concepts`), none of which has it as its id.
    """
    owners = _owners(all_concepts, by_name)
    for concept in concepts:
        own: list[Sentence] = []
        for name in _names(concept):
            if concept.id in owners.get(name, ()):
                if len(owners[name]) > 1:
                    line, ids = by_name[name][0].line, ", ".join(sorted(owners[name]))
                    raise fault(path, line, f"{shown(name)} names several concepts; give an id: {ids}")
                own += by_name[name]
        yield concept, own


def mention(path: Path, sentence: Sentence, concept: Concept) -> tuple[int, int]:
    """Return the characters of the concept's mention. Raises UsageError if the sentence has none."""
    if sentence.span:
        return sentence.span
    for name in (concept.name, *concept.aliases, *concept.held_out_aliases):
        if span := find_mention(sentence.text, dataclasses.replace(concept, name=name)):
            return span
    raise fault(
        path, sentence.line, f"its sentence doesn't mention {concept.name!r} or an alias; correct it, give the "
        "mention's start and end, or delete the line"
    )  # fmt: skip


def with_examples(concepts: Sequence[Concept], path: Path, flag: str) -> list[Concept]:
    """Return the concepts with the file's sentences as further `examples`, whose mentions are known.

    Raises UsageError, naming file and line, for a line that can't be used, and for a file without any sentence of the
    concepts.
    """
    by_name = read_sentences(path, flag, file_hash(path, flag))
    result = []
    for concept, own in sentences_of(concepts, concepts, path, by_name):
        spans = dict(
            zip(concept.examples, concept.example_spans or [None] * len(concept.examples), strict=True)
        )
        spans |= {sentence.text: mention(path, sentence, concept) for sentence in own}
        found = tuple(spans.values()) if any(spans.values()) else ()
        result.append(dataclasses.replace(concept, examples=tuple(spans), example_spans=found))
    if not any(concept.example_spans for concept in result):
        raise UsageError(
            f"{path} ({flag}) has no sentence of the {len(concepts):,} concepts; name another file."
        )
    return result


def _span(path: Path, line: Place, record: dict[str, Any]) -> tuple[int, int] | None:
    """Return the mention that the line gives; None if it gives none. Raises UsageError for a wrong one."""
    given = [str(record.get(column, "")).strip() for column in ("start", "end")]
    if not any(given):
        return None
    text = str(record["sentence"])
    try:
        start, end = map(int, given)
    except ValueError:
        raise fault(
            path, line, f"start and end are {given[0]!r} and {given[1]!r}, not two whole numbers"
        ) from None
    if not 0 <= start < end <= len(text) or not text[start:end].strip():
        raise fault(path, line, f"start {start} and end {end} are no mention in its {len(text)} characters")
    return start, end


def _names(concept: Concept) -> dict[str, None]:
    words = (concept.name, as_word(concept).name, *concept.aliases, *concept.held_out_aliases)
    return dict.fromkeys((concept.id, *words))


def _owners(concepts: Sequence[Concept], names: Collection[str]) -> dict[str, set[str]]:
    """Return the ids of the concepts that each of `names` means. An id means its concept alone."""
    owners: dict[str, set[str]] = defaultdict(set)
    for concept in concepts:
        for name in _names(concept):
            if name in names:
                owners[name].add(concept.id)
    return {name: {name} if name in ids else ids for name, ids in owners.items()}
