"""Stage 2: a user's own sentences about the concepts, from a CSV, TSV or JSON Lines file.

    concept,sentence,start,end,source
    dog,The hound slept.,4,9,novel

`concept` is an id, a name (with or without its qualifier) or an alias that only one concept has. `start` and `end` are
the mention's characters; without them the name or an alias is looked for, inflected or not. `source` becomes the
prompts' family, so that whole sources are held out; without it each concept's sentences are dealt over FAMILIES
families.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from encyclo import hookimpl
from encyclo.english import as_word, find_mention
from encyclo.errors import EncycloError, UsageError
from encyclo.regular_files import read_bytes
from encyclo.table_files import FORMATS, fault, read_records, shown
from encyclo.types import Concept, Context, Prompt

STAGE = 2
OPTION = "sentences.path"
COLUMNS = ("concept", "sentence", "start", "end", "source")
REQUIRED = COLUMNS[:2]
FAMILIES = 10
LARGEST = 2**30
ADVICE = f"give -o {OPTION}=FILE with a .csv, .tsv or .jsonl file that has the columns concept and sentence"


class Options(BaseModel):
    """Options of the sampler `sentences`."""

    model_config = ConfigDict(extra="forbid", validate_default=True)

    path: Path | None = None
    """The file with the sentences; needed."""
    sha256: str = ""
    """The file's hash, filled in: a run goes on only with the same sentences."""

    @field_validator("sha256")
    @classmethod
    def _of_the_file(cls, given: str, info: ValidationInfo) -> str:
        if (path := info.data.get("path")) is None:
            return given
        try:
            found = sha256(_content(path)).hexdigest()
        except EncycloError as error:
            raise ValueError(str(error).rstrip(".")) from error
        if given not in ("", found):
            raise ValueError(f"{path} has another hash than the run's; restore the file, or leave sha256 out")
        return found


@dataclass(frozen=True)
class Sentence:
    """A line of the file: whose sentence it is, the mention's place if the line gives one, and the family."""

    line: int
    concept: str
    text: str
    span: tuple[int, int] | None
    source: str


@hookimpl
def sample_prompts(concepts: Sequence[Concept], stage: int, context: Context) -> Iterator[Prompt]:
    """Yield the requested number of prompts per concept, or all if the file has fewer.

    Raises UsageError, naming file and line, for a line that can't be used, and for a concept without a sentence.
    """
    options = context.options
    assert isinstance(options, Options)
    if options.path is None:
        raise UsageError(f"The sampler sentences needs a file; {ADVICE}.")
    by_name = read_sentences(Path(os.path.expanduser(options.path)), options.sha256)
    owners = _owners(context.all_concepts or concepts, by_name)
    for concept in concepts:
        own: list[Sentence] = []
        for name in _names(concept):
            if concept.id in owners.get(name, ()):
                if len(owners[name]) > 1:
                    line, ids = by_name[name][0].line, ", ".join(sorted(owners[name]))
                    raise fault(
                        options.path, line, f"{shown(name)} names several concepts; give an id: {ids}"
                    )
                own += by_name[name]
        if not own:
            raise UsageError(
                f"{options.path} has no sentence for the concept {concept.name!r}; add one, or leave the concept out "
                "of the list."
            )
        wanted = min(context.prompts_for(concept.id), len(own))
        chosen = sorted(context.random(stage, concept.id).sample(range(len(own)), wanted))
        for place in chosen:
            yield _prompt(options.path, own[place], place, concept)


@lru_cache(maxsize=2)
def read_sentences(path: Path, sha256: str) -> dict[str, list[Sentence]]:
    """Return the file's sentences by what its column `concept` has; `sha256` is the file's, so a change is read.

    Raises UsageError naming file and line.
    """
    kind = FORMATS.get(path.suffix.lower(), "names")
    if kind == "names":
        raise UsageError(f"{path} is not a .csv, .tsv or .jsonl file; {ADVICE}.")
    found: dict[str, dict[str, Sentence]] = defaultdict(dict)
    for line, record in read_records(path, kind, COLUMNS, OPTION):
        for column in REQUIRED:
            if not str(record.get(column, "")).strip():
                raise fault(path, line, f"its column {column} is empty; fill it in or delete the line")
        text, concept = str(record["sentence"]), str(record["concept"]).strip()
        sentence = Sentence(
            line, concept, text, _span(path, line, record), str(record.get("source", "")).strip()
        )
        found[concept].setdefault(text, sentence)  # a repeated sentence says nothing more
    return {concept: list(sentences.values()) for concept, sentences in found.items()}


def _content(path: Path) -> bytes:
    return read_bytes(Path(os.path.expanduser(path)), at_most=LARGEST, advice=ADVICE, error=UsageError)


def _span(path: Path, line: int, record: dict[str, Any]) -> tuple[int, int] | None:
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
    return dict.fromkeys((concept.id, concept.name, as_word(concept).name, *concept.aliases))


def _owners(concepts: Sequence[Concept], names: Collection[str]) -> dict[str, set[str]]:
    """Return the ids of the concepts that each of `names` means. An id means its concept alone."""
    owners: dict[str, set[str]] = defaultdict(set)
    for concept in concepts:
        for name in _names(concept):
            if name in names:
                owners[name].add(concept.id)
    return {name: {name} if name in ids else ids for name, ids in owners.items()}


def _prompt(path: Path, sentence: Sentence, place: int, concept: Concept) -> Prompt:
    span = sentence.span
    for name in (concept.name, *concept.aliases):
        span = span or find_mention(sentence.text, replace(concept, name=name))
    if span is None:
        raise fault(
            path, sentence.line, f"its sentence doesn't mention {concept.name!r} or an alias; correct it, give the "
            "mention's start and end, or delete the line"
        )  # fmt: skip
    family = f"sentences.{sentence.source}" if sentence.source else f"sentences.{place % FAMILIES}"
    return Prompt(concept.id, sentence.text, span, family)
