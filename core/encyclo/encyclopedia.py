"""Open a run, finished or not, and ask about it.

An unfinished run has its samples, which are read from the committed parts; its signatures, confidences and
interpreter are not there yet, and asking for them says so.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo import codec, files, rundir, sealing
from encyclo.config import RunConfig
from encyclo.errors import DamagedError, RunDirectoryError, StoreError, UsageError
from encyclo.finishing import open_finished
from encyclo.ledger import Ledger
from encyclo.plugins import Plugins
from encyclo.rows import Batch, CommittedRows, Source, batches
from encyclo.schema import Book, Part, Schema
from encyclo.session import hash_of, load_concepts
from encyclo.text import printable
from encyclo.types import Concept, Context, Interpreter, Store


@dataclass(frozen=True)
class Neighbour:
    """A concept and how near it is: the cosine of centred signatures, averaged over layers."""

    name: str
    cosine: float


@dataclass(frozen=True)
class Entry:
    """One concept's entry. `confidence`, `low` and `high` are NaN where the run could not measure them."""

    id: str
    name: str
    definition: str
    category: str
    stage: int
    n_samples: int
    confidence: float
    low: float
    high: float
    converged: bool
    settled: bool
    signature: NDArray[np.float32]
    """Mean over the samples that mention the concept: float32 [L, H]."""
    nearest: list[Neighbour]


