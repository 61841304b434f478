"""Samples by row, from any store and from finished or unfinished runs: columns in memory, the rest on disk.

    CommittedRows   the committed parts of a run, one after another
    FinishedRows    the samples of a finished encyclopedia

Both offer columns, activations by row and layer, whole samples by row, and `batches` for training. A store whose
parts or encyclopedia can't be read by row (see `encyclo.types.RowReader`) is read part by part, each part whole.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encyclo import crc, half_precision
from encyclo.errors import DamagedError, UsageError
from encyclo.schema import Columns, Part
from encyclo.storage import checksums, late_files
from encyclo.storage.ledger import Commit, Ledger, prompt_sums, read_committed, refuse_part, sums_of
from encyclo.types import Reader, RowReader, SampleSet, Split, Store

IN_MEMORY_BYTES = 2**28
"""Samples up to this size stay in memory; larger ones are read from disk, row by row."""
BLOCK = 250
"""Rows that stay together when training batches are shuffled; the size of a chunk on disk."""
BLOCKS_MIXED = 64
"""Blocks whose rows are mixed with each other."""


@dataclass(frozen=True)
class Batch:
    """Samples to train on: rows int64 [k], concept int32 [k] (row of the concept table), float32 [k, L, H]."""

    rows: NDArray[np.int64]
    concept: NDArray[np.int32]
    activations: NDArray[np.float32]


class WholePart:
    """A `RowReader` over a part that is in memory."""

    def __init__(self, part: Part) -> None:
        self.part = part

    def columns(self) -> Columns:
        """Return the part's small columns."""
        return self.part.columns()

    def activations(
        self, rows: NDArray[np.int64], layers: Sequence[int] | None = None
    ) -> NDArray[np.float16]:
        """Return activations as stored, float16 [k, len(layers), H]."""
        taken = self.part.activations[rows]
        return taken if layers is None else taken[:, list(layers)]

    def samples(self, rows: NDArray[np.int64]) -> Part:
        """Return whole samples."""
        return self.part.take(rows)

    def close(self) -> None:
        """Nothing is open."""


