"""Write a concept's centred signature as a control vector, which llama.cpp adds to the model's layers.

The file is GGUF with the architecture `controlvector` and a float32 tensor `direction.N` [H] per layer. llama.cpp
counts blocks from 0, takes no direction for block 0, and adds `direction.N` to the output of block N; that is
`hidden_states[N + 1]` in transformers, where 0 is the embedding. So

    hidden_states index i  ->  direction.(i - 1)      for 2 <= i < depth

The last index is left out: it is the output after the final norm, not of a block. Layers that the run
did not capture have no direction; llama.cpp treats it as zero. The file of a run with --site attn or mlp says so in its
name and in general.description.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.errors import UsageError
from encyclo.query.encyclopedia import Encyclopedia
from encyclo.runs.reopen import reopen_model
from encyclo.storage import files
from encyclo.terminal import ConsoleProgress
from encyclo.text import utf8
from encyclo.types import RESIDUAL

FIRST = 2
"""The lowest hidden_states index that llama.cpp can add to."""


@dataclass(frozen=True)
class ControlVector:
    """The content of one file: a direction for each layer, float32 [H], by the run's name of the layer."""

    file: str
    """The file's path in the export."""
    id: str
    concept: str
    directions: dict[int, NDArray[np.float32]]
    tensors: dict[int, str]
    """The tensors' names, by the same layers."""
    site: str = RESIDUAL
    """Where the run read its layers (`encyclo.types.SITES`)."""

    def json(self) -> dict[str, Any]:
        """Return the file's record in metadata.json."""
        tensors = {name: layer for layer, name in self.tensors.items()}
        return {"id": utf8(self.id), "concept": utf8(self.concept), "layers": tensors}


def find(book: Encyclopedia, name: str, centred: NDArray[np.float32]) -> ControlVector:
    """Return a concept's control vector from the centred signatures [C, L, H]. Raises UsageError."""
    entry = book[name]
    if not book.book.signatures.count[entry.row]:
        raise UsageError(
            f"{name!r} has no control vector: no sample in {book.path} mentions it; name another concept."
        )
    attributes, depth = book.book.attributes, _depth(book)
    steered = [
        (place, layer, index)
        for place, (layer, index) in enumerate(zip(attributes.layers, attributes.layer_index, strict=True))
        if FIRST <= index < depth
    ]
    if not steered:
        raise UsageError(
            f"{book.path} has no layer that llama.cpp can shift: its layers are the hidden states "
            f"{', '.join(map(str, attributes.layer_index))}, and llama.cpp can shift {FIRST} to {depth - 1}; make a "
            "run with such --layers."
        )
    slug = re.sub("[^a-z0-9]+", "-", entry.name.lower())[:40].strip("-")
    words = [f"{entry.row:05d}", slug, "" if book.site == RESIDUAL else book.site]
    return ControlVector(
        f"control/{'-'.join(filter(None, words))}.gguf",
        entry.id,
        entry.name,
        {layer: centred[entry.row, place] for place, layer, _ in steered},
        {layer: f"direction.{index - 1}" for _, layer, index in steered},
        book.site,
    )


def write(folder: Path, vector: ControlVector, model_hint: str) -> None:
    """Write the vector's file below `folder`."""
    from gguf import GGUFWriter

    path = folder / vector.file
    files.make_folder(path.parent)
    writer = GGUFWriter(path, "controlvector")
    writer.add_string("controlvector.model_hint", utf8(model_hint))
    writer.add_int32("controlvector.layer_count", len(vector.directions))
    writer.add_name(utf8(vector.concept))
    if vector.site != RESIDUAL:
        writer.add_description(f"what {vector.site} adds to the residual stream")
    for layer, direction in vector.directions.items():
        writer.add_tensor(vector.tensors[layer], np.ascontiguousarray(direction, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _depth(book: Encyclopedia) -> int:
    """Return the model's largest hidden_states index: from a layer counted from the end, else from the model."""
    attributes = book.book.attributes
    for layer, index in zip(attributes.layers, attributes.layer_index, strict=True):
        if layer < 0:
            return index - layer - 1
    return reopen_model(book.path, book.record, ConsoleProgress(quiet=True), "cpu", None).depth