class Encyclopedia:
    """A run, opened for reading; use it as a context manager."""

    def __init__(
        self,
        path: Path,
        record: dict[str, Any],
        source: Source,
        plugins: Plugins,
        concepts: Sequence[str],
        book: Book | None,
    ) -> None:
        self.path, self.record = path, record
        self._source, self._plugins, self._book = source, plugins, book
        self.concepts: list[str] = list(concepts)
        """Every concept's name, in the run's order."""
        self._place: dict[str, int] = {}
        for index, name in enumerate(self.concepts):
            self._place.setdefault(name, index)
        self._directions: NDArray[np.float32] | None = None
        self._by_concept: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    @property
    def finished(self) -> bool:
        """Whether the run went to its end: signatures, confidences and an interpreter are there."""
        return self._book is not None

    @property
    def book(self) -> Book:
        """Attributes, concepts and signatures. Raises StoreError where the run isn't finished."""
        if self._book is None:
            raise StoreError(
                f"{self.path} is not finished: its samples can be read, but its signatures and confidences "
                "are not there yet; run the same `encyclo run` command again to finish it."
            )
        return self._book

    @property
    def source(self) -> Source:
        """All samples, by row."""
        return self._source

    def __enter__(self) -> Encyclopedia:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.concepts)

    def __repr__(self) -> str:
        state = "" if self.finished else ", not finished"
        return (
            f"<Encyclopedia of {self.record['config']['model']}: {len(self):,} concepts{state}, {self.path}>"
        )

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def index(self, name: str) -> int:
        """Return the row of a concept's name. Raises UsageError that suggests the nearest names."""
        if name in self._place:
            return self._place[name]
        near = nearest_names(name, self.concepts)
        hint = f"; did you mean {', '.join(near)}?" if near else "."
        said = name if len(name) <= 60 else f"{name[:60]}…"
        raise UsageError(f"There is no concept named {said!r} in {self.path}{hint}")

    def entry(self, name: str, neighbours: int = 8) -> Entry:
        """Return the entry of the concept `name`. Raises UsageError."""
        row, table = self.index(name), self.book.concepts
        return Entry(
            id=table.id[row],
            name=table.name[row],
            definition=table.definition[row],
            category=table.category[row],
            stage=int(table.stage[row]),
            n_samples=int(table.n_samples[row]),
            confidence=float(table.confidence[row]),
            low=float(table.confidence_low[row]),
            high=float(table.confidence_high[row]),
            converged=bool(table.converged[row]),
            settled=bool(table.settled[row]),
            signature=self.book.signatures.mean[row],
            nearest=self.nearest(row, neighbours),
        )

    def nearest(self, row: int, count: int) -> list[Neighbour]:
        """Return the concepts whose centred, scaled signatures point most nearly the same way."""
        if self._directions is None:
            self._directions = centred_directions(self.book.signatures.mean)
        directions = self._directions
        cosine = np.einsum("clh,lh->c", directions, directions[row]) / directions.shape[1]
        order = [int(i) for i in np.argsort(-cosine, kind="stable") if i != row][:count]
        return [Neighbour(self.book.concepts.name[i], float(cosine[i])) for i in order]

    def rows(self, concept: str | None = None, stage: int | None = None) -> NDArray[np.int64]:
        """Return the rows of the samples of a concept, of a stage, or of both: int64, rising.

        Raises UsageError for an unknown concept.
        """
        columns = self._source.columns
        if concept is None:
            rows = np.arange(len(columns))
        else:
            if self._by_concept is None:
                order = np.argsort(columns.concept, kind="stable")
                edges = np.searchsorted(columns.concept[order], np.arange(len(self) + 1))
                self._by_concept = order, edges
            order, edges = self._by_concept
            place = self.index(concept)
            rows = order[edges[place] : edges[place + 1]]
        return rows if stage is None else rows[columns.stage[rows] == stage]

    def samples(self, name: str | None = None, stage: int | None = None) -> Part:
        """Return whole samples: those of the concept `name`, of a stage, or of both. Raises DamagedError."""
        return self._source.samples(self.rows(name, stage))

    def activations(self, rows: NDArray[np.int64], layer: int | None = None) -> NDArray[np.float32]:
        """Return the activations of `rows`, float32 [k, L, H], or at one of the run's layers, [k, H].

        `layer` is named as the run names it (such as -6). Raises UsageError, DamagedError.
        """
        scale = self._source.columns.scale[rows]
        if layer is None:
            return codec.decode(self._source.halves(rows), scale)
        place = self._layer(layer)
        return codec.decode(self._source.halves(rows, [place])[:, 0], scale[:, place])

    def layer(self, layer: int, block: int = 16_384) -> Iterator[NDArray[np.float32]]:
        """Yield one layer of every sample, in the samples' order: float32 [up to `block`, H] at a time."""
        for start in range(0, len(self._source.columns), block):
            yield self.activations(np.arange(start, min(start + block, len(self._source.columns))), layer)

    def batches(self, size: int, seed: int, rows: NDArray[np.int64] | None = None) -> Iterator[Batch]:
        """Yield all samples (or those of `rows`) shuffled, `size` at a time; memory does not grow with them.

        The same rows and seed give the same batches.
        """
        return batches(self._source, size, seed, rows)

    def _layer(self, layer: int) -> int:
        layers = list(self.record["config"]["layers"])
        if layer not in layers:
            raise UsageError(f"{self.path} has no layer {layer}; it has {', '.join(map(str, layers))}.")
        return layers.index(layer)

    def confused_with(self, name: str, count: int = 5) -> list[tuple[str, float]]:
        """Return what the interpreter finds likeliest after `name` in its samples: (concept, mean margin).

        The margin is the score of `name` less the other's, averaged over samples; a negative one is a misreading.
        """
        row, part = self.index(name), self.samples(name)
        scores = self.interpreter().read(part.values())
        margin = (scores[:, [row]] - scores).mean(axis=0)
        order = [int(i) for i in np.argsort(margin, kind="stable") if i != row][:count]
        return [(self.book.concepts.name[i], float(margin[i])) for i in order]

    def interpreter(self) -> Interpreter:
        """Load the run's interpreter. Raises DamagedError if its files are not those that were written."""
        folder, name = self.path / "interpreter", self.record["config"]["interpreter"]
        check_sums(folder)
        context = Context(self.record["config"]["seed"], "cpu", None, self.path / "plugins" / name)
        interpreter: Interpreter = self._plugins.call(
            "load_interpreter", name, folder=folder, context=context
        )
        return interpreter


