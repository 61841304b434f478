"""Steps of on_gpu.py that time capture beside AutoModel, on gemma-3-270m and on the shapes of its larger sisters."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from gpu_states import Figures, device_of, states


def capture(model: str, dry: bool) -> Figures:
    """Time encyclo's capture and AutoModel's with several batch sizes, on template prompts and definitions."""
    import capture as bench
    import capture_peers as peers
    import torch

    from encyclo_capture.batch_sizes import default_batch
    from encyclo_capture.model import TransformersModel

    loaded = TransformersModel(model, device_of(dry))
    found: Figures = {"dtype": loaded.dtype, "tokens of a batch by default": default_batch(loaded)}
    for workload in ("templates", "definitions"):
        for _, prompts in bench.make_prompts(workload, 20 if dry else 1000, None):
            own = bench.as_prompts(prompts)
            for size in (4096, 16384, 65536):
                run = partial(states, loaded, own, size)
                found[f"{workload} encyclo {size}"] = rate(run, len(own), dry)
            for size in (128, 1024, 4096):
                peers.BATCH = size
                peer = partial(peers.METHODS["transformers"](loaded), prompts)
                found[f"{workload} AutoModel {size}"] = rate(peer, len(own), dry)
            found[f"{workload} largest difference of a layer's mean length"] = difference(
                states(loaded, own), peer()[1]
            )
    if not dry:
        found.update(profile(lambda: states(loaded, own)))
        found["peak_memory_mb"] = round(torch.cuda.max_memory_allocated() / 1e6)
    return found


def rate(run: Callable[[], Any], count: int, dry: bool) -> str:
    """Return prompts/s: the median of five runs after a first, and their range."""
    import torch

    run()
    rates = []
    for _ in range(1 if dry else 5):
        begun = time.perf_counter()
        run()
        if not dry:
            torch.cuda.synchronize()
        rates.append(count / (time.perf_counter() - begun))
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"


SHAPES = {
    "1B": {
        "hidden_size": 1152,
        "intermediate_size": 6912,
        "num_hidden_layers": 26,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
    },
    "4B": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    },
}
"""The published shapes of gemma-3-1b and of the text model of gemma-3-4b."""


def shapes(model: str, dry: bool) -> Figures:
    """Time capture and AutoModel on networks of the shapes of Gemma's larger sisters, with random weights."""
    import capture as bench
    import capture_peers as peers
    import torch

    from encyclo_capture.model import TransformersModel

    found: Figures = {}
    ((_, prompts),) = bench.make_prompts("templates", 20 if dry else 1000, None)
    own = bench.as_prompts(prompts)
    for name, shape in SHAPES.items():
        with tempfile.TemporaryDirectory() as folder:
            write_random(Path(model), Path(folder), {"num_hidden_layers": 2} if dry else shape, dry)
            loaded = TransformersModel(folder, device_of(dry), "bfloat16")
            layers = tuple(loaded.depth + 1 + layer for layer in (-12, -9, -6, -3, -1)) if not dry else (1, 2)
            run = partial(states, loaded, own, None, layers)
            found[f"{name} encyclo"] = rate(run, len(own), dry)
            peers.LAYERS = layers
            for size in (128, 1024):
                peers.BATCH = size
                peer = partial(peers.METHODS["transformers"](loaded), prompts)
                found[f"{name} AutoModel {size}"] = rate(peer, len(own), dry)
            found[f"{name} largest difference of a layer's mean length"] = difference(run(), peer()[1])
            if not dry:
                found[f"{name} peak_memory_mb"] = round(torch.cuda.max_memory_allocated() / 1e6)
            del loaded, run, peer
            torch.cuda.empty_cache()
    return found


def write_random(model: Path, folder: Path, shape: dict[str, int], dry: bool) -> None:
    """Write a model of another shape with random weights, and the tokenizer of `model`."""
    import shutil

    import torch
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(model)
    for key, value in shape.items():
        setattr(config, key, value)
    every = getattr(config, "_sliding_window_pattern", 6)
    config.layer_types = [
        "full_attention" if (layer + 1) % every == 0 else "sliding_attention"
        for layer in range(config.num_hidden_layers)
    ]
    torch.manual_seed(0)
    with torch.device(device_of(dry)):
        AutoModel.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(model / file, folder)


def difference(ours: Any, theirs: Any) -> str:
    """Return the largest relative difference between the layers' mean squared lengths."""
    a, b = ((states.astype("float64") ** 2).sum(-1).mean(0) for states in (ours, theirs))
    return f"{float((abs(a - b) / b).max()):.1e}"


def profile(run: Callable[[], Any]) -> Figures:
    """Return the share of the time in which the GPU computes, and print where the time goes."""
    import torch

    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    ) as profiler:
        begun = time.perf_counter()
        run()
        torch.cuda.synchronize()
        wall = time.perf_counter() - begun
    events = profiler.key_averages()
    busy = sum(event.self_device_time_total for event in events) / 1e6
    print(
        events.table(sort_by="self_cuda_time_total", row_limit=15, max_name_column_width=60), file=sys.stderr
    )
    print(
        events.table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=60), file=sys.stderr
    )
    return {"GPU busy under the profiler": f"{busy / wall:.0%}"}
