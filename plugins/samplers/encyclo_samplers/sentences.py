"""Stage 2, or another: a user's own sentences about the concepts, from a file (`encyclo.labelled_sentences`).

The column `source` becomes the prompts' family, so that whole sources are held out; without it each concept's
sentences are dealt over FAMILIES families. Background lines are left out, and so are concepts without a sentence and
sentences with a held-out alias of their concept.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from encyclo import hookimpl
from encyclo.errors import EncycloError, UsageError
from encyclo.held_out_aliases import mentions_held_out
from encyclo.labelled_sentences import advice, file_hash, mention, read_sentences, sentences_of
from encyclo.types import Concept, Context, Prompt

STAGE = 2
PARTIAL = True
FLAG = "-o sentences.path=FILE"
FAMILIES = 10


class Options(BaseModel):
    """Options of the sampler `sentences`."""

    model_config = ConfigDict(extra="forbid", validate_default=True)

    path: Path | None = None
    """The file with the sentences; needed."""
    stage: int = Field(STAGE, ge=1, le=3)
    """The stage; other samplers of the run may have the same."""
    per_concept: int | None = Field(None, ge=1)
    """How many sentences of a concept to take; the default is --per-concept."""
    sha256: str = ""
    """The file's hash, filled in: a run goes on only with the same sentences."""

    @field_validator("sha256")
    @classmethod
    def _of_the_file(cls, given: str, info: ValidationInfo) -> str:
        if (path := info.data.get("path")) is None:
            return given
        try:
            found = file_hash(_expanded(path), FLAG)
        except EncycloError as error:
            raise ValueError(str(error).rstrip(".")) from error
        if given not in ("", found):
            raise ValueError(f"{path} has another hash than the run's; restore the file, or leave sha256 out")
        return found


@hookimpl
def sample_prompts(concepts: Sequence[Concept], stage: int, context: Context) -> Iterator[Prompt]:
    """Yield the requested number of prompts per concept, or all if the file has fewer.

    Raises UsageError, naming file and line, for a line that can't be used.
    """
    options = context.options
    assert isinstance(options, Options)
    if options.path is None:
        raise UsageError(f"The sampler sentences needs a file; {advice(FLAG)}.")
    path = _expanded(options.path)
    by_name = read_sentences(path, FLAG, options.sha256)
    for concept, given in sentences_of(concepts, context.all_concepts or concepts, path, by_name):
        own = [sentence for sentence in given if not mentions_held_out(sentence.text, concept)]
        wanted = min(context.prompts_for(concept.id), len(own))
        for place in sorted(context.random(stage, concept.id).sample(range(len(own)), wanted)):
            sentence = own[place]
            span = mention(path, sentence, concept)
            family = f"sentences.{sentence.source or place % FAMILIES}"
            yield Prompt(concept.id, sentence.text, span, family)


def _expanded(path: Path) -> Path:
    return Path(os.path.expanduser(path))  # unlike Path.expanduser, no error for an unknown ~user