def nearest_names(name: str, names: Sequence[str], count: int = 5) -> list[str]:
    """Return the names that someone who typed `name` may have meant, the likeliest first; capitals don't count."""
    folded: dict[str, str] = {}
    for other in names:
        folded.setdefault(other[:60].casefold(), other)
    asked = name[:60].casefold().strip()
    near = difflib.get_close_matches(asked, folded, n=count, cutoff=0.5)
    # Whoever types a word of a longer name meant that name, however long the rest of it.
    holding = sorted(
        (key for key in folded if asked and asked in key and key not in near), key=lambda k: (len(k), k)
    )
    chosen = near[:1] + holding[: count - 1] + near[1:]
    return [printable(folded[key][:60]) for key in chosen[:count]]


def open_run(path: Path | str) -> Encyclopedia:
    """Open the run directory `path`, finished or not. Raises RunDirectoryError or StoreError.

    All of a finished encyclopedia but its activations is compared with its checksums first; these are when they
    are read. Of an unfinished run every committed part is compared.
    """
    path = Path(path)
    record = rundir.read_record(path)
    plugins = Plugins()
    store = open_store(path, record, plugins)
    with plugins.blame(record["config"]["store"]):
        if (path / sealing.SEAL).exists():
            reader, rows = open_finished(store, path)
            check_owners(path, rows, len(reader.book.concepts))
            return Encyclopedia(path, record, rows, plugins, reader.book.concepts.name, reader.book)
        commits = sorted(Ledger(path).commits().values(), key=lambda commit: (commit.stage, commit.unit))
        if not commits:
            raise StoreError(f"{path} has no samples yet; run the same `encyclo run` command again to go on.")
        source = CommittedRows(store, Ledger(path), commits)
    names = [concept.name for concept in concepts_of(record, plugins)]
    check_owners(path, source, len(names))
    return Encyclopedia(path, record, source, plugins, names, None)


def open_store(path: Path, record: dict[str, Any], plugins: Plugins) -> Store:
    """Return the store that the run's configuration names."""
    schema = Schema(tuple(record["config"].get("layers", ())), (), 0)
    store: Store = plugins.call("store_activations", record["config"]["store"], location=path, schema=schema)
    return store


def check_owners(path: Path, source: Source, concepts: int) -> None:
    """Refuse samples of concepts that the run doesn't have. Raises DamagedError."""
    owners = source.columns.concept
    if len(owners) and not 0 <= owners.min() <= owners.max() < concepts:
        raise DamagedError(
            f"{path} has samples of concepts that it doesn't have; `encyclo verify` says more."
        )


def concepts_of(record: dict[str, Any], plugins: Plugins) -> list[Concept]:
    """Return an unfinished run's concepts, from where it took them. Raises RunDirectoryError if they changed."""
    config = RunConfig.model_validate(
        {key: value for key, value in record["config"].items() if key in _config_keys()}
    )
    options = plugins.options(config.concepts, config.options.get(config.concepts, {}))
    concepts = load_concepts(config, plugins, options)
    if hash_of([asdict(concept) for concept in concepts]) != record["config"]["concepts_sha256"]:
        raise RunDirectoryError(
            f"The concepts of --concepts {config.concepts} are no longer those that the run began with; "
            "bring the old ones back to read its samples by name."
        )
    return concepts


def _config_keys() -> set[str]:
    return {field.alias or name for name, field in RunConfig.model_fields.items()}


def check_sums(folder: Path) -> None:
    """Compare a folder's files with the sha256 that lie beside them. Raises DamagedError naming the file."""
    import json

    try:
        sums = json.loads((folder / "sha256.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedError(f"{folder}/sha256.json can't be read: {error}.") from error
    for name, expected in sums.items():
        path = folder / Path(name).name
        if not path.exists() or files.sha256_of(path) != expected:
            raise DamagedError(
                f"{path} is not the file that the run wrote; run the command again in a new --out."
            )


def centred_directions(mean: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return signatures less their mean, scaled per dimension, of length 1 at each layer: [C, L, H]."""
    centred = mean - mean.mean(axis=0)
    centred /= np.maximum(centred.std(axis=0), 1e-12)
    lengths = np.linalg.norm(centred, axis=-1, keepdims=True)
    result: NDArray[np.float32] = (centred / np.maximum(lengths, 1e-12)).astype(np.float32)
    return result
