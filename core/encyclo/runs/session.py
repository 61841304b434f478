"""Check everything about a run before anything is written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encyclo.config import MOST_SAMPLES, RunConfig, default_layers
from encyclo.errors import UsageError
from encyclo.held_out_aliases import without_held_out
from encyclo.plugins.manager import Plugins
from encyclo.runs.concept_lists import load_concepts
from encyclo.schema import Schema
from encyclo.storage import files
from encyclo.storage.working_copy import is_on_object_store
from encyclo.types import RESIDUAL, Concept, Context, Model, Progress, Store

if TYPE_CHECKING:
    from pydantic import BaseModel

LAST_STAGE = 127
"""The samples' column for the stage has 8 bits."""


@dataclass(frozen=True)
class Stage:
    """A sampler of a run and its stage; several samplers may share one."""

    number: int
    sampler: str
    usual: int
    """How many samples of a concept the sampler usually gives."""
    shared: bool = False

    @property
    def key(self) -> str:
        """The sampler's name as plans and commits record it: empty unless another sampler has the same stage."""
        return self.sampler if self.shared else ""


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
        """The concepts as samplers get them, without what only evaluates: their examples and half of their aliases."""
        return [
            without_held_out(dataclasses.replace(c, examples=(), example_spans=()), self.config.seed)
            for c in self.concepts
        ]

    @cached_property
    def place_of(self) -> dict[str, int]:
        """Each concept's index in `concepts`, by its id."""
        return {concept.id: place for place, concept in enumerate(self.concepts)}

    @cached_property
    def chat_frame(self) -> str | None:
        """What the model gets before each text; None without --chat. Raises UsageError if it has no template."""
        chat = self.config.as_messages
        return chat.frame(self.model) if chat else None

    def looks(self, stage: Stage) -> bool:
        """Return whether a stage's sampler needs an interpreter."""
        return self.plugins.traits(stage.sampler).needs_interpreter

    def may_skip(self, stage: Stage) -> bool:
        """Return whether a stage's sampler may give no prompt for a concept."""
        return self.looks(stage) or self.plugins.traits(stage.sampler).partial

    def open_store(self, out: Path) -> Store:
        """Return the store of the run directory `out`."""
        return open_store(self.plugins, self.config.store, out, self.schema)

    def context(self, plugin: str, out: Path, **more: Any) -> Context:
        """Return the context that `plugin` gets: its own options and folder, and `more`.

        The device is what the user asked for, unless `more` names another.
        """
        return Context(
            seed=self.config.seed,
            device=more.pop("device", self.config.device),
            options=self.options[plugin],
            folder=plugin_folder(out, plugin),
            model=self.model,
            pooling=self.config.pooling,
            site=self.config.site,
            chat=dataclasses.asdict(chat) if (chat := self.config.as_messages) else None,
            echo=self.config.echo,
            prompts_wanted=more.pop("prompts_wanted", self.config.per_concept),
            progress=self.progress,
            **more,
        )

    def resolved(self) -> dict[str, Any]:
        """Return everything that determines the encyclopedia, as run.json records it."""
        record = self.config.model_dump(mode="json", by_alias=True, exclude={"executor"})
        record["options"] = {
            name: options.model_dump(mode="json")
            for name in self.config.recorded_plugins()
            if (options := self.options[name])
        }
        record["weights_sha256"] = self.model.weights_sha256
        record["model_sha256"] = getattr(self.model, "model_sha256", None)
        record["concepts_sha256"] = concepts_hash(self.concepts)
        record["dtype"] = self.model.dtype
        record["device"] = self.model.device
        if self.chat_frame is not None:
            record["chat_frame"] = self.chat_frame
        return record

    def default_options(self) -> dict[str, dict[str, Any]]:
        """Return the default options of each plugin; options without a default are left out."""
        defaults = {}
        for name, options in self.options.items():
            if options:
                with self.plugins.blame(name):
                    defaults[name] = {
                        key: json.loads(json.dumps(field.get_default(call_default_factory=True), default=str))
                        for key, field in type(options).model_fields.items()
                        if not field.is_required()
                    }
        return defaults

    def provenance(self) -> dict[str, Any]:
        """Return where model, concepts and plugins come from, as run.json records it."""
        return {
            "model_source": self.model.source,
            "model_quantisation": getattr(self.model, "quantisation", None),
            "concept_files": _files_named(
                self.config.examples, [self.options[name] for name in self.config.concept_lists]
            ),
            "licences": {
                "model": getattr(self.model, "licence", None),
                "concepts": licence_of_lists(self.plugins, self.config.concept_lists),
            },
            "plugins": {
                name: f"{found.package} {found.version}"
                for name in self.config.recorded_plugins()
                for found in [self.plugins.load(name)]
            },
        }


