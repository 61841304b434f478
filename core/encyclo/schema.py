"""What an encyclopedia holds, the same in every store: attributes, concepts, samples, signatures.

attrs         format model weights_sha256 layers pooling hidden_size stage run_id created encyclo_version
              config (JSON), and layer_index: each layer's non-negative hidden_states index
/concepts/    id name definition category; stage n_samples; confidence confidence_low confidence_high;
              converged settled
/samples/     activations scale concept stage family prompt span
/signatures/  mean variance count
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo import codec

FORMAT = "encyclo/1"
NO_SPAN = (-1, -1)


@dataclass(frozen=True)
class Schema:
    """What a store needs to know before the first part."""

    layers: tuple[int, ...]
    """As asked for: negative ones count from the end."""
    layer_index: tuple[int, ...]
    """The same as indices into the model library's hidden_states."""
    hidden_size: int


@dataclass(frozen=True)
class Part:
    """Samples as columns: the rows of /samples/, or a slice of them.

    activations: float16 [n, L, H]   scale: float32 [n, L]   concept: int32 [n]   stage: int8 [n]
    family, prompt: n strings        span: int32 [n, 2], -1 -1 where there is none
    """

    activations: NDArray[np.float16]
    scale: NDArray[np.float32]
    concept: NDArray[np.int32]
    stage: NDArray[np.int8]
    family: list[str]
    prompt: list[str]
    span: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.concept)

    def values(self) -> NDArray[np.float32]:
        """Return the activations decoded, float32 [n, L, H]."""
        return codec.decode(self.activations, self.scale)

    def checksum(self) -> str:
        """Return a sha256 over the content, independent of the file format that holds it."""
        digest = hashlib.sha256()
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            digest.update(field.name.encode())
            if isinstance(value, list):
                for text in value:
                    data = text.encode("utf-8", "surrogatepass")
                    digest.update(len(data).to_bytes(8, "little"))
                    digest.update(data)
            else:
                digest.update(f"{value.dtype.str}{value.shape}".encode())
                digest.update(np.ascontiguousarray(value).data)
        return digest.hexdigest()

    @staticmethod
    def join(parts: Sequence[Part]) -> Part:
        """Return the parts' rows one after another; at least one part."""
        columns: dict[str, Any] = {}
        for field in dataclasses.fields(Part):
            values = [getattr(part, field.name) for part in parts]
            columns[field.name] = (
                list(chain(*values)) if isinstance(values[0], list) else np.concatenate(values)
            )
        return Part(**columns)


@dataclass(frozen=True)
class ConceptTable:
    """The rows of /concepts/: one a concept, in the run's order."""

    id: list[str]
    name: list[str]
    definition: list[str]
    category: list[str]
    stage: NDArray[np.int32]
    n_samples: NDArray[np.int32]
    confidence: NDArray[np.float32]
    confidence_low: NDArray[np.float32]
    confidence_high: NDArray[np.float32]
    converged: NDArray[np.bool_]
    settled: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.id)


@dataclass(frozen=True)
class SignatureTable:
    """The arrays of /signatures/: mean and variance float32 [C, L, H], count int32 [C]."""

    mean: NDArray[np.float32]
    variance: NDArray[np.float32]
    count: NDArray[np.int32]


@dataclass(frozen=True)
class Attributes:
    """The attributes at the root."""

    model: str
    weights_sha256: str
    layers: tuple[int, ...]
    layer_index: tuple[int, ...]
    pooling: str
    hidden_size: int
    stage: int
    run_id: str
    created: str
    encyclo_version: str
    config: str
    format: str = FORMAT


@dataclass(frozen=True)
class Book:
    """Everything about an encyclopedia but its samples."""

    attributes: Attributes
    concepts: ConceptTable
    signatures: SignatureTable
