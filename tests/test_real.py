"""The real gemma-3-270m through `encyclo run`, and its HDF5 file read with h5py alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import in_own_process

pytestmark = pytest.mark.real

# What a reader needs to know is in the file itself: this program imports h5py and numpy, nothing of encyclo.
READER = """
import h5py, json, numpy as np, sys
with h5py.File(sys.argv[1], "r") as book:
    attrs = {key: value.tolist() if hasattr(value, "tolist") else value for key, value in book.attrs.items()}
    values = book["samples/activations"][...].astype(np.float32) * book["samples/scale"][...][..., None]
    owners = book["samples/concept"][...]
    names = [name.decode() for name in book["concepts/name"][...]]
    spans = book["samples/span"][...]
    prompts = [prompt.decode() for prompt in book["samples/prompt"][...]]
    means = np.stack([values[owners == c].mean(axis=0) for c in range(len(names))])
    print(json.dumps({
        "attrs": attrs, "names": names, "shape": values.shape, "dtype": str(book["samples/activations"].dtype),
        "finite": bool(np.isfinite(values).all()),
        "mentions": [prompt[a:b] for prompt, (a, b) in zip(prompts, spans)],
        "owners": owners.tolist(),
        "lengths": np.linalg.norm(values, axis=-1).mean(axis=0).tolist(),
        "signature_error": float(np.abs(means - book["signatures/mean"][...]).max() / np.abs(means).max()),
        "confidence": book["concepts/confidence"][...].tolist(),
    }))
assert "encyclo" not in sys.modules and "torch" not in sys.modules
"""


@pytest.fixture(scope="module")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("real") / "run"
    result = in_own_process(
        "run", "--sampler", "templates", "--store", "hdf5", "--limit", "50", "--out", out,
        env={"OMP_NUM_THREADS": str(os.cpu_count())}, timeout=600,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return out


@pytest.fixture(scope="module")
def book(real_run: Path) -> dict:
    command = [sys.executable, "-c", READER, str(real_run / "encyclopedia.h5")]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_the_file_describes_itself(book: dict):
    attrs = book["attrs"]
    assert attrs["format"] == "encyclo/1"
    assert attrs["model"] == "gemma-3-270m"
    assert len(attrs["weights_sha256"]) == 64
    assert attrs["layers"] == [-12, -9, -6, -3, -1]
    assert attrs["layer_index"] == [7, 10, 13, 16, 18]
    assert (attrs["pooling"], attrs["hidden_size"], attrs["stage"]) == ("span", 640, 1)
    assert json.loads(attrs["config"])["limit"] == 50


def test_samples_are_the_models_own_numbers(book: dict):
    assert book["shape"] == [500, 5, 640] and book["dtype"] == "float16"
    assert book["finite"]
    # Mentions stay far under the residual stream's extremes at BOS, and the final norm brings lengths down.
    assert 1_000 < book["lengths"][3] < 60_000
    assert book["lengths"][4] < book["lengths"][3] / 10
    assert book["signature_error"] < 1e-5


def test_mentions_stand_where_the_spans_say(book: dict):
    for mention, owner in zip(book["mentions"], book["owners"], strict=True):
        assert mention.lower()[:2] == book["names"][owner].lower()[:2]


def test_one_prompt_agrees_with_transformers_itself(real_run: Path):
    """A stored sample is within bfloat16's and float16's rounding of a plain forward in float32."""
    code = """
import h5py, numpy as np, sys, torch
from transformers import AutoModel, AutoTokenizer
from encyclo_capture.loading.weights import find_weights
folder = find_weights("gemma-3-270m", None).folder
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, dtype=torch.float32)
with h5py.File(sys.argv[1]) as book:
    for row in (0, 123, 499):
        text, (start, end) = book["samples/prompt"][row].decode(), book["samples/span"][row]
        stored = book["samples/activations"][row].astype(np.float32) * book["samples/scale"][row][:, None]
        encoded = tokenizer(text, return_offsets_mapping=True)
        own = [i for i, (a, b) in enumerate(encoded["offset_mapping"]) if a < end and b > start]
        with torch.no_grad():
            states = model(torch.tensor([encoded["input_ids"]]), output_hidden_states=True).hidden_states
        for place, layer in enumerate((-12, -9, -6, -3, -1)):
            expected = states[layer][0, own].mean(dim=0).numpy()
            error = np.linalg.norm(stored[place] - expected) / np.linalg.norm(expected)
            assert error < 0.05, (text, layer, error)
"""
    command = [sys.executable, "-W", "ignore", "-c", code, str(real_run / "encyclopedia.h5")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_it_reads_concepts_back_and_says_how_sure_it_is(real_run: Path, book: dict):
    metrics = json.loads((real_run / "metrics.json").read_text())
    rung = metrics["accuracy"]["heldout_prompts"]
    assert rung["transformer"]["top1"] >= 0.97
    assert rung["transformer"]["n"] == rung["centroid"]["n"] >= 50
    assert metrics["calibration"]["ece"] < 0.05
    assert all(0.5 < confidence <= 1 for confidence in book["confidence"])


def test_run_json_says_which_weights_ran(real_run: Path):
    record = json.loads((real_run / "run.json").read_text())
    assert "Q4_K_M" in record["provenance"]["model_source"]
    assert record["config"]["weights_sha256"] and record["versions"]["torch"]


def test_the_ladder_of_a_real_run(real_run: Path, tmp_path: Path):
    out = tmp_path / "run"
    shutil.copytree(real_run, out)
    result = in_own_process(
        "evaluate", out, "--json", env={"OMP_NUM_THREADS": str(os.cpu_count())}, timeout=600
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    for rung in ("heldout_prompts", "unseen"):
        figures = found["accuracy"][rung]["transformer"]
        assert figures["top1"] >= 0.9 and figures["null"]["top1"] < 0.1
        assert figures["candidates"] == 50
    kinds = found["unfamiliar"]["transformer"]
    assert kinds["known"]["median"] > 0.9
    assert kinds["noise"]["median"] < 0.1 and kinds["scrambled"]["median"] < 0.1
    assert kinds["absent"]["median"] < 0.5


def test_a_sentence_is_read_where_it_names_a_concept(real_run: Path):
    names = ("animal", "food")  # core's first concepts
    text = "Nobody had seen the animal near the food that night."
    result = in_own_process("read", real_run, text, "--json", timeout=600)
    assert result.returncode == 0, result.stderr
    tokens = json.loads(result.stdout)["tokens"]
    read = {token["token"]: token["read"] for token in tokens}
    assert (read[names[0]], read[names[1]]) == names
    for word in ("had", "the", "near", "that", "."):
        assert read[word] is None, word
