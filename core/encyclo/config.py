"""A run's configuration: flags, a TOML file and plugin options, checked before anything runs."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from encyclo.chat import Chat
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
FILE_LIST = "file"
"""The plugin that reads a list of `--concepts FILE`."""


class RunConfig(BaseModel):
    """Everything that determines an encyclopedia, except the versions of the software."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    sampler: tuple[str, ...] = Field(DEFAULT_SAMPLERS, min_length=1)
    store: str = "hdf5"
    interpreter: str = "transformer"
    capture: str = "transformers"
    concepts: str | tuple[str, ...] = "core"
    """The concept list, or several; see `concept_lists`."""
    scorer: str = "calibrated"
    executor: str = "local"
    """Where units are done. It does not determine the encyclopedia, and run.json does not record it."""
    baselines: tuple[str, ...] = ("centroid", "logistic")
    """Interpreters that are trained for comparison with the chosen one."""
    examples: Path | None = None
    """A file with sentences by other authors, which only test the interpreter."""
    limit: int | None = Field(None, ge=1)
    per_concept: int = Field(10, ge=1, le=MOST_SAMPLES)
    """Samples per concept and sampler: exact in the first stage, the usual number later."""
    budget: int | None = Field(None, ge=1)
    """The most samples of a sampler; None means its usual number times the number of concepts."""
    targets: tuple[float, ...] = (0.40, 0.70, 0.85, 0.95)
    """Each stage's target, stage 0 first: the lower end of a concept's confidence must reach it."""
    layers: tuple[int, ...] | None = Field(None, min_length=1)
    """None means `default_layers` of the model; run.json records the layers themselves."""
    site: Literal["resid", "attn", "mlp"] = "resid"
    """Where the layers are read (`encyclo.types.SITES`)."""
    pooling: Literal["span", "last", "mean", "mean-all"] = "span"
    chat: bool = False
    """Give the model each text as a message in its chat template (`encyclo.chat`)."""
    chat_role: str = "user"
    chat_system: str | None = None
    """The system prompt; None leaves it to the template."""
    echo: bool = False
    """Give the model each text twice and read the second copy (`encyclo.echo`)."""
    model: str = "gemma-3-270m"
    device: str = "auto"
    converged_below: float = Field(0.25, gt=0, allow_inf_nan=False)
    """A signature has converged when its relative standard error is at most this."""
    seed: int = Field(0, ge=0, lt=2**63)
    wrappers: tuple[str, ...] = Field((), alias="with")
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("concepts")
    @classmethod
    def _distinct_lists(cls, lists: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(lists, str):
            return lists
        if not lists or len(set(lists)) != len(lists):
            raise ValueError("name at least one list, and each list once")
        return lists[0] if len(lists) == 1 else lists  # as older runs record a single list

    @field_validator("layers")
    @classmethod
    def _distinct(cls, layers: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if layers is not None and len(set(layers)) != len(layers):
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

    @field_validator("chat", "echo")
    @classmethod
    def _readable(cls, on: bool, about: ValidationInfo) -> bool:
        if on and about.data.get("pooling") == "mean-all":
            other = "the chat template" if about.field_name == "chat" else "the first copy of a text"
            raise ValueError(f"the pooling mean-all averages {other} too; choose span, last or mean")
        return on

    @field_validator("chat_role", "chat_system")
    @classmethod
    def _needs_chat(cls, value: str | None, about: ValidationInfo) -> str | None:
        if value != cls.model_fields[str(about.field_name)].default and not about.data.get("chat", True):
            raise ValueError("it needs --chat")
        return value

    @property
    def as_messages(self) -> Chat | None:
        """How texts become messages; None without --chat."""
        return Chat(self.chat_role, self.chat_system) if self.chat else None

    @property
    def concept_lists(self) -> tuple[str, ...]:
        """The plugins that give the concepts, in their order."""
        return (self.concepts,) if isinstance(self.concepts, str) else self.concepts

    def plugin_names(self) -> list[str]:
        """Return the plugins of this run, without repeats, in a fixed order."""
        return list(dict.fromkeys((*self._roles(), self.executor, *self.wrappers)))

    def recorded_plugins(self) -> list[str]:
        """Return the plugins that determine the encyclopedia: all but the executor."""
        return list(dict.fromkeys((*self._roles(), *self.wrappers)))

    def _roles(self) -> tuple[str, ...]:
        return (
            *self.concept_lists, *self.sampler, self.capture, self.store,
            self.interpreter, *self.baselines, self.scorer,
        )  # fmt: skip


def load_config(flags: Mapping[str, Any], file: Path | None = None, options: Sequence[str] = ()) -> RunConfig:
    """Join a TOML file, the given flags (not None) and `NAME.key=value` options; later sources win.

    `concepts` may be a file with a list instead of a plugin: it becomes the plugin `file` with its option `path`.
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
    if isinstance(lists := merged.get("concepts"), str | list):
        lists = [lists] if isinstance(lists, str) else lists
        merged["concepts"] = [
            _concept_list(name, tables) if isinstance(name, str) else name for name in lists
        ]
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


def _concept_list(named: str, tables: dict[str, dict[str, Any]]) -> str:
    """Return the plugin that `concepts` names; if it is a file, this is `file`, which gets the path as its option."""
    if named in entry_points(group="encyclo").names:
        return named
    path = os.path.expanduser(named)
    if not os.path.isfile(path):
        if Path(named).suffix or Path(named).name != named:
            what = "is a folder" if os.path.isdir(path) else "does not exist"
            raise UsageError(
                f"--concepts names the file {named!r}, which {what}; "
                "correct the path, or name a plugin such as core, wordnet or file."
            )
        return named
    if (other := tables.setdefault(FILE_LIST, {}).setdefault("path", named)) != named:
        raise UsageError(
            f"--concepts names the file {named!r}, but the list {FILE_LIST!r} already has the file {other!r}; name one "
            "file, which may hold both lists."
        )
    return FILE_LIST


def default_layers(depth: int) -> tuple[int, ...]:
    """Return a run's layers without --layers: -12 -9 -6 -3 -1 on 18 layers, and these shares of any other depth."""
    back = [max(1, round(depth * layer / 18)) for layer in (12, 9, 6, 3)]
    return tuple(-layer for layer in dict.fromkeys([*back, 1]))  # few layers may coincide


def parse_layers(text: str) -> tuple[int, ...]:
    """Read `-12,-9,-1`. Raises UsageError."""
    return _parse_numbers(text, int, "--layers takes whole numbers separated by commas, such as -12,-6,-1")


def parse_targets(text: str) -> tuple[float, ...]:
    """Read `0.4,0.7,0.85,0.95`. Raises UsageError."""
    rule = "--targets takes four numbers separated by commas, such as 0.4,0.7,0.85,0.95"
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
