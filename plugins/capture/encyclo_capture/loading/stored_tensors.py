"""Compares config.json with the tensors in the weight files, whose names and shapes are known before any is read.

transformers allocates what config.json asks for, fills what the files lack with random numbers and converts any type.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encyclo.errors import ModelNotFoundError
from encyclo_capture.loading.model_files import ADVICE, check_file, read_settings
from encyclo_capture.loading.refusals import refusing

INDEX = ".safetensors.index.json"
FLOATS = {"F64", "F32", "F16", "BF16"}
SIZES = (
    "hidden_size",
    "n_embd",
    "num_hidden_layers",
    "n_layer",
    "num_attention_heads",
    "n_head",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
)
COUNTED = re.compile(r"layer|block|head|expert|label")
"""Settings that count things which a library puts into lists."""
FEW_LAYERS = 200
"""So many are built quickly; then their weights are compared exactly."""
ROOM = 2**26
"""Numbers that a network may hold beyond those in its files, such as tables of positions."""


@dataclass(frozen=True)
class StoredTensor:
    """The shape and the type of a tensor in a weight file."""

    shape: tuple[int, ...]
    dtype: str


def read_tensors(folder: Path, settings: Mapping[str, Any]) -> dict[str, StoredTensor]:
    """Return shapes and types by name, from the files that transformers loads; no weights are read.

    Raises ModelNotFoundError for missing files, and for an index that names files which are not in the folder or
    not .safetensors.
    """
    from safetensors import safe_open

    found = {}
    for path in _weight_files(folder, settings.get("transformers_weights")):
        with refusing(f"{path} can't be read", advice=f"; {ADVICE}"), safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                found[name] = StoredTensor(tuple(part.get_shape()), part.get_dtype())
    return found


def check_settings(name: str, settings: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> None:
    """Check the sizes in the config.json of the model `name`, before transformers makes lists of that many items.

    Raises ModelNotFoundError for sizes below 1, and for counts that the tensors in the files make impossible.
    """
    text = settings.get("text_config")
    for part in (settings, text if isinstance(text, dict) else {}):
        for key in SIZES:
            if (size := _integer(part.get(key))) is not None and size < 1:
                raise ModelNotFoundError(
                    f"The config.json of the model {name!r} has {key} = {size}, but it must be at least 1; {ADVICE}."
                )
    most = max([len(tensors), *(size for tensor in tensors.values() for size in tensor.shape)])
    stored = _count_layers(tensors)
    for key, number in _integers(settings):
        # Some models use one layer's weights in several layers.
        if key.endswith(("layer", "layers")) and number > max(stored, FEW_LAYERS):
            raise ModelNotFoundError(
                f"The weights of the model {name!r} are incomplete: config.json has {key} = {number}, but the "
                f".safetensors files have {stored} layers; {ADVICE}."
            )
        if number > (most if COUNTED.search(key) else 2**63 - 1):
            raise ModelNotFoundError(
                f"The config.json of the model {name!r} has {key} = {number}, too large for its .safetensors files "
                f"with {len(tensors)} tensors of at most {most} rows; {ADVICE}."
            )


def _count_layers(tensors: Iterable[str]) -> int:
    """Return the number of layers in the longest list of layers that tensors' names show."""
    indices: dict[str, set[str]] = defaultdict(set)
    for key in tensors:
        if match := re.search(r"\.(\d+)\.", f".{key}"):
            indices[key[: match.start()]].add(match[1])
    return max(map(len, indices.values()), default=0)


def check_room(name: str, network: Any, tensors: Mapping[str, StoredTensor], packed: bool) -> None:
    """Check that a network without weights (on the device meta) isn't much larger than the tensors in the files.

    Quantised (`packed`) files hold up to 32 numbers in one. Raises ModelNotFoundError.
    """
    needed = sum(tensor.numel() for tensor in [*network.parameters(), *network.buffers()])
    stored = sum(math.prod(tensor.shape) for tensor in tensors.values())
    if needed > 2 * stored * (32 if packed else 1) + ROOM:
        raise ModelNotFoundError(
            f"The weights of the model {name!r} don't fit its config.json, which asks for {needed:,} numbers, but the "
            f".safetensors files hold {stored:,}; {ADVICE}."
        )


