"""gemma-3-270m: what `encyclo capture` stores of overlapping windows is transformers' own forward pass over each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import encyclo
from encyclo.cli import run_command
from tests.plain_forward import relative_error

pytestmark = pytest.mark.real
CONTEXT, STRIDE = 40, 20


def test_every_token_of_the_real_model(tmp_path: Path):
    from encyclo_capture.forward.plain_pass import plain_states
    from encyclo_capture.model import TransformersModel

    texts = ["The river bank was wet, and the dog that lived there barked at every boat. " * 4, "犬 café"]
    path, out = tmp_path / "texts.jsonl", tmp_path / "out"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    flags = ["--context", str(CONTEXT), "--stride", str(STRIDE), "--device", "cpu", "--layers", "-12,-6,-1"]
    assert (
        run_command(["capture", str(path), "--out", str(out), *flags, "-o", "transformers.dtype=float32"])
        == 0
    )
    model = TransformersModel("gemma-3-270m", "cpu", "float32")
    with encyclo.open(out) as capture:
        assert capture.record["self_test"]["windows"] < 1e-5
        [part] = capture.parts()
        index = capture.schema.layer_index
    for number, text in enumerate(texts):
        ids = model.tokenizer(text)["input_ids"]
        own, mine = ids[1:], part.text == number
        assert part.token[mine].tolist() == own
        values = part.values()[mine]
        room, done = CONTEXT - 1, 0
        for start in range(0, len(own), STRIDE):
            window = [ids[0], *own[start : start + room]]
            states = plain_states(model.original, "cpu", window)
            wanted = np.stack([states[layer][1 + done - start :].double().numpy() for layer in index], axis=1)
            found = values[done : start + len(window) - 1]
            # Half precision adds at most 2**-11 to what was computed.
            assert relative_error(found, wanted).max() < 2**-11 + 1e-5
            done = start + len(window) - 1
            if done == len(own):
                break
