"""Go on from what run.json recorded: the same configuration, concepts and model, or a sentence about what differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from encyclo.config import RunConfig
from encyclo.errors import RunDirectoryError, UsageError
from encyclo.plugins.manager import Plugins
from encyclo.runs.session import Session, prepare
from encyclo.types import Context, Model, Progress


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
    session = prepare(recorded_config(record, device), progress)
    now, then = session.resolved(), record["config"]
    if now["concepts_sha256"] != then["concepts_sha256"]:
        raise RunDirectoryError(
            f"The concept list {session.config.concepts!r} no longer gives the concepts that {path} was made of; "
            "restore it, or run again in a new --out."
        )
    check_weights(path, record, session.model)
    return session


def reopen_model(
    path: Path, record: dict[str, Any], progress: Progress, device: str, name: str | None
) -> Model:
    """Return the run's model (or the one called `name`) without loading its weights yet."""
    config, plugins = recorded_config(record, device), Plugins()
    options = plugins.options(config.capture, config.options.get(config.capture, {}))
    context = Context(config.seed, device, options, Path(), pooling=config.pooling, progress=progress)
    model: Model = plugins.call("load_model", config.capture, name=name or config.model, context=context)
    return model


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
    if not (path / "metrics.json").exists():
        raise UsageError(f"The run in {path} is not finished; the command that began it goes on with it.")
