"""Checks everything about a capture of texts before anything is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from encyclo.config import RunConfig
from encyclo.corpus.blocks import Cutter, context_of, rows_of_part
from encyclo.corpus.settings import CaptureSettings, recorded
from encyclo.corpus.text_files import Advance, SourceText, check_beginnings, format_of, read_texts
from encyclo.errors import UsageError
from encyclo.plugins.manager import Plugins
from encyclo.regular_files import open_file
from encyclo.runs.session import chosen_layers, load_model, open_store
from encyclo.schema import Schema
from encyclo.storage import files
from encyclo.text import unstorable
from encyclo.token_parts import TOKEN_PART
from encyclo.types import Model, Progress, Store
from encyclo.windows import WindowModel


@dataclass(frozen=True)
class CaptureJob:
    """A checked capture: plugins loaded, files found, model described (its weights are not loaded yet)."""

    settings: CaptureSettings
    config: RunConfig
    plugins: Plugins
    model: Model
    schema: Schema
    progress: Progress

    @property
    def reader(self) -> WindowModel:
        """The model as it reads windows."""
        assert isinstance(self.model, WindowModel)
        return self.model

    def open_store(self, out: Path) -> Store:
        """Return the store of the capture `out`."""
        return token_store(self.plugins, self.config.store, out, self.schema)

    def cutter(self) -> Cutter:
        """Return what cuts the texts into blocks."""
        rows = rows_of_part(len(self.schema.layers), self.schema.hidden_size)
        return Cutter(self.reader, self.settings, rows)

    def texts(self, advance: Advance = lambda _: None) -> Iterator[SourceText]:
        """Yield the texts of all files. Raises UsageError naming the file and the line of what is no text."""
        for path in self.settings.files:
            yield from read_texts(path, self.settings, advance)

    @property
    def bytes(self) -> int:
        """The bytes of all files."""
        return sum(path.stat().st_size for path in self.settings.files)

    @cached_property
    def record(self) -> dict[str, Any]:
        """Everything that determines the capture, as capture.json records it."""
        sums = [[str(path), files.sha256_of(path)] for path in self.settings.files]
        options = self.plugins.options(self.config.capture, self.config.options.get(self.config.capture, {}))
        return {
            **recorded(self.settings, sums),
            "model": self.config.model,
            "weights_sha256": self.model.weights_sha256,
            "model_sha256": getattr(self.model, "model_sha256", None),
            "dtype": self.model.dtype,
            "device": self.model.device,
            "layers": list(self.schema.layers),
            "layer_index": list(self.schema.layer_index),
            "site": self.config.site,
            "hidden_size": self.schema.hidden_size,
            "capture": self.config.capture,
            "store": self.config.store,
            "options": {self.config.capture: options.model_dump(mode="json") if options else {}},
        }

    @cached_property
    def recipe(self) -> str:
        """A hash of everything but the texts that determines a block's content."""
        text = json.dumps({**self.record, "files": None, "store": None}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def check_unchanged(self) -> None:
        """Raise UsageError naming a file that is not the one that the record has any more."""
        for path, known in self.record["files"]:
            if files.sha256_of(Path(path)) != known:
                raise UsageError(
                    f"{path} was changed while its texts were captured; capture them again into another --out."
                )

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the model comes from, as capture.json records it."""
        return {
            "model_source": self.model.source,
            "model_quantisation": getattr(self.model, "quantisation", None),
            "licence": getattr(self.model, "licence", None),
        }

    @property
    def packages(self) -> list[str]:
        """The packages of the plugins, with their versions."""
        found = [self.plugins.load(name) for name in (self.config.capture, self.config.store)]
        return [f"{plugin.package} {plugin.version}" for plugin in found]


def prepare(settings: CaptureSettings, config: RunConfig, progress: Progress, out: Path) -> CaptureJob:
    """Load the plugins, find files and model, check layers and windows. Raises UsageError; writes nothing."""
    for path in settings.files:
        if format_of(path) == "text" and settings.tokens == "spans":
            raise UsageError(f"{path} has no spans for --tokens spans; give JSON Lines or Parquet.")
        open_file(path, advice="correct its name", error=UsageError).close()
    if character := unstorable(map(str, settings.files)):
        raise UsageError(f"The name of a file has the character {character}; rename the file.")
    if len(set(settings.files)) < len(settings.files):
        raise UsageError("A file is named twice; name each file once.")
    plugins = Plugins()
    for hook, name in (("load_model", config.capture), ("store_activations", config.store)):
        plugins.require(hook, name)
    if unused := [name for name in config.options if name != config.capture]:
        raise UsageError(
            f"-o {unused[0]}.… sets an option of {unused[0]}, which a capture of texts doesn't use; leave it out."
        )
    options = plugins.options(config.capture, config.options.get(config.capture, {}))
    check_beginnings(settings)
    model = load_model(plugins, config, options, out, progress)
    if not isinstance(model, WindowModel):
        raise UsageError(
            f"The capture {config.capture!r} can't read windows of long texts; use --capture transformers."
        )
    layers, index = chosen_layers(config, model)
    return CaptureJob(
        _with_windows(settings, model, config.model),
        config,
        plugins,
        model,
        Schema(layers, index, model.hidden_size, TOKEN_PART),
        progress,
    )


def _with_windows(settings: CaptureSettings, model: WindowModel, name: str) -> CaptureSettings:
    """Return the settings with the sizes of windows. Raises UsageError for sizes that can't be."""
    context, most = context_of(settings, model), model.max_tokens
    if most is not None and context > most:
        raise UsageError(f"--context can't be {context:,}: the model {name} takes at most {most:,} tokens.")
    tokens = model.split_text("a")
    added = len(tokens.before) + len(tokens.after)
    if context <= added:
        raise UsageError(f"--context can't be {context}: the tokenizer adds {added} tokens to each window.")
    stride = settings.stride or context - added
    if stride > context - added:
        raise UsageError(
            f"--stride can't be {stride:,}: a window of {context:,} tokens holds {context - added:,} of the text, and "
            "the tokens between two windows would be lost."
        )
    return settings.model_copy(update={"context": context, "stride": stride})


def token_store(plugins: Plugins, name: str, out: Path, schema: Schema) -> Store:
    """Return a store that holds tokens of texts. Raises UsageError if the plugin `name` can't."""
    store = open_store(plugins, name, out, schema)
    if not hasattr(store, "open_tokens"):
        raise UsageError(f"The store {name!r} can't hold tokens of texts; use --store hdf5 or zarr.")
    return store


def schema_of(config: dict[str, Any]) -> Schema:
    """Return the schema of a capture that is there, by its recorded configuration."""
    layers: Sequence[int] = config["layers"]
    return Schema(tuple(layers), tuple(config["layer_index"]), int(config["hidden_size"]), TOKEN_PART)