def check_loaded(
    name: str,
    network: Any,
    within: tuple[str, str | None],
    report: Mapping[str, Any],
    tensors: Mapping[str, StoredTensor],
    packed: bool,
) -> None:
    """Check that a loaded network has every weight from the files and uses all those of its blocks.

    `within` are the names, in the whole model, of the network and of its list of blocks, if it has one; `report` is
    what transformers says about the loading. Quantised (`packed`) files hold numbers of other types. Raises
    ModelNotFoundError.
    """
    part, blocks = f"{within[0]}." if within[0] else "", within[1]
    if mismatched := sorted(report["mismatched_keys"]):
        key, stored, required = mismatched[0]
        raise ModelNotFoundError(
            f"The weights of the model {name!r} don't fit its config.json: {key} has the shape {list(stored)} in the "
            f".safetensors files, but config.json requires {list(required)}; {ADVICE}."
        )
    # Hidden layers never need the pooler, nor the parts of a model that read no text.
    needed = [key for key in report["missing_keys"] if key.startswith(part)]
    if missing := sorted(key for key in needed if not key.startswith(f"{part}pooler.")):
        raise ModelNotFoundError(
            f"The weights of the model {name!r} are incomplete: {len(missing)} weights that config.json "
            f"requires are missing from the .safetensors files, such as {missing[0]}; {ADVICE}."
        )
    of_block = re.compile(rf"(^|\.){re.escape(blocks or part)}\.\d+\..*\.(weight|bias)$")
    for key, tensor in sorted(tensors.items()):
        # Masks of old files are called bias too, but have four dimensions.
        if key in report["unexpected_keys"] and of_block.search(key) and len(tensor.shape) <= 2:
            raise ModelNotFoundError(
                f"The weights of the model {name!r} don't fit its config.json, which has no place for {key}; use the "
                "config.json that belongs to these weights."
            )
        if not packed and tensor.dtype not in FLOATS and key.endswith((".weight", "_proj")):
            raise ModelNotFoundError(
                f"The weights of the model {name!r} are quantised in a way that config.json doesn't describe: {key} "
                f"has the type {tensor.dtype}; use the model's unquantised weights."
            )


def _weight_files(folder: Path, named: object) -> list[Path]:
    """Return the files that transformers loads: the one that config.json names, model.safetensors, or the shards."""
    if named is not None and not (isinstance(named, str) and named.endswith((".safetensors", INDEX))):
        raise ModelNotFoundError(
            f"The config.json in {folder} has transformers_weights = {named!r}, which names no "
            f".safetensors file; {ADVICE}."
        )
    single = _inside(folder, named or "model.safetensors")
    if not single.name.endswith(INDEX) and (named or single.exists()):
        return [single]
    index = single if named else folder / f"model{INDEX}"
    if not index.exists():
        raise ModelNotFoundError(
            f"The folder {folder} has neither model.safetensors nor model{INDEX}; give its weights one of these names."
        )
    settings = read_settings(index)
    shards = settings.get("weight_map")
    if not isinstance(shards, dict) or not shards or not isinstance(settings.get("metadata"), dict):
        raise ModelNotFoundError(f"{index} can't be read: it has no weight_map or no metadata; {ADVICE}.")
    paths = [_inside(folder, shard) for shard in sorted({*map(str, shards.values())})]
    for path in paths:
        if path.suffix != ".safetensors":
            raise ModelNotFoundError(
                f"The index {index} names {path.name!r}, which is not a .safetensors file; convert pickled weights, "
                "which encyclo does not load."
            )
        check_file(path)
    return paths


def _inside(folder: Path, name: str) -> Path:
    if Path(name).name != name:
        raise ModelNotFoundError(
            f"The folder {folder} names the weight file {name!r}, which is outside the folder; {ADVICE}."
        )
    return folder / name


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _integers(settings: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _integers(value)
        elif (number := _integer(value)) is not None:
            yield key, number
