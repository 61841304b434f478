"""A capture is read by row, in order and shuffled; every token once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import encyclo
from encyclo.cli import run_command
from encyclo.corpus.text_capture import TextCapture
from encyclo.errors import UsageError


@pytest.fixture(scope="module", params=["hdf5", "zarr"])
def capture(request, tiny_gemma: Path, tmp_path_factory: pytest.TempPathFactory) -> TextCapture:
    """A capture of many small parts."""
    folder = tmp_path_factory.mktemp("many")
    path = folder / "texts.jsonl"
    texts = [f"the dog number {number} is old and the river is wide" for number in range(120)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("encyclo.corpus.blocks.MOST_TOKENS", 150)
        flags = [
            "--model",
            str(tiny_gemma),
            "--layers",
            "1,-2,-1",
            "--device",
            "cpu",
            "--store",
            request.param,
        ]
        assert run_command(["capture", str(path), "--out", str(folder / "out"), *flags]) == 0
    found = encyclo.open(folder / "out")
    assert isinstance(found, TextCapture) and len(found.units) > 8
    return found


def test_batches_give_every_token_once_and_the_same_by_seed(capture: TextCapture, monkeypatch):
    monkeypatch.setattr("encyclo.storage.sample_rows.BLOCK", 50)
    monkeypatch.setattr("encyclo.storage.sample_rows.BLOCKS_MIXED", 8)
    values = np.concatenate([part.values() for part in capture.parts()])
    assert values.shape == capture.shape
    first = list(capture.batches(64, seed=3))
    assert [len(batch.rows) for batch in first[:-1]] == [64] * (len(first) - 1)
    rows = np.concatenate([batch.rows for batch in first])
    assert sorted(rows.tolist()) == list(range(len(capture))) and rows.tolist() != sorted(rows.tolist())
    assert np.array_equal(np.concatenate([batch.activations for batch in first]), values[rows])
    again = np.concatenate([batch.rows for batch in capture.batches(64, seed=3)])
    other = np.concatenate([batch.rows for batch in capture.batches(64, seed=4)])
    assert np.array_equal(rows, again) and not np.array_equal(rows, other)
    layer = list(capture.batches(64, seed=3, layer=-2))
    assert np.array_equal(np.concatenate([batch.activations for batch in layer]), values[rows][:, 1])
    some = np.arange(5, 300, 7)
    chosen = np.concatenate([batch.rows for batch in capture.batches(10, seed=0, rows=some)])
    assert sorted(chosen.tolist()) == some.tolist()


def test_batches_are_torch_s_without_a_copy(capture: TextCapture):
    for layer in (None, -1):
        batch = next(capture.batches(32, seed=0, layer=layer))
        tensor = torch.from_numpy(batch.activations)
        assert tensor.dtype == torch.float32 and tensor.is_contiguous()
        tensor[0] = 0
        assert not batch.activations[0].any()


def test_rows_in_any_order(capture: TextCapture):
    parts = list(capture.parts())
    values = np.concatenate([part.values() for part in parts])
    rows = np.array([700, 3, 3, 12, len(capture) - 1, 0])
    assert np.array_equal(capture.activations(rows), values[rows])
    assert np.array_equal(capture.activations(rows, layer=-1), values[rows, 2])
    table = capture.tokens(rows)
    assert np.array_equal(table.token, np.concatenate([part.token for part in parts])[rows])
    numbers = np.concatenate([part.number[part.text] for part in parts])
    assert np.array_equal(table.text, numbers[rows])
    mask = np.zeros(len(capture), bool)
    mask[[3, 700]] = True
    for same in ([3, 700], np.array([3, 700]), mask, slice(3, 701, 697)):
        assert np.array_equal(capture.activations(same), values[[3, 700]])
        assert capture.tokens(same).position.shape == (2,)
        assert sorted(row for batch in capture.batches(1, 0, rows=same) for row in batch.rows) == [3, 700]
    assert capture.activations(3).shape == (1, *values.shape[1:])
    assert capture.activations([]).shape == (0, *values.shape[1:])
    for wrong in (mask[:-1], [1.5], [[1, 2]], ["a"]):
        with pytest.raises(UsageError, match="Rows are whole numbers, a slice, or a mask of all"):
            capture.activations(wrong)  # type: ignore[arg-type]
    for size, seed in ((0, 0), (8, -1), (2.5, 0)):
        with pytest.raises(UsageError, match="batches takes a size from 1 and a seed from 0"):
            capture.batches(size, seed)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="has the rows 0 to"):
        capture.activations(np.array([len(capture)]))
    with pytest.raises(UsageError, match="has no layer -3; it has 1, -2, -1"):
        next(capture.batches(8, seed=0, layer=-3))


def test_it_says_what_it_is(capture: TextCapture):
    assert repr(capture).startswith("<TextCapture by ") and f"{len(capture):,} tokens" in repr(capture)
    assert capture.layers == (1, -2, -1)