class CommittedRows:
    """The committed parts of a run, one after another.

    Every file is compared with its record first, except for activations, which are compared when they are read.
    Raises DamagedError naming the part.
    """

    def __init__(
        self, store: Store, ledger: Ledger, commits: Sequence[Commit], in_memory: int = IN_MEMORY_BYTES
    ) -> None:
        self._store, self._commits = store, list(commits)
        self._starts = np.cumsum([0, *(commit.rows for commit in self._commits)])
        # Readers that hold a whole part are dropped when others are needed; those that read by row need little memory.
        self._readers: OrderedDict[int, RowReader] = OrderedDict()
        self._limit = in_memory
        columns = []
        for index, commit in enumerate(self._commits):
            if commit.files:
                ledger.check_files(commit)
            columns.append(self._reader(index).columns())
            if len(columns[-1]) != commit.rows:
                raise DamagedError(
                    f"Part {commit.part} has {len(columns[-1])} rows, but its commit record says {commit.rows}; "
                    f"delete commits/{commit.unit}.json and run the same `encyclo run` command again to capture "
                    "the unit again."
                )
            if commit.columns and columns[-1].checksum() != commit.columns:
                raise refuse_part(commit, "columns")
        self.columns = Columns.join(columns)
        layers = self._reader(0).activations(np.empty(0, np.int64)).shape[1]
        self._sums = [sums_of(commit, layers) for commit in self._commits]
        self._prompts = [prompt_sums(commit) for commit in self._commits]
        # A small run stays in memory, so that the store costs no time.
        self._held: NDArray[np.float16] | None = None
        if len(self.columns) and len(self.columns) * self._row_bytes() <= in_memory:
            self._held = self._gather(np.arange(len(self.columns)), None)

    def halves(self, rows: NDArray[np.int64], layers: Sequence[int] | None = None) -> NDArray[np.float16]:
        """Return activations as stored, float16 [k, len(layers), H], in the rows' order."""
        if self._held is None:
            return self._gather(rows, layers)
        return self._held[rows] if layers is None else self._held[rows][:, list(layers)]

    def samples(self, rows: NDArray[np.int64]) -> Part:
        """Return whole samples, in the rows' order."""
        order = np.argsort(rows, kind="stable")
        pieces = []
        for index, local, _ in self._split(rows[order]):
            pieces.append(self._reader(index).samples(local))
            self._check(index, local, pieces[-1].activations)
            rows_of_all = local + self._starts[index]
            wrong = differs(pieces[-1], self.columns, rows_of_all, self._prompts[index], local)
            if wrong:
                raise refuse_part(self._commits[index], wrong)
        if not pieces:
            return self._reader(0).samples(np.empty(0, np.int64))
        return Part.join(pieces).take(np.argsort(order, kind="stable"))

    def close(self) -> None:
        """Close all files."""
        while self._readers:
            self._readers.popitem()[1].close()

    def _gather(self, rows: NDArray[np.int64], layers: Sequence[int] | None) -> NDArray[np.float16]:
        """Return rows in their order, read part by part, the rows of each part in ascending order."""
        rising = _rises(rows)
        order = np.arange(len(rows)) if rising else np.argsort(rows, kind="stable")
        pieces = list(self._split(rows[order]))
        if not pieces:
            return self._reader(0).activations(np.empty(0, np.int64), layers)
        values = self._values(pieces[0][0], pieces[0][1], layers)
        if rising and len(pieces) == 1:
            return values
        taken = np.empty((len(rows), *values.shape[1:]), np.float16)
        taken[order[pieces[0][2]]] = values
        for index, local, places in pieces[1:]:
            taken[order[places]] = self._values(index, local, layers)
        return taken

    def _values(
        self, index: int, rows: NDArray[np.int64], layers: Sequence[int] | None
    ) -> NDArray[np.float16]:
        """Return ascending rows of one part, compared with its record."""
        values = self._reader(index).activations(rows, layers)
        self._check(index, rows, values, layers)
        return values

    def _check(
        self,
        index: int,
        rows: NDArray[np.int64],
        activations: NDArray[np.float16],
        layers: Sequence[int] | None = None,
    ) -> None:
        if len(crc.differing(activations, _some(self._sums[index], rows, layers))):
            raise refuse_part(self._commits[index])

    def _split(self, rising: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """Yield (part, rows in it, places in `rising`)."""
        if len(rising) and not 0 <= rising[0] <= rising[-1] < self._starts[-1]:
            raise IndexError(
                f"rows {rising[0]} to {rising[-1]} are not all among the run's {self._starts[-1]} samples; ask for "
                "rows from 0 on"
            )
        edges = np.searchsorted(rising, self._starts)
        for index in np.flatnonzero(np.diff(edges)).tolist():
            places = np.arange(edges[index], edges[index + 1])
            yield index, rising[places] - self._starts[index], places

    def _reader(self, index: int) -> RowReader:
        if index in self._readers:
            self._readers.move_to_end(index)
            return self._readers[index]
        commit = self._commits[index]
        open_part: Callable[[str], RowReader] | None = getattr(self._store, "open_part", None)
        if open_part is not None:
            self._readers[index] = open_part(commit.part)
        else:
            reader = WholePart(read_committed(self._store, commit))
            room = max(1, self._limit // max(1, reader.part.activations.nbytes))
            while len(self._readers) >= room:
                self._readers.popitem(last=False)[1].close()
            self._readers[index] = reader
        return self._readers[index]

    def _row_bytes(self) -> int:
        return int(self._reader(0).activations(np.zeros(1, np.int64)).nbytes)


class FinishedRows:
    """A finished encyclopedia's samples; each row's activations are compared with the seal when they are read."""

    def __init__(self, reader: Reader, seal: checksums.Seal, path: Path) -> None:
        self._reader, self.seal, self._path = reader, seal, path
        if not getattr(reader, "brings_files", False):
            late_files.bring_all(path)
        by_row = hasattr(reader, "columns") and hasattr(reader, "activations")
        self._by_row: RowReader = reader if by_row else WholePart(reader.samples(slice(None)))  # type: ignore[assignment]
        self.columns = self._by_row.columns()
        if len(self.columns) != len(seal.samples.crc):
            raise DamagedError(
                f"{path} has {len(self.columns):,} samples, not the {len(seal.samples.crc):,} that were written; "
                "`encyclo verify` says what can be recovered."
            )
        if seal.samples.columns and self.columns.checksum() != seal.samples.columns:
            raise self._refused("columns of samples")

    def halves(self, rows: NDArray[np.int64], layers: Sequence[int] | None = None) -> NDArray[np.float16]:
        """Return activations as stored, float16 [k, len(layers), H], in the rows' order. Raises DamagedError."""
        order = np.argsort(rows, kind="stable")
        values = self._by_row.activations(rows[order], layers)
        self._check(rows[order], values, layers)
        return values if _rises(rows) else values[np.argsort(order)]

    def samples(self, rows: NDArray[np.int64]) -> Part:
        """Return whole samples, in the rows' order. Raises DamagedError."""
        order = np.argsort(rows, kind="stable")
        part = self._by_row.samples(rows[order])
        self._check(rows[order], part.activations)
        if wrong := differs(part, self.columns, rows[order], self.seal.samples.prompts, rows[order]):
            raise self._refused(wrong)
        return part if _rises(rows) else part.take(np.argsort(order))

    def close(self) -> None:
        """Close all files."""
        self._reader.close()

    def _check(
        self, rows: NDArray[np.int64], activations: NDArray[np.float16], layers: Sequence[int] | None = None
    ) -> None:
        wrong = crc.differing(activations, _some(self.seal.samples.crc, rows, layers))
        if len(wrong):
            raise self._refused(f"activations of sample {int(rows[wrong[0]])}")

    def _refused(self, what: str) -> DamagedError:
        return DamagedError(
            f"The {what} in {self._path} differ from what was written; `encyclo verify` says what can be recovered."
        )


def differs(
    part: Part,
    columns: Columns,
    rows: NDArray[np.int64],
    prompts: crc.Sums | None,
    places: NDArray[np.int64],
) -> str | None:
    """Return which columns of samples are not the `rows` of `columns`, or not the `places` of `prompts`; or None."""
    own = part.columns()
    same = own.family == [columns.family[row] for row in rows.tolist()] and all(
        np.array_equal(getattr(own, name), getattr(columns, name)[rows], equal_nan=name == "scale")
        for name in ("scale", "concept", "stage", "span")
    )
    if not same:
        return "columns of samples"
    if prompts is not None and not np.array_equal(crc.of_texts(part.prompt), prompts[places]):
        return "prompts"
    return None


Source = CommittedRows | FinishedRows
"""Samples by row, in any order."""
Rows = NDArray[np.integer | np.bool_] | Sequence[int] | slice | int
"""Rows by number, a slice of them, or a mask over all."""


def _rises(rows: NDArray[np.int64]) -> bool:
    return bool((rows[1:] >= rows[:-1]).all())


def _some(sums: crc.Sums, rows: NDArray[np.int64], layers: Sequence[int] | None) -> crc.Sums:
    return sums[rows] if layers is None else sums[rows[:, None], np.asarray(layers, np.int64)]


def fetch(source: Source, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the activations of `rows`, decoded, float32 [k, L, H]."""
    return half_precision.decode(source.halves(rows), source.columns.scale[rows])


def sample_set(source: Source, layers: tuple[int, ...], split: NDArray[np.int8] | None = None) -> SampleSet:
    """Return all rows of `source` as one set, activations read by row; without `split` all rows are for training."""
    columns = source.columns
    families, family = np.unique(np.array(columns.family, object), return_inverse=True)
    return SampleSet(
        concept=columns.concept,
        named=columns.span[:, 0] >= 0,
        family=family.astype(np.int32),
        families=tuple(families.tolist()),
        split=np.full(len(columns), Split.TRAIN, np.int8) if split is None else split,
        layers=layers,
        fetch=lambda rows: fetch(source, rows),
    )


def row_numbers(rows: Rows, count: int, path: Path) -> NDArray[np.int64]:
    """Return the numbers of rows, int64 [k]. Raises UsageError for what can't be some of the `count` rows in `path`."""
    found = np.arange(count)[rows] if isinstance(rows, slice) else np.asarray(rows)
    if found.dtype == bool and found.shape == (count,):
        found = np.flatnonzero(found)
    if found.size and (found.dtype.kind not in "iu" or found.ndim > 1):
        raise UsageError(
            f"Rows are whole numbers, a slice, or a mask of all {count:,} rows, not {found.dtype} of shape "
            f"{found.shape}."
        )
    numbers = found.reshape(-1).astype(np.int64)
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < count:
        raise UsageError(f"{path} has the rows 0 to {count - 1:,}; ask for some of these.")
    return numbers


def check_batches(size: int, seed: int) -> None:
    """Raise UsageError for a size or a seed of batches that can't be."""
    if not (isinstance(size, int) and size > 0 and isinstance(seed, int) and seed >= 0):
        raise UsageError(
            f"batches takes a size from 1 and a seed from 0, whole numbers, not {size!r} and {seed!r}."
        )


def batches(source: Source, size: int, seed: int, rows: NDArray[np.int64] | None = None) -> Iterator[Batch]:
    """Yield every row (or each of `rows`) once, shuffled, `size` at a time; the last batch may be smaller.

    The order depends only on the rows and the seed (see `shuffled`).
    """
    columns = source.columns
    wanted = np.arange(len(columns)) if rows is None else np.sort(rows)
    for chosen, halves in shuffled(source.halves, wanted, size, seed):
        yield Batch(chosen, columns.concept[chosen], half_precision.decode(halves, columns.scale[chosen]))


def shuffled(
    read: Callable[[NDArray[np.int64]], NDArray[np.float16]],
    wanted: NDArray[np.int64],
    size: int,
    seed: int,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
    """Yield each of the ascending rows `wanted` once, shuffled, with what `read` gives of it: (rows, activations).

    Blocks of adjacent rows come in random order, and the rows of BLOCKS_MIXED blocks are mixed. So reads are long,
    memory does not grow, and a batch has rows from everywhere. The order depends only on the rows and the seed.
    """
    generator = np.random.default_rng(seed)
    blocks = [wanted[start : start + BLOCK] for start in range(0, len(wanted), BLOCK)]
    order = generator.permutation(len(blocks))
    kept_rows = np.empty(0, np.int64)
    kept: NDArray[np.float16] | None = None
    for start in range(0, len(order), BLOCKS_MIXED):
        fresh = np.concatenate([blocks[i] for i in order[start : start + BLOCKS_MIXED]])
        values = read(fresh)
        kept = values if kept is None else np.concatenate([kept, values])
        kept_rows = np.concatenate([kept_rows, fresh])
        mixed = generator.permutation(len(kept_rows))
        last = start + BLOCKS_MIXED >= len(order)
        whole = len(mixed) if last else len(mixed) // size * size
        for at in range(0, whole, size):
            some = mixed[at : min(at + size, whole)]
            yield kept_rows[some], kept[some]
        kept, kept_rows = kept[mixed[whole:]], kept_rows[mixed[whole:]]
