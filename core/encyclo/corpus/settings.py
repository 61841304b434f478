"""What a capture of texts is asked for, and what it records of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from encyclo.errors import UsageError

Choice = Literal["all", "last", "spans"]
CHOICES = "all, last, spans, or a whole number n for every n-th token"


class CaptureSettings(BaseModel):
    """The texts and their tokens; model, layers and store are those of a `RunConfig`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: tuple[Path, ...] = Field(min_length=1)
    field: str = "text"
    """The key or the column of the text in JSON Lines and Parquet files."""
    spans_field: str = "spans"
    """The key or the column of the spans, with `tokens` "spans"."""
    lines: bool = False
    """Whether each line of a text file is a text."""
    skip_empty: bool = False
    """Whether texts without a character but blanks are skipped, and counted, instead of refused."""
    context: int | None = Field(None, ge=2)
    """The most tokens of a window; None: CONTEXT, or what the model takes if that is less."""
    stride: int | None = Field(None, ge=1)
    """The tokens from one window's beginning to the next; None: windows don't overlap."""
    tokens: Choice | int = "all"
    """The kept tokens of each text: all, the last, those of its spans, or every n-th."""


def make_settings(**given: Any) -> CaptureSettings:
    """Return the settings that flags give. Raises UsageError for a number that can't be."""
    try:
        return CaptureSettings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        flag, reason = str(first["loc"][0]).replace("_", "-"), first["msg"]
        raise UsageError(
            f"--{flag} can't be {first.get('input')!r}: {reason[0].lower()}{reason[1:]}."
        ) from error


def parse_tokens(text: str) -> Choice | int:
    """Return the tokens that a flag names. Raises UsageError."""
    if text in ("all", "last", "spans"):
        return text  # type: ignore[return-value]
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise UsageError(f"--tokens can't be {text!r}: it is {CHOICES}.")
    return number


def recorded(settings: CaptureSettings, sums: list[list[str]]) -> dict[str, Any]:
    """Return the settings as the record holds them; `sums` are the files and their sha256, in their order."""
    record = settings.model_dump(mode="json", exclude={"files"})
    return {**record, "files": sums}
