"""Reopen a run from its run.json with the same configuration, concepts and model; refuse others."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from encyclo.config import RunConfig
from encyclo.errors import ConceptListWarning, RunDirectoryError, UsageError
from encyclo.plugins.manager import Plugins
from encyclo.runs import interpreter_folder
from encyclo.runs.concept_lists import load_concepts
from encyclo.runs.directory import RunDirectory, another_model, read_record
from encyclo.runs.metrics import FILE as METRICS
from encyclo.runs.open_run import OpenRun
from encyclo.runs.session import (
    concepts_hash,
    load_model,
    open_store,
    plugin_folder,
    prepare,
)
from encyclo.schema import Schema
from encyclo.storage import run_files, safe_read
from encyclo.storage.checksums import Seal
from encyclo.storage.ledger import locked
from encyclo.types import Concept, Context, Interpreter, Model, Progress, Store


def recorded_config(record: dict[str, Any], device: str = "auto") -> RunConfig:
    """Return the configuration in run.json, for `device`. Raises RunDirectoryError if it is not valid."""
    known = {field.alias or name for name, field in RunConfig.model_fields.items()}
    values = {key: value for key, value in record["config"].items() if key in known}
    try:
        return RunConfig(**{**values, "device": device})
    except ValidationError as error:
        version = record.get("versions", {}).get("encyclo", "that wrote it")
        raise RunDirectoryError(
            f"The configuration in run.json can't be read by this version of encyclo: {safe_read.invalid(error)}; "
            f"use encyclo {version}."
        ) from error


def reopen_run(path: Path, record: dict[str, Any], progress: Progress, device: str = "auto") -> OpenRun:
    """Reopen the run in `path`. Raises RunDirectoryError if the concepts or the model have changed."""
    with known_lists():
        session = prepare(recorded_config(record, device), progress, path)
    _check_concepts(path, record, session.concepts)
    check_model(path, record, session.model)
    return OpenRun.of(session, RunDirectory(path, record))


@contextmanager
def known_lists() -> Iterator[None]:
    """Don't repeat in the block what the run's beginning warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConceptListWarning)
        yield


@contextmanager
def finished_run(path: Path, progress: Progress, device: str = "auto") -> Iterator[OpenRun]:
    """Reopen the finished run in `path`, locked for the block, which may write into it.

    Raises UsageError (or a subclass) if it is not finished, its concepts or model have changed, or its run.json is
    another run's.
    """
    record = read_record(path)
    require_finished(path)
    run = reopen_run(path, record, progress, device)
    with locked(path):
        run_files.check_finished_record(path)  # before the work: it may be refused
        yield run


def reopen_model(
    path: Path, record: dict[str, Any], progress: Progress, device: str, name: str | None
) -> Model:
    """Return the run's model (or the one called `name`); its weights are not loaded yet."""
    config, plugins = recorded_config(record, device), Plugins()
    return load_model(plugins, config, _options(plugins, config, config.capture), path, progress, name)


def reopen_store(path: Path, record: dict[str, Any], plugins: Plugins) -> Store:
    """Return the store that the run's configuration names."""
    schema = Schema(tuple(record["config"].get("layers", ())), (), 0)
    return open_store(plugins, record["config"]["store"], path, schema)


def reopen_concepts(path: Path, record: dict[str, Any], plugins: Plugins) -> list[Concept]:
    """Load the run's concepts again. Raises RunDirectoryError if they changed."""
    config = recorded_config(record)
    options = {name: _options(plugins, config, name) for name in config.concept_lists}
    with known_lists():
        concepts = load_concepts(config, plugins, options)
    _check_concepts(path, record, concepts)
    return concepts


def reopen_interpreter(
    path: Path,
    record: dict[str, Any],
    plugins: Plugins,
    concepts: Sequence[str],
    seal: Seal | None = None,
) -> Interpreter:
    """Load the run's interpreter of `concepts` (ids), with its options; `seal` is the run's if it was read.

    Raises UsageError if an unfinished run has none yet, DamagedError if a file was changed or is another run's.
    """
    if not (path / interpreter_folder.FOLDER).exists():
        require_finished(path)
    config = record["config"]
    name: str = config["interpreter"]
    options = plugins.options(name, config.get("options", {}).get(name, {}))
    context = Context(config["seed"], "cpu", options, plugin_folder(path, name))
    return interpreter_folder.load_interpreter(plugins, name, path / "interpreter", context, concepts, seal)


def check_model(path: Path, record: dict[str, Any], model: Model) -> None:
    """Raise RunDirectoryError, naming both, if the model's weights, configuration or tokenizer are not the run's."""
    then = record["config"]["weights_sha256"]
    if model.weights_sha256 != then:
        raise RunDirectoryError(
            f"{path} was made with the model {record['config']['model']} (weights {then[:12]}), not "
            f"with {model.name} (weights {model.weights_sha256[:12]}); use the original model, "
            "or start a new run with another --out."
        )
    check_identity(path, record, model)


def check_identity(path: Path, record: dict[str, Any], model: Model) -> None:
    """Raise RunDirectoryError if a model with the run's weights has another configuration, tokenizer or template.

    Warns if the run records the weights alone, as encyclo's first version did.
    """
    config = record["config"]
    if "model_sha256" not in config:
        run_files.warn_first_version(path)
    elif config["model_sha256"] not in (None, getattr(model, "model_sha256", None)):
        raise another_model(path, config["model"])
    chat = recorded_config(record).as_messages
    if chat and config.get("chat_frame") not in (None, chat.frame(model)):
        raise RunDirectoryError(
            f"{path} was made with another chat template of the model {config['model']} than it has now; restore it, "
            "or run again in a new --out."
        )


def require_finished(path: Path) -> None:
    """Raise UsageError if the run has no metrics.json."""
    if not (path / METRICS).exists():
        raise not_finished(path)


def not_finished(path: Path) -> UsageError:
    """Return the error for a request that only a finished run can answer."""
    return UsageError(
        f"The run in {path} is not finished: its samples can be read, but its signatures, confidences and report are "
        "not there yet; run the same `encyclo run` command again to finish it."
    )


def _options(plugins: Plugins, config: RunConfig, name: str) -> Any:
    return plugins.options(name, config.options.get(name, {}))


def _check_concepts(path: Path, record: dict[str, Any], concepts: list[Concept]) -> None:
    if concepts_hash(concepts) != record["config"]["concepts_sha256"]:
        if examples := record["config"].get("examples"):
            raise RunDirectoryError(
                f"The concept list {record['config']['concepts']!r} with the sentences of {examples} (--examples) no "
                f"longer gives the concepts of the run in {path}; restore both files, or start a new run with another "
                "--out."
            )
        raise RunDirectoryError(
            f"The concept list {record['config']['concepts']!r} no longer gives the concepts of the run in {path}; "
            "restore it, or start a new run with another --out."
        )
