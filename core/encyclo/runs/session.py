"""Everything about a run that can be refused, checked before anything is written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encyclo.config import RunConfig
from encyclo.errors import UsageError
from encyclo.plugins.manager import Plugins
from encyclo.plugins.validation import with_article
from encyclo.schema import Schema
from encyclo.storage import files
from encyclo.types import Concept, Context, Model, Progress

if TYPE_CHECKING:
    from pydantic import BaseModel


@dataclass(frozen=True)
class Stage:
    """One stage of a run: its number and its sampler."""

    number: int
    sampler: str


@dataclass(frozen=True)
class Session:
    """A checked run: plugins loaded, concepts read, model described (its weights not loaded yet)."""

    config: RunConfig
    plugins: Plugins
    options: dict[str, BaseModel | None]
    concepts: list[Concept]
    stages: tuple[Stage, ...]
    model: Model
    schema: Schema
    progress: Progress

    @cached_property
    def trainable(self) -> list[Concept]:
        """The concepts as samplers get them: without their examples, which are for evaluation only."""
        return [dataclasses.replace(concept, examples=()) for concept in self.concepts]

    def context(self, plugin: str, out: Path, **more: Any) -> Context:
        """Return the context that `plugin` gets: its own options and folder, and `more`."""
        return Context(
            seed=self.config.seed,
            device=self.model.device,
            options=self.options[plugin],
            folder=out / "plugins" / plugin,
            model=self.model,
            pooling=self.config.pooling,
            prompts_wanted=self.config.per_concept,
            progress=self.progress,
            **more,
        )

    def resolved(self) -> dict[str, Any]:
        """Return everything that determines the encyclopedia, as run.json records it."""
        record = self.config.model_dump(mode="json", by_alias=True)
        record["options"] = {
            name: options.model_dump(mode="json") for name, options in self.options.items() if options
        }
        record["weights_sha256"] = self.model.weights_sha256
        record["concepts_sha256"] = hash_of([dataclasses.asdict(c) for c in self.concepts])
        record["dtype"] = self.model.dtype
        record["device"] = self.model.device
        return record

    def provenance(self) -> dict[str, Any]:
        """Return where model, concepts and plugins come from, as run.json records it."""
        return {
            "model_source": self.model.source,
            "concept_files": _files_named(self.options[self.config.concepts]),
            "licences": {
                "model": getattr(self.model, "licence", None),
                "concepts": self.plugins.licence(self.config.concepts),
            },
            "plugins": {
                name: f"{found.package} {found.version}"
                for name in self.options
                for found in [self.plugins.load(name)]
            },
        }


def prepare(config: RunConfig, progress: Progress) -> Session:
    """Load the plugins, fill their options, read the concepts, find the model, check the layers.

    Raises UsageError (or a kind of it) for what can't be; writes nothing into the run directory.
    """
    plugins = Plugins()
    for hook, name in _hooks_used(config):
        plugins.require(hook, name)
    plugins.opt_in(config.wrappers)
    options = {name: plugins.options(name, config.options.get(name, {})) for name in config.plugin_names()}
    concepts = load_concepts(config, plugins, options[config.concepts])
    config = _with_fitting_baselines(config, plugins, len(concepts), progress)
    options = {name: options[name] for name in config.plugin_names()}
    context = Context(
        config.seed, config.device, options[config.capture], Path(), pooling=config.pooling, progress=progress
    )
    model: Model = plugins.call("load_model", config.capture, name=config.model, context=context)
    index = tuple(resolve_layer(layer, model) for layer in config.layers)
    if len(set(index)) != len(index):
        raise UsageError(f"--layers names one layer twice: {list(config.layers)} are {list(index)}.")
    stages = tuple(Stage(plugins.stage_of(name), name) for name in config.sampler)
    numbers = [stage.number for stage in stages]
    if numbers != sorted(set(numbers)):
        raise UsageError(
            "--sampler takes one sampler a stage, in rising stages; "
            f"{', '.join(config.sampler)} are of the stages {', '.join(map(str, numbers))}."
        )
    if plugins.needs_interpreter(config.sampler[0]):
        raise UsageError(
            f"The sampler {config.sampler[0]} looks for what an interpreter misreads, and a run's first stage "
            "has none yet; name an earlier stage's sampler before it, such as --sampler templates."
        )
    return Session(
        config,
        plugins,
        options,
        concepts,
        stages,
        model,
        Schema(config.layers, index, model.hidden_size),
        progress,
    )


def resolve_layer(layer: int, model: Model) -> int:
    """Return the non-negative hidden_states index of `layer`. Raises UsageError outside the model."""
    count = model.depth + 1
    if not -count <= layer < count:
        raise UsageError(
            f"Layer {layer} is outside the model {model.name}: it has layers 0 (the embedding) to "
            f"{model.depth}, or -{count} to -1."
        )
    return layer % count


def _hooks_used(config: RunConfig) -> Iterator[tuple[str, str]]:
    yield "load_concepts", config.concepts
    for sampler in config.sampler:
        yield "sample_prompts", sampler
    yield "load_model", config.capture
    yield "capture_layers", config.capture
    yield "store_activations", config.store
    for name in (config.interpreter, *config.baselines):
        yield "train_interpreter", name
    yield "score_confidence", config.scorer


def load_concepts(config: RunConfig, plugins: Plugins, options: BaseModel | None) -> list[Concept]:
    """Return the concepts of `--concepts` and `--limit`, checked. Raises PluginError or UsageError."""
    loaded = plugins.call("load_concepts", config.concepts, options=options)
    concepts: list[Concept] = []
    seen: set[str] = set()
    for concept in islice(plugins.iterate(config.concepts, loaded), config.limit):
        if not isinstance(concept, Concept):
            raise plugins.fault(config.concepts, f"gave {with_article(concept)} where a Concept belongs")
        if concept.id in seen:
            raise plugins.fault(config.concepts, f"gave the concept id {concept.id!r} twice")
        if not concept.name.strip():
            raise plugins.fault(config.concepts, f"gave the concept {concept.id!r} without a name")
        seen.add(concept.id)
        concepts.append(concept)
    if not concepts:
        raise UsageError(f"--concepts {config.concepts} gave no concept.")
    return concepts


def _with_fitting_baselines(config: RunConfig, plugins: Plugins, count: int, progress: Progress) -> RunConfig:
    """Leave out, saying so, the default baselines that don't take so many concepts.

    Raises UsageError for an interpreter that was asked for.
    """
    kept = list(config.baselines)
    for name in dict.fromkeys((config.interpreter, *config.baselines)):
        most = plugins.most_concepts(name)
        if most is None or count <= most:
            continue
        why = f"it takes at most {most:,} concepts and this run has {count:,}"
        if name == config.interpreter or "baselines" in config.model_fields_set:
            where = "--interpreter" if name == config.interpreter else "baselines"
            raise UsageError(f"The interpreter {name!r} can't be trained: {why}; name another as {where}.")
        progress.stage(f"The baseline {name} is left out: {why}")
        kept.remove(name)
    return config.model_copy(update={"baselines": tuple(kept)})


def _files_named(options: BaseModel | None) -> dict[str, str | None]:
    """Return the paths that a concept list's options name: a file with its sha256, a directory without."""
    values = dict(options).values() if options else ()
    paths = [value.expanduser().absolute() for value in values if isinstance(value, Path)]
    return {str(path): files.sha256_of(path) if path.is_file() else None for path in paths}


def hash_of(value: Any) -> str:
    """Return the sha256 of a value's JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
