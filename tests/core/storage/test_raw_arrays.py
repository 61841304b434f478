"""Activations on disk are read from their places: any rows and layers, over several files; short files are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encyclo.errors import DamagedError
from encyclo.storage.raw_arrays import Chunks, Flat, joined_blocks

ROWS, LAYERS, HIDDEN, A_CHUNK, A_FILE = 23, 3, 4, 5, 2
VALUES = np.random.default_rng(0).integers(0, 0x7800, (ROWS, LAYERS, HIDDEN), np.uint16).view(np.float16)
FILLING = b"\xee" * (A_CHUNK * HIDDEN * 2)


@pytest.fixture(scope="module")
def chunks(tmp_path_factory) -> Chunks:
    """Five blocks of five rows in three files, the chunks of a file in another order, the last ones half filled."""
    folder = tmp_path_factory.mktemp("chunks")
    blocks = -(-ROWS // A_CHUNK)
    offsets, paths = np.zeros((blocks, LAYERS), np.int64), []
    file_of = np.arange(blocks) // A_FILE
    for number in range(file_of[-1] + 1):
        data = b"head"
        for block in np.flatnonzero(file_of == number)[::-1]:
            for layer in range(LAYERS):
                offsets[block, layer] = len(data)
                own = VALUES[block * A_CHUNK : (block + 1) * A_CHUNK, layer].tobytes()
                data += own + FILLING[len(own) :]
        paths.append(folder / str(number))
        paths[-1].write_bytes(data)
    return Chunks(VALUES.shape, A_CHUNK, offsets, paths, file_of)


@settings(deadline=None)
@given(
    rows=st.sets(st.integers(0, ROWS - 1)),
    layers=st.none() | st.lists(st.integers(0, LAYERS - 1), min_size=1),
)
def test_rows_and_layers_are_read(chunks, tmp_path_factory, rows, layers):
    chosen = np.array(sorted(rows), np.int64)
    expected = VALUES[chosen] if layers is None else VALUES[chosen][:, layers]
    np.testing.assert_array_equal(chunks.read(chosen, layers), expected)
    flat = tmp_path_factory.getbasetemp() / "flat"
    flat.write_bytes(b"head" + VALUES.tobytes())
    np.testing.assert_array_equal(Flat(flat, 4, VALUES.shape).read(chosen, layers), expected)
    assert Flat(flat, 4, VALUES.shape).bulk() == {flat: [(4, VALUES.nbytes)]}
    assert Flat(flat, 4, (0, LAYERS, HIDDEN)).bulk() == {}


def test_bulk_is_the_samples_bytes_and_nothing_else(chunks):
    covered = {
        path: np.concatenate([np.arange(start, start + length) for start, length in ranges])
        for path, ranges in chunks.bulk().items()
    }
    assert sum(len(places) for places in covered.values()) == VALUES.nbytes
    for path in chunks.paths:
        content = np.frombuffer(path.read_bytes(), np.uint8)
        others = np.delete(content, covered[path])
        assert others[:4].tobytes() == b"head" and (others[4:] == 0xEE).all()
        assert not (np.diff(covered[path]) <= 0).any()


def test_a_file_that_is_too_short_is_refused(chunks, tmp_path):
    short = tmp_path / "short"
    short.write_bytes(chunks.paths[0].read_bytes()[:-1])
    with pytest.raises(DamagedError, match="ends before its samples do"):
        Chunks(VALUES.shape, A_CHUNK, chunks.offsets, [short, *chunks.paths[1:]], chunks.file_of).read(
            np.arange(ROWS)
        )


class InMemory:
    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def columns(self) -> range:
        return range(len(self.values))

    def activations(self, rows: np.ndarray, layers: object = None) -> np.ndarray:
        return self.values[rows]


@pytest.mark.parametrize("size", [1, 4, 7, 23, 100])
def test_blocks_go_over_the_borders_of_parts(size):
    parts = [InMemory(VALUES[:3]), InMemory(VALUES[3:3]), InMemory(VALUES[3:15]), InMemory(VALUES[15:])]
    blocks = list(joined_blocks(parts, size))
    assert {len(block) for block in blocks[:-1]} <= {size}
    np.testing.assert_array_equal(np.concatenate(blocks), VALUES)
