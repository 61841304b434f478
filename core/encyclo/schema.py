"""The content of an encyclopedia, the same in every store: attributes, concepts, samples, signatures.

attrs         format model weights_sha256 layers pooling hidden_size stage run_id created encyclo_version
              config (JSON), and layer_index: each layer's non-negative hidden_states index
/concepts/    id name definition category; stage n_samples; confidence confidence_low confidence_high;
              converged settled
/samples/     activations scale concept stage family prompt span
/signatures/  mean variance count

Texts are UTF-8 and hold no NUL.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo import crc, half_precision

FORMAT = "encyclo/1"
NO_SPAN = (-1, -1)
TEXT = "text"
LARGEST_LAYER_COUNT, LARGEST_HIDDEN = 1_000, 1_000_000


@dataclass(frozen=True)
class Array:
    """An array of the hierarchy: its type (TEXT or numpy's name) and its shape.

    Letters stand for lengths: n samples, L layers, H hidden size, C concepts.
    """

    dtype: str
    shape: tuple[str | int, ...]


SAMPLES = {
    "activations": Array("float16", ("n", "L", "H")),
    "scale": Array("float32", ("n", "L")),
    "concept": Array("int32", ("n",)),
    "stage": Array("int8", ("n",)),
    "family": Array(TEXT, ("n",)),
    "prompt": Array(TEXT, ("n",)),
    "span": Array("int32", ("n", 2)),
}
"""The columns of a part, too."""
HIERARCHY: dict[str, dict[str, Array]] = {
    "concepts": {
        **{name: Array(TEXT, ("C",)) for name in ("id", "name", "definition", "category")},
        **{name: Array("int32", ("C",)) for name in ("stage", "n_samples")},
        **{name: Array("float32", ("C",)) for name in ("confidence", "confidence_low", "confidence_high")},
        **{name: Array("bool", ("C",)) for name in ("converged", "settled")},
    },
    "samples": SAMPLES,
    "signatures": {
        "mean": Array("float32", ("C", "L", "H")),
        "variance": Array("float32", ("C", "L", "H")),
        "count": Array("int32", ("C",)),
    },
}


Hierarchy = Mapping[str, Mapping[str, Array]]
"""Arrays by group and name; the group "" is the root."""
PART: Hierarchy = {"": SAMPLES}
"""The hierarchy of a part."""


def columns_of(table: Any, arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Return those columns of a dataclass that `arrays` names, by name."""
    return {name: getattr(table, name) for name in arrays}


def place_of_activations(hierarchy: Hierarchy) -> str:
    """Return the path of the activations, such as "samples/activations"."""
    group = next(name for name, arrays in hierarchy.items() if "activations" in arrays)
    return f"{group}/activations" if group else "activations"


LETTERS = {
    "n": "the samples",
    "L": "the layers",
    "H": "the hidden size",
    "C": "the concepts",
    "T": "the texts",
}
"""What a letter of a shape counts."""


def check_shapes(found: Mapping[str, tuple[Array, tuple[int, ...]]]) -> None:
    """Check that each letter stands for one length in all arrays. Raises ValueError.

    `found` gives, by path, the expected array and the actual shape.
    """
    lengths: dict[str, int] = {}
    for path, (array, shape) in found.items():
        if len(shape) != len(array.shape):
            raise ValueError(f"{path} has {len(shape)} dimensions, not {len(array.shape)}")
        for place, (letter, length) in enumerate(zip(array.shape, shape, strict=True), 1):
            expected = letter if isinstance(letter, int) else lengths.setdefault(letter, length)
            if length != expected:
                why = "" if isinstance(letter, int) else f", as {LETTERS[letter]} in the other arrays"
                raise ValueError(
                    f"{path} has the shape {shape}, but its dimension {place} must be {expected}{why}"
                )
    for letter, largest in (("L", LARGEST_LAYER_COUNT), ("H", LARGEST_HIDDEN)):
        if lengths.get(letter, 1) > largest:
            raise ValueError(f"it claims {lengths[letter]:,} for {letter}, more than any model has")


@dataclass(frozen=True)
class Schema:
    """What a store needs before the first part."""

    layers: tuple[int, ...]
    """As the user named them: negative ones count from the end."""
    layer_index: tuple[int, ...]
    """The same layers as indices into the model library's hidden_states."""
    hidden_size: int
    part: Hierarchy = field(default_factory=lambda: PART)
    """The hierarchy of a part: a capture of texts has another one (`encyclo.token_parts`)."""


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
        return half_precision.decode(self.activations, self.scale)

    def columns(self) -> Columns:
        """Return the columns other than activations and prompts."""
        return Columns(self.scale, self.concept, self.stage, self.family, self.span)

    def take(self, rows: NDArray[np.int64]) -> Part:
        """Return the part's `rows`, in that order."""
        columns: dict[str, Any] = {}
        for column in dataclasses.fields(self):
            value = getattr(self, column.name)
            columns[column.name] = [value[i] for i in rows] if isinstance(value, list) else value[rows]
        return Part(**columns)

    def checksum(self, sums: crc.Sums | None = None) -> str:
        """Return a sha256 over the content, independent of the file format that holds it.

        Activations enter by the crc32 of each vector, `crc.of(activations)`; pass it as `sums` if it is known.
        """
        return checksum_of(self, sums)

    @staticmethod
    def join(parts: Sequence[Part]) -> Part:
        """Concatenate parts; at least one."""
        return Part(**_joined(Part, parts))


@dataclass(frozen=True)
class Columns:
    """The samples' small columns, as in `Part`: held in memory even if the activations are not."""

    scale: NDArray[np.float32]
    concept: NDArray[np.int32]
    stage: NDArray[np.int8]
    family: list[str]
    span: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.concept)

    @staticmethod
    def read(column: Callable[[str], Any]) -> Columns:
        """Return the columns that `column` gives by name; equal families share one string."""
        values = {item.name: column(item.name) for item in dataclasses.fields(Columns)}
        return Columns(**{**values, "family": [sys.intern(name) for name in values["family"]]})

    def samples(self, rows: NDArray[np.int64], activations: NDArray[np.float16], prompts: list[str]) -> Part:
        """Return complete samples: the columns' `rows` with their activations and prompts."""
        return Part(
            activations=activations,
            scale=self.scale[rows],
            concept=self.concept[rows],
            stage=self.stage[rows],
            family=[self.family[i] for i in rows],
            prompt=prompts,
            span=self.span[rows],
        )

    def checksum(self) -> str:
        """Return a sha256 over the columns."""
        return checksum_of(self)

    @staticmethod
    def join(columns: Sequence[Columns]) -> Columns:
        """Concatenate columns; at least one item."""
        return Columns(**_joined(Columns, columns))


