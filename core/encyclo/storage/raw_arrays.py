"""Activations on disk, uncompressed: where they are, and how they are read and joined, in any format.

For stores. Adjacent pieces are read at once, no file stays open, and no library's cache grows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encyclo.errors import DamagedError
from encyclo.regular_files import RESTORE, open_raw
from encyclo.storage import checksums, late_files
from encyclo.types import RowReader


@dataclass(frozen=True)
class Chunks:
    """A float16 array [n, L, H] in chunks of one layer of `rows` samples, in one file or several."""

    shape: tuple[int, int, int]
    rows: int
    offsets: NDArray[np.int64]
    """Where each chunk begins in its file: [blocks of rows, L]."""
    paths: Sequence[Path]
    file_of: NDArray[np.int64]
    """The index of the path that holds a block: [blocks of rows], ascending."""

    def read(self, rows: NDArray[np.int64], layers: Sequence[int] | None = None) -> NDArray[np.float16]:
        """Return rising rows at `layers` (None: all): float16 [k, len(layers), H]."""
        _, depth, hidden = self.shape
        chosen = range(depth) if layers is None else layers
        block, place = np.divmod(rows, self.rows)
        taken = np.empty((len(rows), len(chosen), hidden), "<f2")
        for path, some in self._files(self.file_of[block]):
            # Layer by layer: the rows of one layer are adjacent.
            for index, layer in enumerate(chosen):
                offsets = self.offsets[block[some], layer] + place[some] * (hidden * 2)
                if len(chosen) == 1:
                    read_into(path, offsets, taken[some, 0])
                else:
                    taken[some, index] = read_pieces(path, offsets, hidden)
        return taken

    def bulk(self) -> dict[Path, list[tuple[int, int]]]:
        """Return the byte ranges of the samples' activations in each file, without the padding of the last chunks."""
        count, depth, hidden = self.shape
        rows = np.diff(np.arange(len(self.offsets)) * self.rows, append=count)
        return {
            path: checksums.join_ranges(self.offsets[some].ravel(), np.repeat(rows[some] * hidden * 2, depth))
            for path, some in self._files(self.file_of)
        }

    def _files(self, files: NDArray[np.int64]) -> Iterator[tuple[Path, slice]]:
        """Yield each path with its slice of the ascending `files`."""
        cuts = (np.flatnonzero(np.diff(files)) + 1).tolist()
        for start, stop in zip([0, *cuts], [*cuts, len(files)], strict=True):
            if stop > start:
                yield self.paths[files[start]], slice(start, stop)


@dataclass(frozen=True)
class Flat:
    """A float16 array [n, L, H] in one piece of a file, from byte `offset` on."""

    path: Path
    offset: int
    shape: tuple[int, int, int]

    def read(self, rows: NDArray[np.int64], layers: Sequence[int] | None = None) -> NDArray[np.float16]:
        """Return rows at `layers` (None: all): float16 [k, len(layers), H]."""
        _, depth, hidden = self.shape
        if layers is None:
            pieces = read_pieces(self.path, self.offset + rows * (depth * hidden * 2), depth * hidden)
            return pieces.reshape(len(rows), depth, hidden)
        places = rows[:, None] * depth + np.asarray(layers, np.int64)
        pieces = read_pieces(self.path, (self.offset + places * (hidden * 2)).ravel(), hidden)
        return pieces.reshape(len(rows), len(layers), hidden)

    def bulk(self) -> dict[Path, list[tuple[int, int]]]:
        """Return the byte range of the samples' activations in the file."""
        length = math.prod(self.shape) * 2
        return {self.path: [(self.offset, length)]} if length else {}


def read_pieces(path: Path, offsets: NDArray[np.int64], count: int) -> NDArray[np.float16]:
    """Return `count` numbers of a file from each offset: float16 [n, count]. Raises DamagedError past the end."""
    pieces = np.empty((len(offsets), count), "<f2")
    read_into(path, offsets, pieces)
    return pieces


def read_into(path: Path, offsets: NDArray[np.int64], pieces: NDArray[np.float16]) -> None:
    """Fill `pieces`, [n, count] without gaps, from a file: row i with the numbers from offset i on.

    Adjacent pieces are read at once. Raises DamagedError past the file's end.
    """
    if pieces.size == 0:
        return
    late_files.bring(path)
    length = pieces.shape[1] * 2
    cuts = (np.flatnonzero(np.diff(offsets) != length) + 1).tolist()
    view = pieces.reshape(-1).view(np.uint8).data
    with open_raw(path) as file:
        for first, last in zip([0, *cuts], [*cuts, len(offsets)], strict=True):
            file.seek(int(offsets[first]))
            target = view[first * length : last * length]
            while target:
                count = file.readinto(target)
                if not count:
                    raise DamagedError(f"{path} ends before its samples do; {RESTORE}.")
                target = target[count:]


def joined_blocks(parts: Iterable[RowReader], size: int) -> Iterator[NDArray[np.float16]]:
    """Yield the parts' activations one after another in blocks of `size` rows; the last one may be smaller.

    For stores that finalise: every block is written once, as a whole, even if it spans several parts.
    """
    kept: list[NDArray[np.float16]] = []
    held = 0
    for part in parts:
        count, at = len(part.columns()), 0
        while at < count:
            stop = min(count, at + size - held)
            kept.append(part.activations(np.arange(at, stop)))
            held, at = held + stop - at, stop
            if held == size:
                yield kept[0] if len(kept) == 1 else np.concatenate(kept)
                kept, held = [], 0
    if held:
        yield kept[0] if len(kept) == 1 else np.concatenate(kept)
