"""A run's directory: used by one process at a time, described by run.json, resumed by the same configuration."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from encyclo.config import RunConfig
from encyclo.errors import DamagedError, RunDirectoryError, StoreError
from encyclo.runs import worker_locks
from encyclo.runs.config_differences import config_differences
from encyclo.runs.metrics import FILE as METRICS
from encyclo.storage import checksums, files, run_files, safe_read
from encyclo.storage.ledger import Ledger, locked
from encyclo.text import utf8
from encyclo.version import __version__

_LIBRARIES = ("torch", "transformers", "numpy", "h5py", "zarr", "safetensors", "pluggy", "tokenizers", "gguf")
"""Libraries that results may depend on, whether or not a plugin's package requires them."""
GROWS = ("targets", "budget")
"""The keys that may be raised for an existing run, which then continues."""


@dataclass(frozen=True)
class Goals:
    """A run's goals: each stage's target, and the most samples of each sampler (None: the default)."""

    targets: tuple[float, ...]
    budget: int | None

    def target(self, stage: int) -> float:
        """Return a stage's target; stages beyond the last target share it."""
        return self.targets[min(int(stage), len(self.targets) - 1)]


@dataclass(frozen=True)
class RunDirectory:
    """A run directory and its record."""

    path: Path
    record: dict[str, Any]
    """The content of run.json."""

    @property
    def ledger(self) -> Ledger:
        """Return the run's ledger."""
        return Ledger(self.path)

    @property
    def goals(self) -> list[Goals]:
        """Return the run's goals: the first ones, then those of each time that targets or budget were raised."""
        return [Goals(tuple(asked["targets"]), asked["budget"]) for asked in self.record["efforts"]]

    def note(self, key: str, value: Any) -> None:
        """Set `key` of run.json to `value`."""
        self.record[key] = value
        write_record(self.path, self.record)


def check_usable(out: Path, record: str = run_files.RECORD) -> None:
    """Raise RunDirectoryError if `out` can't hold a run, whose file `record` says what it is; write nothing."""
    if out.exists():
        if not out.is_dir():
            raise RunDirectoryError(f"--out {out} is a file, not a directory; choose another --out.")
        if not os.access(out, os.W_OK | os.X_OK):
            raise RunDirectoryError(
                f"--out {out} can't be written; change its permissions or choose another --out."
            )
        if record == run_files.RECORD:
            _refuse_capture(out)
        if not (out / record).exists() and any(
            entry.name not in {".lock", ".lock.pid"} and not entry.name.startswith(files.TEMPORARY)
            for entry in out.iterdir()
        ):
            raise RunDirectoryError(
                f"--out {out} holds other files and no {record}; choose an empty or a new directory."
            )
        _refuse_links(out)
        return
    check_parent(out)


def _refuse_capture(out: Path) -> None:
    if (out / safe_read.TEXTS_RECORD).exists():
        raise RunDirectoryError(
            f"{out} is a capture of texts by `encyclo capture`, not an encyclopedia; read it with encyclo.open, or "
            "check it with `encyclo verify`."
        )


def check_parent(out: Path) -> None:
    """Raise RunDirectoryError if the folder that `out` is to be made in can't be written."""
    parent = out.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise RunDirectoryError(
            f"--out {out} can't be made: {parent} can't be written; choose another --out."
        )


def _refuse_links(out: Path) -> None:
    """Refuse a run whose folders are links: what encyclo writes and removes there may be somebody else's."""
    folders = [out / name for name in ("commits", "parts", "rounds", "plugins", worker_locks.FOLDER)]
    own = out / "plugins"
    if not own.is_symlink() and own.is_dir():
        folders += sorted(own.iterdir())
    for folder in folders:
        if folder.is_symlink():
            raise RunDirectoryError(
                f"--out {out} can't be used: {folder} is a link; put the folder itself there, or choose another --out."
            )


