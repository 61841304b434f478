"""Open a run and ask about it."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo import files, rundir
from encyclo.errors import DamagedError, UsageError
from encyclo.plugins import Plugins
from encyclo.schema import Book, Part, Schema
from encyclo.types import Context, Interpreter, Reader, Store


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
    """A finished run, opened for reading; use it as a context manager."""

    def __init__(self, path: Path, record: dict[str, Any], reader: Reader, plugins: Plugins) -> None:
        self.path, self.record = path, record
        self._reader, self._plugins = reader, plugins
        self.book: Book = reader.book
        self._place = {name: index for index, name in enumerate(self.book.concepts.name)}
        self._directions: NDArray[np.float32] | None = None

    def __enter__(self) -> Encyclopedia:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.book.concepts)

    def __repr__(self) -> str:
        attributes = self.book.attributes
        return f"<Encyclopedia of {attributes.model}: {len(self):,} concepts, {self.path}>"

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def index(self, name: str) -> int:
        """Return the row of a concept's name. Raises UsageError that suggests the nearest names."""
        if name in self._place:
            return self._place[name]
        near = difflib.get_close_matches(name, self._place, n=5, cutoff=0.5)
        hint = f"; did you mean {', '.join(near)}?" if near else "."
        raise UsageError(f"There is no concept named {name!r} in {self.path}{hint}")

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

    def samples(self, name: str) -> Part:
        """Return the samples of the concept `name`."""
        row = self.index(name)
        return self._reader.samples(np.flatnonzero(self._reader.owners() == row))

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


def open_run(path: Path | str) -> Encyclopedia:
    """Open the run directory `path`. Raises RunDirectoryError or StoreError saying what is missing."""
    path = Path(path)
    record = rundir.read_record(path)
    config, plugins = record["config"], Plugins()
    store: Store = plugins.call("store_activations", config["store"], location=path, schema=Schema((), (), 0))
    with plugins.blame(config["store"]):
        return Encyclopedia(path, record, store.open(), plugins)


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
