"""A capture of texts, opened for reading: tokens by row, parts in order, shuffled batches for training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo import crc
from encyclo.corpus.directory import Listed, Manifest, commit_of, read_manifest, read_record, redo, units_of
from encyclo.corpus.job import schema_of, token_store
from encyclo.errors import DamagedError, UsageError, without_advice
from encyclo.plugins.manager import Plugins
from encyclo.schema import Schema
from encyclo.storage.array_reader import TokenReader
from encyclo.storage.ledger import Commit, Ledger, sums_of
from encyclo.storage.sample_rows import Rows, check_batches, row_numbers, shuffled
from encyclo.text import named, one_line
from encyclo.token_parts import TokenColumns, TokenPart
from encyclo.types import Store


@dataclass(frozen=True)
class TokenBatch:
    """Tokens to train on: rows int64 [k], float32 [k, L, H], or [k, H] of one layer."""

    rows: NDArray[np.int64]
    activations: NDArray[np.float32]


@dataclass(frozen=True)
class TokenTable:
    """What tokens are: text int64 [k] (the number of its text), position, token int32 [k], span int32 [k, 2]."""

    text: NDArray[np.int64]
    position: NDArray[np.int32]
    token: NDArray[np.int32]
    span: NDArray[np.int32]


@dataclass(frozen=True)
class OpenPart:
    """A part whose files are as they were committed; its activations are compared when they are read."""

    commit: Commit
    reader: TokenReader
    sums: crc.Sums


class TextCapture:
    """A capture of texts; `len(capture)` is the number of its tokens, which are its rows.

    Of a capture that is not complete, the parts that are committed are read. Nothing is locked or changed, and no file
    stays open. Reading holds 8 bytes in memory for each token and layer of the parts that were read.
    """

    def __init__(self, path: Path) -> None:
        """Raises RunDirectoryError, DamagedError if a record of the folder can't be read."""
        self.path, self.record = path, read_record(path)
        self.manifest: Manifest | None = read_manifest(path)
        self.units: tuple[Listed, ...] = units_of(path, self.manifest)
        self.schema: Schema = schema_of(self.record["config"])
        self._store: Store = token_store(Plugins(), self.record["config"]["store"], path, self.schema)
        self._starts = np.cumsum([0, *(rows for _, rows, _ in self.units)])
        self._parts: dict[int, OpenPart] = {}

    def __enter__(self) -> TextCapture:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __repr__(self) -> str:
        state = "" if self.finished else ", not complete"
        model, where = self.record["config"]["model"], named(str(self.path))
        return one_line(f"<TextCapture by {model}: {len(self):,} tokens{state}, {where}>")

    @property
    def finished(self) -> bool:
        """Whether all texts were captured."""
        return self.manifest is not None

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers, as named to --layers (-1 is the last)."""
        return self.schema.layers

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of all activations: tokens, layers, hidden size."""
        return len(self), len(self.schema.layers), self.schema.hidden_size

    def close(self) -> None:
        """Forget what was read."""
        self._parts.clear()

    def activations(self, rows: Rows, layer: int | None = None) -> NDArray[np.float32]:
        """Return the activations of `rows`: float32 [k, L, H], or [k, H] at one of the layers.

        Rows are numbers, a slice, or a mask over all tokens. Raises UsageError for another layer or row, DamagedError
        for activations that were changed.
        """
        rows, layers = self._rows(rows), self._places(layer)
        halves = self._halves(rows, layers)
        values = _decoded(halves, self._scale(rows, layers))
        return values if layer is None else values[:, 0]

    def tokens(self, rows: Rows) -> TokenTable:
        """Return what the tokens of `rows` are, in the rows' order. Raises UsageError for another row."""
        rows = self._rows(rows)
        found: dict[str, NDArray[Any]] = {
            "text": np.empty(len(rows), np.int64),
            "position": np.empty(len(rows), np.int32),
            "token": np.empty(len(rows), np.int32),
            "span": np.empty((len(rows), 2), np.int32),
        }
        for index, local, places in self._split(rows):
            columns = self.columns(index)
            found["text"][places] = columns.number[columns.text[local]]
            for name in ("position", "token", "span"):
                found[name][places] = getattr(columns, name)[local]
        return TokenTable(**found)

    def parts(self) -> Iterator[TokenPart]:
        """Yield everything in the texts' order, one part (about 64 MiB) at a time: tokens, activations and texts.

        Raises DamagedError naming the part that was changed.
        """
        return map(self.part, range(len(self.units)))

    def part(self, index: int) -> TokenPart:
        """Return one of the parts. Raises DamagedError."""
        rows = np.arange(self.units[index][1])
        return TokenPart(**vars(self.columns(index)), activations=self._part_halves(index, rows, None))

    def batches(
        self, size: int, seed: int, layer: int | None = None, rows: Rows | None = None
    ) -> Iterator[TokenBatch]:
        """Yield every token (or those of `rows`) once, shuffled, `size` at a time; the last batch may be smaller.

        The same seed gives the same batches. Activations are arrays of their own, which `torch.from_numpy` takes
        without a copy. Memory does not grow with the number of tokens, but for what `TextCapture` says. Raises
        UsageError for another layer or row, or a size or seed that can't be.
        """
        check_batches(size, seed)
        layers = self._places(layer)
        wanted = np.sort(self._rows(slice(None) if rows is None else rows))
        return self._batches(wanted, size, seed, layers, layer is None)

    def _batches(
        self,
        wanted: NDArray[np.int64],
        size: int,
        seed: int,
        layers: Sequence[int] | None,
        every_layer: bool,
    ) -> Iterator[TokenBatch]:
        for chosen, halves in shuffled(lambda some: self._halves(some, layers), wanted, size, seed):
            values = _decoded(halves, self._scale(chosen, layers))
            yield TokenBatch(chosen, values if every_layer else values[:, 0])

    def _rows(self, rows: Rows) -> NDArray[np.int64]:
        return row_numbers(rows, len(self), self.path)

    def columns(self, index: int) -> TokenColumns:
        """Return all of a part but its activations. Raises DamagedError."""
        part = self._part(index)
        commit = part.commit
        with self._damage(commit):
            columns = part.reader.columns()
            if len(columns) != commit.rows or columns.checksum() != commit.columns:
                raise DamagedError(
                    f"The tokens and texts of part {commit.part} differ from what was committed"
                )
        return columns

    def _places(self, layer: int | None) -> Sequence[int] | None:
        if layer is None:
            return None
        if layer not in self.layers:
            raise UsageError(f"{self.path} has no layer {layer}; it has {', '.join(map(str, self.layers))}.")
        return [self.layers.index(layer)]

    def _halves(self, rows: NDArray[np.int64], layers: Sequence[int] | None) -> NDArray[np.float16]:
        """Return activations as stored, in the rows' order: float16 [k, len(layers), H]."""
        _, depth, hidden = self.shape
        taken = np.empty((len(rows), depth if layers is None else len(layers), hidden), np.float16)
        for index, local, places in self._split(rows):
            taken[places] = self._part_halves(index, local, layers)
        return taken

    def _part_halves(
        self, index: int, rising: NDArray[np.int64], layers: Sequence[int] | None
    ) -> NDArray[np.float16]:
        part = self._part(index)
        with self._damage(part.commit):
            halves = part.reader.activations(rising, layers)
            sums = part.sums[rising] if layers is None else part.sums[rising][:, list(layers)]
            if len(crc.differing(halves, sums)):
                raise DamagedError(
                    f"The activations of part {part.commit.part} differ from what was committed"
                )
        return halves

    def _scale(self, rows: NDArray[np.int64], layers: Sequence[int] | None) -> NDArray[np.float32]:
        depth = self.shape[1]
        scale = np.empty((len(rows), depth), np.float32)
        for index, local, places in self._split(rows):
            scale[places] = self._part(index).reader.scale[local]
        return scale if layers is None else scale[:, list(layers)]

    def _split(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """Yield (part, ascending rows in it, their places in `rows`)."""
        order = np.argsort(rows, kind="stable")
        rising = rows[order]
        edges = np.searchsorted(rising, self._starts)
        for index in np.flatnonzero(np.diff(edges)).tolist():
            some = slice(edges[index], edges[index + 1])
            yield index, rising[some] - self._starts[index], order[some]

    def _part(self, index: int) -> OpenPart:
        """Return a part, after comparing all of its files but the activations with its record."""
        if index not in self._parts:
            commit = commit_of(self.path, self.units[index])
            with self._damage(commit):
                Ledger(self.path).check_files(commit)
                open_tokens: Callable[[str], TokenReader] = self._store.open_tokens  # type: ignore[attr-defined]
                reader, sums = open_tokens(commit.part), sums_of(commit, self.shape[1])
                if reader.shape != (commit.rows, *self.shape[1:]):
                    raise DamagedError(f"Part {commit.part} has the shape {reader.shape}")
            self._parts[index] = OpenPart(replace(commit, crc32=""), reader, sums)
        return self._parts[index]

    @contextmanager
    def _damage(self, commit: Commit) -> Iterator[None]:
        """Say of damage in the block how to capture the part again."""
        try:
            yield
        except DamagedError as error:
            raise DamagedError(f"{without_advice(error)}; {redo(commit.unit)}.") from error


def _decoded(halves: NDArray[np.float16], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what `half_precision.decode` does, in half of its time: torch converts with the processor's vectors."""
    import torch

    values = torch.from_numpy(halves).float().mul_(torch.from_numpy(scale)[..., None])
    decoded: NDArray[np.float32] = values.numpy()
    return decoded