Options = Mapping[str, Mapping[str, Any]]
"""Plugins' options, by plugin and key."""


def check_same(out: Path, resolved: Mapping[str, Any], defaults: Options = MappingProxyType({})) -> None:
    """Raise RunDirectoryError, saying what differs, if `out` holds a run of another configuration.

    An option that the run doesn't record, since its plugin did not have it yet, counts as its default in
    `defaults`.
    """
    if not (out / "run.json").exists():
        return
    there = read_record(out)["config"]
    here = json.loads(json.dumps(resolved))
    if (
        there.get("model_sha256") is None
    ):  # a run of encyclo's first version, or of a model that had no such hash
        there.pop("model_sha256", None)
        here.pop("model_sha256", None)
    for name, recorded in there.get("options", {}).items():
        there["options"][name] = {**defaults.get(name, {}), **recorded}
    for name in _concept_sources(there, here):
        there["options"][name] = here["options"][name]
    for config in (there, here):  # an older version did not record it
        for key in ("chat", "chat_role", "chat_system", "echo", "site"):
            config.setdefault(key, RunConfig.model_fields[key].default)
    if _same_concepts(there, here):
        there["examples"] = here.get("examples")
    fixed = [{k: v for k, v in c.items() if k not in GROWS} for c in (there, here)]
    differences = config_differences(fixed[0], fixed[1])
    lowered = [key for key in GROWS if _lower(there.get(key), here.get(key))]
    if lowered and not differences:
        raise RunDirectoryError(
            f"{out} was run with a higher {lowered[0]} ({json.dumps(there[lowered[0]])} there, "
            f"{json.dumps(here[lowered[0]])} now) and can't be lowered; raise it, or choose another --out."
        )
    if list(differences) == ["model_sha256"]:
        raise another_model(out, str(there["model"]))
    if differences:
        raise RunDirectoryError(
            f"{out} holds a run with another configuration ({'; '.join(list(differences.values())[:6])}); "
            "use the same flags to continue it, or choose another --out."
        )


def another_model(out: Path, name: str) -> RunDirectoryError:
    """Return the error that says that the run's model has its weights, and another configuration or tokenizer."""
    return RunDirectoryError(
        f"{out} was made with another configuration or tokenizer of the model {name} than it has now; restore its "
        "config.json and tokenizer files, or run again in a new --out."
    )


