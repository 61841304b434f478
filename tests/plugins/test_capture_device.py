"""Too little memory halves a batch; on a GPU everything gives the CPU's numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from encyclo.errors import CaptureError
from encyclo.types import Prompt

TEXTS = [
    f"The {word} was there before the {word} came." for word in ("dog", "cat", "house", "storm", "number")
]


def captured(model, texts: list[str], batch_tokens: int = 4096) -> np.ndarray:
    from encyclo_capture.capture import capture

    prompts = [Prompt("x", text, (4, text.index(" was")), "f") for text in texts]
    found = np.full((len(texts), 3, model.hidden_size), np.nan, np.float32)
    for batch in capture(model, prompts, (1, 2, 4), "span", batch_tokens):
        found[batch.positions] = batch.activations
    return found


def test_out_of_memory_halves_the_batch_and_goes_on(tiny_gemma: Path, monkeypatch: pytest.MonkeyPatch):
    import torch

    from encyclo_capture import capture as module
    from encyclo_capture.model import TransformersModel

    model = TransformersModel(str(tiny_gemma), "cpu", "float32")
    expected = captured(model, TEXTS)
    run_tree, sizes = module.run_tree, []

    def small_device(network, device, tree, layers, *more):
        sizes.append(len(tree.counts))
        if len(tree.counts) > 2:
            raise torch.OutOfMemoryError("no memory for more than two prompts")
        return run_tree(network, device, tree, layers, *more)

    monkeypatch.setattr(module, "run_tree", small_device)
    np.testing.assert_allclose(captured(model, TEXTS), expected, rtol=1e-5, atol=1e-6)
    assert sizes == [5, 2, 3, 1, 2]


def test_one_prompt_that_does_not_fit_is_an_error(tiny_gemma: Path, monkeypatch: pytest.MonkeyPatch):
    import torch

    from encyclo_capture import capture as module
    from encyclo_capture.model import TransformersModel

    def no_device(*_):
        raise torch.OutOfMemoryError("no memory at all")

    monkeypatch.setattr(module, "run_tree", no_device)
    with pytest.raises(CaptureError, match="does not fit into the device's memory"):
        captured(TransformersModel(str(tiny_gemma), "cpu", "float32"), TEXTS)


@pytest.mark.cuda
@pytest.mark.parametrize("batch_tokens", [8, 4096])
def test_cuda_gives_the_cpus_numbers(tiny_gemma: Path, batch_tokens: int):
    import torch

    from encyclo_capture.model import TransformersModel

    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    cpu = captured(TransformersModel(str(tiny_gemma), "cpu", "float32"), TEXTS)
    gpu = captured(TransformersModel(str(tiny_gemma), "cuda", "float32"), TEXTS, batch_tokens)
    np.testing.assert_allclose(gpu, cpu, rtol=1e-3, atol=1e-4)


def test_a_gpu_batch_takes_at_most_half_of_the_free_memory():
    from types import SimpleNamespace

    from encyclo_capture.batch_sizes import fitting_tokens

    config = SimpleNamespace(hidden_size=2560, intermediate_size=10240)
    per_token = 2 * (16 * 2560 + 4 * 10240)
    assert fitting_tokens(80 * 2**30, config, itemsize=2) == 65536
    for free in (2**30, 4 * 2**30, 16 * 2**30):
        tokens = fitting_tokens(free, config, itemsize=2)
        assert tokens * per_token <= free / 2 < 2 * tokens * per_token
    assert fitting_tokens(2**20, config, itemsize=2) == 1024
    assert fitting_tokens(2**30, SimpleNamespace(hidden_size=2560), itemsize=2) == fitting_tokens(
        2**30, config, itemsize=2
    )
