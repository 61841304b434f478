"""Go on from what run.json recorded: the same configuration, concepts and model, or a sentence about what differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from encyclo.config import RunConfig
from encyclo.errors import RunDirectoryError, UsageError
from encyclo.plugins.manager import Plugins
from encyclo.runs import interpreter_folder
from encyclo.runs.directory import RunDirectory
from encyclo.runs.metrics import FILE as METRICS
from encyclo.runs.open_run import OpenRun
from encyclo.runs.session import (
    Session,
    concepts_hash,
    load_concepts,
    load_model,
    open_store,
    plugin_folder,
    prepare,
)
from encyclo.schema import Schema
from encyclo.types import Concept, Context, Interpreter, Model, Progress, Store


def recorded_config(record: dict[str, Any], device: str = "auto") -> RunConfig:
    """Return the configuration in run.json, for `device`. Raises RunDirectoryError if it is no configuration."""
    known = {field.alias or name for name, field in RunConfig.model_fields.items()}
    values = {key: value for key, value in record["config"].items() if key in known}
    try:
        return RunConfig(**{**values, "device": device})
    except ValueError as error:  # pydantic's ValidationError is one
        raise RunDirectoryError(
            f"run.json holds a configuration that this version of encyclo doesn't know ({type(error).__name__}); "
            "use the version that wrote it."
        ) from error


def reopen(path: Path, record: dict[str, Any], progress: Progress, device: str = "auto") -> Session:
    """Return the session of a run again. Raises RunDirectoryError if concepts or model are not the run's."""
    session = prepare(recorded_config(record, device), progress, path)
    _check_concepts(path, record, session.concepts)
    check_weights(path, record, session.model)
    return session


def reopen_run(path: Path, record: dict[str, Any], progress: Progress, device: str = "auto") -> OpenRun:
    """Return a run that was recorded in `path`, open again. Raises RunDirectoryError as `reopen` does."""
    return OpenRun.of(reopen(path, record, progress, device), RunDirectory(path, record))


def reopen_model(
    path: Path, record: dict[str, Any], progress: Progress, device: str, name: str | None
) -> Model:
    """Return the run's model (or the one called `name`) without loading its weights yet."""
    config, plugins = recorded_config(record, device), Plugins()
    return load_model(plugins, config, _options(plugins, config, config.capture), path, progress, name)


def reopen_store(path: Path, record: dict[str, Any], plugins: Plugins) -> Store:
    """Return the store that the run's configuration names."""
    schema = Schema(tuple(record["config"].get("layers", ())), (), 0)
    return open_store(plugins, record["config"]["store"], path, schema)


def reopen_concepts(path: Path, record: dict[str, Any], plugins: Plugins) -> list[Concept]:
    """Return the run's concepts, from where it took them. Raises RunDirectoryError if they changed."""
    config = recorded_config(record)
    concepts = load_concepts(config, plugins, _options(plugins, config, config.concepts))
    _check_concepts(path, record, concepts)
    return concepts


def reopen_interpreter(
    path: Path, record: dict[str, Any], plugins: Plugins, device: str = "cpu"
) -> Interpreter:
    """Load the run's interpreter, with its options. Raises DamagedError if its files are others."""
    config = record["config"]
    name: str = config["interpreter"]
    options = plugins.options(name, config.get("options", {}).get(name, {}))
    context = Context(config["seed"], device, options, plugin_folder(path, name))
    return interpreter_folder.load_interpreter(plugins, name, path / "interpreter", context)


def check_weights(path: Path, record: dict[str, Any], model: Model) -> None:
    """Refuse weights that are not those of the run. Raises RunDirectoryError saying both."""
    then = record["config"]["weights_sha256"]
    if model.weights_sha256 != then:
        raise RunDirectoryError(
            f"{path} was made with the model {record['config']['model']} (weights {then[:12]}), not "
            f"with {model.name} (weights {model.weights_sha256[:12]}); use the same, or run again in a new --out."
        )


def require_finished(path: Path) -> None:
    """Refuse a run without metrics.json. Raises UsageError."""
    if not (path / METRICS).exists():
        raise UsageError(f"The run in {path} is not finished; the command that began it goes on with it.")


def _options(plugins: Plugins, config: RunConfig, name: str) -> Any:
    return plugins.options(name, config.options.get(name, {}))


def _check_concepts(path: Path, record: dict[str, Any], concepts: list[Concept]) -> None:
    if concepts_hash(concepts) != record["config"]["concepts_sha256"]:
        raise RunDirectoryError(
            f"The concept list {record['config']['concepts']!r} no longer gives the concepts that {path} was made "
            "of; restore it, or run again in a new --out."
        )