def _concept_sources(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return the concept lists of which only the options have changed, not the concepts.

    `concepts_sha256` covers the concepts, so a run continues with a list that was moved, or that is read in
    another way with the same result.
    """
    if not _same_concepts(there, here):
        return []
    lists = here.get("concepts")
    others = [here.get(role) for role in ("capture", "store", "interpreter", "scorer")]
    others += [*here.get("sampler", ()), *here.get("baselines", ()), *here.get("with", ())]
    options = [config.get("options", {}) for config in (there, here)]
    return [
        name
        for name in (lists if isinstance(lists, list | tuple) else [str(lists)])
        if name not in others
        and all(name in given for given in options)
        and options[0][name] != options[1][name]
    ]


def _same_concepts(there: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Return whether both lists gave the same concepts, with the same examples, wherever their files are."""
    both = [
        json.loads(json.dumps([c.get(key) for key in ("concepts", "concepts_sha256")])) for c in (there, here)
    ]
    return bool(both[0] == both[1])


@contextmanager
def claimed(
    out: Path,
    resolved: Mapping[str, Any],
    provenance: Mapping[str, Any],
    defaults: Options = MappingProxyType({}),
) -> Iterator[RunDirectory]:
    """Make or reopen the run directory `out` and lock it for the block. Raises RunDirectoryError."""
    check_usable(out)
    check_same(out, resolved, defaults)
    try:
        files.make_folder(out)
    except StoreError as error:
        raise RunDirectoryError(
            f"--out {out} can't be made: {error.__cause__}; choose another --out."
        ) from error
    with locked(out):
        check_same(out, resolved, defaults)
        if (out / "run.json").exists():
            record = read_record(out)
            run_files.check_finished_record(out)
            for name in _concept_sources(record["config"], resolved):
                record["config"]["options"][name] = resolved["options"][name]
                write_record(out, record)
            if record["config"].get("examples") != resolved.get("examples"):  # moved
                record["config"]["examples"] = resolved.get("examples")
                write_record(out, record)
            _raise_effort(out, record, resolved)
        else:
            record = _new_record(resolved, provenance)
            write_record(out, record)
        directory = RunDirectory(out, record)
        worker_locks.clear(out)
        directory.ledger.create()
        directory.ledger.sweep()
        yield directory


def read_record(out: Path) -> dict[str, Any]:
    """Return run.json's content. Raises RunDirectoryError if there is none, DamagedError if unreadable."""
    path = out / "run.json"
    if not path.exists():
        _refuse_capture(out)
        raise RunDirectoryError(
            f"{out} is not a run of encyclo: it has no run.json; name the --out of an `encyclo run`."
        )
    record = checksums.read_sealed(path, at_most=safe_read.RUN_JSON, within=out)
    if not isinstance(record.get("config"), dict) or not isinstance(record.get("run_id"), str):
        raise safe_read.refusal(path, "it holds no configuration or no id", safe_read.RESTORE, DamagedError)
    return record


def write_record(out: Path, record: Mapping[str, Any]) -> None:
    """Write run.json, durably."""
    run_files.write_json(out, run_files.RECORD, checksums.sealed(record))


def _new_record(resolved: Mapping[str, Any], provenance: Mapping[str, Any]) -> dict[str, Any]:
    text = json.dumps({"config": resolved, "provenance": provenance}, sort_keys=True)
    return {
        "run_id": f"{hashlib.sha256(text.encode()).hexdigest()[:12]}-{uuid.uuid4().hex[:8]}",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [utf8(word) for word in (Path(sys.argv[0]).name, *sys.argv[1:])],
        "config": dict(resolved),
        "efforts": [_effort(resolved)],
        "provenance": dict(provenance),
        "versions": versions_of({text.split()[0] for text in provenance.get("plugins", {}).values()}),
        "platform": {"python": platform.python_version(), "system": platform.platform()},
    }


def _effort(resolved: Mapping[str, Any]) -> dict[str, Any]:
    return {key: json.loads(json.dumps(resolved.get(key))) for key in GROWS}


def _raise_effort(out: Path, record: dict[str, Any], resolved: Mapping[str, Any]) -> None:
    """Record raised targets or a raised budget; a finished run becomes unfinished."""
    asked = _effort(resolved)
    if asked == record["efforts"][-1]:
        return
    # In this order: a process killed in between leaves an unfinished run, which the same command raises again.
    files.remove(out / METRICS)
    record["efforts"].append(asked)
    record["config"] |= asked
    write_record(out, record)


def _lower(there: Any, here: Any) -> bool:
    """Return whether a target or the budget was lowered; None is the lowest budget."""
    if isinstance(there, list) and isinstance(here, list):
        return any(new < old for old, new in zip(there, here, strict=True))
    return there is not None and (here is None or here < there)


def versions_of(packages: set[str]) -> dict[str, str]:
    """Return the versions of encyclo's main libraries, the plugins' packages and their requirements."""
    names = dict.fromkeys(_LIBRARIES)
    for package in sorted(packages):
        names[package] = None
        for requirement in _requirements(package):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                names[requirement.name] = None
    versions = {"encyclo": __version__}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.setdefault(name, importlib.metadata.version(name))
    return versions


def _requirements(package: str) -> Iterator[Requirement]:
    """Yield what a package requires; skip a line that is not a valid requirement."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for line in importlib.metadata.requires(package) or ():
            with contextlib.suppress(InvalidRequirement):
                yield Requirement(line)
