"""A run's configuration: flags, a TOML file and plugin options, checked before anything runs."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from encyclo.errors import UsageError
from encyclo.regular_files import read_text
from encyclo.text import unstorable

Number = TypeVar("Number", int, float)

DEFAULT_SAMPLERS = ("raw", "templates", "diverse", "adversarial")
"""The samplers of a run without --sampler, one per stage."""

STAGES = 4
MOST_SAMPLES = 100_000
"""The largest usual number of samples of a concept."""

FILE_ONLY = frozenset({"baselines", "converged_below", "scorer"})
"""Keys of the configuration file that no flag sets."""
LARGEST_FILE = 2**24


class RunConfig(BaseModel):
    """Everything that determines an encyclopedia, except the versions of the software."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sampler: tuple[str, ...] = Field(DEFAULT_SAMPLERS, min_length=1)
    store: str = "hdf5"
    interpreter: str = "transformer"
    capture: str = "transformers"
    concepts: str = "core"
    scorer: str = "calibrated"
    baselines: tuple[str, ...] = ("centroid", "logistic")
    """Interpreters that are trained for comparison with the chosen one."""
    examples: Path | None = None
    """A file with sentences by other authors, which only test the interpreter."""
    limit: int | None = Field(None, ge=1)
    per_concept: int = Field(10, ge=1, le=MOST_SAMPLES)
    """Samples per concept and sampler: exact in the first stage, the usual number later."""
    budget: int | None = Field(None, ge=1)
    """The most samples of a sampler; None means its usual number times the number of concepts."""
    targets: tuple[float, ...] = (0.40, 0.70, 0.85, 0.90)
    """Each stage's target, stage 0 first: the lower end of a concept's confidence must reach it."""
    layers: tuple[int, ...] = Field((-12, -9, -6, -3, -1), min_length=1)
    pooling: Literal["span", "last", "mean", "mean-all"] = "span"
    echo: bool = False
    """Give the model each text twice and read the second copy (`encyclo.echo`)."""
    model: str = "gemma-3-270m"
    device: str = "auto"
    converged_below: float = Field(0.25, gt=0, allow_inf_nan=False)
    """A signature has converged when its relative standard error is at most this."""
    seed: int = Field(0, ge=0, lt=2**63)
    wrappers: tuple[str, ...] = Field((), alias="with")
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("layers")
    @classmethod
    def _distinct(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(layers)) != len(layers):
            raise ValueError("a layer is named twice; name it once")
        return layers

    @field_validator("targets")
    @classmethod
    def _rising(cls, targets: tuple[float, ...]) -> tuple[float, ...]:
        if len(targets) != STAGES:
            raise ValueError(f"give {STAGES} numbers, one per stage")
        if not all(0 < target <= 1 for target in targets):
            raise ValueError("each of --targets is a confidence, so it must be above 0 and at most 1")
        if list(targets) != sorted(targets):
            raise ValueError("targets must not fall from stage to stage")
        return targets

    @field_validator("echo")
    @classmethod
    def _readable(cls, echo: bool, others: ValidationInfo) -> bool:
        if echo and others.data.get("pooling") == "mean-all":
            raise ValueError(
                "the pooling mean-all averages the first copy of a text too; choose span, last or mean"
            )
        return echo

    def plugin_names(self) -> list[str]:
        """Return the plugins of this run, without repeats, in a fixed order."""
        names = [
            self.concepts, *self.sampler, self.capture, self.store,
            self.interpreter, *self.baselines, self.scorer, *self.wrappers,
        ]  # fmt: skip
        return list(dict.fromkeys(names))


def load_config(flags: Mapping[str, Any], file: Path | None = None, options: Sequence[str] = ()) -> RunConfig:
    """Join a TOML file, the given flags (not None) and `NAME.key=value` options; later sources win.

    Raises UsageError naming the invalid key and value.
    """
    merged: dict[str, Any] = {}
    tables: dict[str, dict[str, Any]] = {}
    if file is not None:
        for key, value in _read_toml(file).items():
            if isinstance(value, dict):
                tables[key] = dict(value)
            elif key == "options":  # tables and -o fill it; a value in the file would be lost
                raise UsageError(_no_key(key))
            else:
                merged[key.replace("-", "_")] = value
    merged.update({key: value for key, value in flags.items() if value is not None})
    for text in options:
        name, key, value = _parse_option(text)
        tables.setdefault(name, {})[key] = value
    if tables:
        merged["options"] = tables
    if character := unstorable([json.dumps(merged, ensure_ascii=False, default=str)]):
        raise UsageError(
            f"The flags hold the character {character}, which is no text; rename the file or the folder that has it."
        )
    if isinstance(merged.get("sampler"), str):
        merged["sampler"] = [merged["sampler"]]
    try:
        config = RunConfig(**merged)
    except ValidationError as error:
        raise UsageError(_first_problem(error)) from error
    strangers = [name for name in config.options if name not in config.plugin_names()]
    if strangers:
        raise UsageError(
            f"Options are given for {', '.join(map(repr, strangers))}, but this run uses "
            f"{', '.join(config.plugin_names())}; choose the plugin, or leave its options out."
        )
    return config


def parse_layers(text: str) -> tuple[int, ...]:
    """Read `-12,-9,-1`. Raises UsageError."""
    return _parse_numbers(text, int, "--layers takes whole numbers separated by commas, such as -12,-6,-1")


def parse_targets(text: str) -> tuple[float, ...]:
    """Read `0.4,0.7,0.85,0.9`. Raises UsageError."""
    rule = "--targets takes four numbers separated by commas, such as 0.4,0.7,0.85,0.9"
    return _parse_numbers(text, float, rule)


def _parse_numbers(text: str, kind: Callable[[str], Number], rule: str) -> tuple[Number, ...]:
    try:
        return tuple(map(kind, text.split(",")))
    except ValueError as error:
        raise UsageError(f"{rule}, not {text!r}.") from error


def _read_toml(file: Path) -> dict[str, Any]:
    text = read_text(file, at_most=LARGEST_FILE, advice="name another file with --config", error=UsageError)
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(
            f"The configuration file {file} is not valid TOML: {error}; correct the file."
        ) from error


def _parse_option(text: str) -> tuple[str, str, Any]:
    left, equals, value = text.partition("=")
    name, dot, key = left.strip().partition(".")
    if not (equals and dot and name and key):
        example = """-o 'templates.groups=["quoted"]'"""
        raise UsageError(f"-o takes NAME.key=value, such as {example}, not {text!r}.")
    try:
        return name, key, json.loads(value)
    except (ValueError, RecursionError):
        return name, key, value


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    key = str(first["loc"][0]) if first["loc"] else ""
    where = f"The configuration key {key}" if key in FILE_ONLY else f"--{key.replace('_', '-')}"
    if first["type"] == "extra_forbidden":
        return _no_key(key)
    reason = first["msg"].removeprefix("Value error, ")
    return f"{where} can't be {first.get('input')!r}: {reason[0].lower()}{reason[1:]}."


def _no_key(key: str) -> str:
    keys = {field.alias or name for name, field in RunConfig.model_fields.items()} - {"options"}
    return f"The configuration has no key {key!r}; its keys are: {', '.join(sorted(keys))}."