def open_store(plugins: Plugins, name: str, out: Path, schema: Schema) -> Store:
    """Return the store of the plugin `name` for the run directory `out`."""
    store: Store = plugins.call("store_activations", name, location=out, schema=schema)
    return store


def check_store(plugins: Plugins, name: str, out: Path) -> None:
    """Raise UsageError if the run `out` is on an object store and the store `name` can't be."""
    if is_on_object_store(out) and not plugins.traits(name).object_stores:
        raise UsageError(
            f"A run with the store {name} can't be on an object store ({out}); use --store zarr."
        )


def prepare(config: RunConfig, progress: Progress, out: Path = Path()) -> Session:
    """Load the plugins, fill their options, read the concepts, find the model, check the layers.

    Each plugin gets a folder of its own in the run directory `out`. Raises UsageError (or a subclass) if anything
    is invalid; writes nothing.
    """
    plugins = Plugins()
    for hook, name in _hooks_used(config):
        plugins.require(hook, name)
    check_store(plugins, config.store, out)
    plugins.opt_in(config.wrappers)
    options = {name: plugins.options(name, config.options.get(name, {})) for name in config.plugin_names()}
    concepts = load_concepts(config, plugins, options)
    config = _with_fitting_baselines(config, plugins, len(concepts), progress)
    options = {name: options[name] for name in config.plugin_names()}
    model = load_model(plugins, config, options[config.capture], out, progress)
    layers, index = chosen_layers(config, model)
    config = config.model_copy(update={"layers": layers})
    session = Session(
        config,
        plugins,
        options,
        concepts,
        read_stages(config, plugins, options),
        model,
        Schema(layers, index, model.hidden_size),
        progress,
    )
    _ = session.chat_frame  # refuses a model without a chat template
    return session


def read_stages(
    config: RunConfig, plugins: Plugins, options: dict[str, BaseModel | None]
) -> tuple[Stage, ...]:
    """Return the samplers with their stages. Raises UsageError for an order that a run can't have."""
    stages = [_stage(name, config, plugins, options[name]) for name in config.sampler]
    numbers = [stage.number for stage in stages]
    if repeated := [name for name in config.sampler if config.sampler.count(name) > 1]:
        raise UsageError(f"--sampler names {repeated[0]} twice; name each sampler once.")
    if numbers != sorted(numbers):
        raise UsageError(
            f"{', '.join(config.sampler)} have the stages {', '.join(map(str, numbers))}; give each --sampler in "
            "ascending order of the stages."
        )
    first = stages[0]
    if plugins.traits(first.sampler).needs_interpreter:
        raise UsageError(
            f"The sampler {first.sampler} needs an interpreter, and a run's first sampler has none yet; "
            "name a sampler of the same or an earlier stage before it, such as --sampler templates."
        )
    return tuple(dataclasses.replace(s, shared=numbers.count(s.number) > 1) for s in stages)


def _stage(name: str, config: RunConfig, plugins: Plugins, options: BaseModel | None) -> Stage:
    """Return a sampler's stage and usual number: its options' `stage` and `per_concept`, if it has these options."""
    number, usual = getattr(options, "stage", None), getattr(options, "per_concept", None)
    for key, value, least, most in (
        ("stage", number, 0, LAST_STAGE),
        ("per_concept", usual, 1, MOST_SAMPLES),
    ):
        if value is not None and (type(value) is not int or not least <= value <= most):
            raise UsageError(
                f"Option {name}.{key} can't be {value!r:.80}: it must be a whole number from {least} to {most:,}."
            )
    number = plugins.traits(name).stage if number is None else number
    # Stage 0 has the name alone, so only one prompt.
    return Stage(number, name, usual or (config.per_concept if number else 1))


def load_model(
    plugins: Plugins,
    config: RunConfig,
    options: BaseModel | None,
    out: Path,
    progress: Progress,
    name: str | None = None,
) -> Model:
    """Return the run's model (or the one called `name`); its weights are not loaded yet.

    Raises UsageError if the capture plugin can't read the run's site.
    """
    context = Context(
        config.seed,
        config.device,
        options,
        plugin_folder(out, config.capture),
        pooling=config.pooling,
        site=config.site,
        progress=progress,
    )
    model: Model = plugins.call("load_model", config.capture, name=name or config.model, context=context)
    if getattr(model, "site", RESIDUAL) != config.site:
        raise UsageError(
            f"The capture {config.capture} reads only the residual stream, not --site {config.site}; leave --site out, "
            "or use --capture transformers."
        )
    return model