def checksum_of(table: Any, sums: crc.Sums | None = None) -> str:
    """Return a sha256 over a dataclass of columns; activations enter by their crc32, `sums` if these are known."""
    digest = hashlib.sha256()
    for column in dataclasses.fields(table):
        value = getattr(table, column.name)
        digest.update(column.name.encode())
        if isinstance(value, list):
            digest.update(np.array([len(text) for text in value], "<u8").data)
            digest.update("".join(value).encode("utf-8", "surrogatepass"))
            continue
        digest.update(f"{value.dtype.str}{value.shape}".encode())
        if column.name == "activations":
            value = (crc.of(value) if sums is None else sums).astype("<u4")
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()


def _joined(table: type[Any], items: Sequence[Any]) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for column in dataclasses.fields(table):
        values = [getattr(item, column.name) for item in items]
        joined[column.name] = list(chain(*values)) if isinstance(values[0], list) else np.concatenate(values)
    return joined


@dataclass(frozen=True)
class ConceptTable:
    """The rows of /concepts/, one per concept, in the run's order."""

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

    def mean_of(self, row: int) -> NDArray[np.float32]:
        """Return one concept's mean, float32 [L, H]."""
        found: NDArray[np.float32] = self.mean[row]
        return found

    def means(self, size: int) -> Iterator[NDArray[np.float32]]:
        """Yield the means of all concepts in order, float32 [at most `size`, L, H] at a time."""
        for start in range(0, len(self.count), size):
            yield self.mean[start : start + size]


class LateSignatures(SignatureTable):
    """A file's signatures: `mean` and `variance` are read on first use, and some concepts' means without the others."""

    @classmethod
    def of(
        cls, count: NDArray[np.int32], read: Callable[[str, int | slice | None], NDArray[np.float32]]
    ) -> SignatureTable:
        """Return the signatures that `read` reads by name: of all concepts, or of some rows."""
        late = object.__new__(cls)
        vars(late).update(count=count, _read=read)
        return late

    @property
    def unread(self) -> bool:
        """Whether they will be read from the file."""
        return "_read" in vars(self) and "mean" not in vars(self)

    def __getattr__(self, name: str) -> Any:
        """Read `mean` or `variance`; called only for what isn't there yet."""
        if name not in ("mean", "variance") or "_read" not in vars(self):
            raise AttributeError(name)
        vars(self)[name] = found = vars(self)["_read"](name, None)
        return found

    def __reduce__(self) -> tuple[type[SignatureTable], tuple[Any, ...]]:
        """Pickle the arrays: a file that is open can't be."""
        return SignatureTable, (self.mean, self.variance, self.count)

    def mean_of(self, row: int) -> NDArray[np.float32]:
        """Return one concept's mean, float32 [L, H]."""
        found: NDArray[np.float32] = self._some(row)
        return found

    def means(self, size: int) -> Iterator[NDArray[np.float32]]:
        """Yield the means of all concepts in order, float32 [at most `size`, L, H] at a time."""
        for start in range(0, len(self.count), size):
            yield self._some(slice(start, start + size))

    def _some(self, rows: int | slice) -> Any:
        return vars(self)["_read"]("mean", rows) if "mean" not in vars(self) else vars(self)["mean"][rows]


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
    """An encyclopedia without its samples."""

    attributes: Attributes
    concepts: ConceptTable
    signatures: SignatureTable