def plugin_folder(out: Path, name: str) -> Path:
    """Return the folder of the plugin `name` in the run directory `out`; it is not created."""
    return out / "plugins" / name


def chosen_layers(config: RunConfig, model: Model) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the layers of --layers, or the default ones, and their hidden_states indices. Raises UsageError."""
    layers = config.layers or default_layers(model.depth)
    index = tuple(resolve_layer(layer, model) for layer in layers)
    if len(set(index)) != len(index):
        raise UsageError(
            f"--layers names a layer twice: {list(layers)} are the indices {list(index)}; name each once."
        )
    if config.site != RESIDUAL and 0 in index:
        raise UsageError(
            f"--layers names layer 0, the embedding, which comes before every block; with --site {config.site} name "
            f"layers from 1 to {model.depth}."
        )
    return layers, index


def resolve_layer(layer: int, model: Model) -> int:
    """Return the non-negative hidden_states index of `layer`. Raises UsageError outside the model."""
    count = model.depth + 1
    if not -count <= layer < count:
        raise UsageError(
            f"Layer {layer} is outside the model {model.name}: it has layers 0 (the embedding) to "
            f"{model.depth}, or -{count} to -1; name some of these with --layers."
        )
    return layer % count


def _hooks_used(config: RunConfig) -> Iterator[tuple[str, str]]:
    for name in config.concept_lists:
        yield "load_concepts", name
    for sampler in config.sampler:
        yield "sample_prompts", sampler
    yield "load_model", config.capture
    yield "capture_layers", config.capture
    yield "store_activations", config.store
    for name in (config.interpreter, *config.baselines):
        yield "train_interpreter", name
    yield "score_confidence", config.scorer
    yield "run_units", config.executor


def _with_fitting_baselines(config: RunConfig, plugins: Plugins, count: int, progress: Progress) -> RunConfig:
    """Leave out the default baselines that can't take `count` concepts, and say so.

    Raises UsageError if the user named such an interpreter.
    """
    kept = list(config.baselines)
    for name in dict.fromkeys((config.interpreter, *config.baselines)):
        most = plugins.traits(name).most_concepts
        if most is None or count <= most:
            continue
        why = f"it takes at most {most:,} concepts and this run has {count:,}"
        if name == config.interpreter or "baselines" in config.model_fields_set:
            where = "--interpreter" if name == config.interpreter else "baselines"
            raise UsageError(f"The interpreter {name!r} can't be trained: {why}; name another as {where}.")
        progress.stage(f"The baseline {name} is left out: {why}")
        kept.remove(name)
    return config.model_copy(update={"baselines": tuple(kept)})


def licence_of_lists(plugins: Plugins, lists: Sequence[str]) -> str | None:
    """Return the licence of a concept list; of several lists, each licence with its list."""
    found = {name: plugins.traits(name).licence for name in lists}
    if len(found) == 1:
        return found[lists[0]]
    return "; ".join(f"{name}: {licence}" for name, licence in found.items() if licence) or None


def _files_named(examples: Path | None, lists: Sequence[BaseModel | None]) -> dict[str, str | None]:
    """Return the files of --examples and of the concept lists' options with their sha256; of a directory it is None."""
    values = [*(value for options in lists if options for value in dict(options).values()), examples]
    paths = [value.expanduser().absolute() for value in values if isinstance(value, Path)]
    return {str(path): files.sha256_of(path) if path.is_file() else None for path in paths}


def fields_of(concept: Concept) -> dict[str, Any]:
    """Return a concept's fields as hashes cover them: without those that older runs lack, if they are empty."""
    fields = {field.name: getattr(concept, field.name) for field in dataclasses.fields(concept)}
    for name in ("example_spans", "held_out_aliases"):
        if not fields[name]:
            del fields[name]
    return fields


def concepts_hash(concepts: list[Concept]) -> str:
    """Return the sha256 of a concept list's JSON."""
    listed = [fields_of(concept) for concept in concepts]
    for concept in listed:
        del concept["word_shares"]  # they serve reading, not sampling: a run goes on with others
    return hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()
