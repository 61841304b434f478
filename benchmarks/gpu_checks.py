"""Steps of on_gpu.py that check numbers: tests, self-test, values beside the CPU's, out of memory."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from gpu_states import Figures, device_of, states

ROOT = Path(__file__).resolve().parents[1]


def machine(model: str, dry: bool) -> Figures:
    """Name the device and the versions."""
    import torch
    import transformers

    found: Figures = {
        "dry_run": dry,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "cpus": os.cpu_count(),
        "device": "cpu",
    }
    if not dry:
        properties = torch.cuda.get_device_properties(0)
        found["device"] = properties.name
        found["memory_gb"] = round(properties.total_memory / 1e9, 1)
    return found


def tests(model: str, dry: bool) -> Figures:
    """Run the tests marked `cuda`; on a GPU none may be skipped. Without bitsandbytes its weights are left out."""
    folders = [f"tests/plugins/test_{name}.py" for name in ("capture_device", "interpreters", "quantised")]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "cuda",
        "-p",
        "no:cacheprovider",
        "-n",
        "0",
        *folders,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(done.stdout, done.stderr, file=sys.stderr)
    closing = done.stdout.strip().splitlines()[-1]
    if done.returncode or ("skipped" in closing and not dry):
        sys.exit(f"the tests marked cuda: {closing}")
    return {"pytest": closing, "bitsandbytes": version_of("bitsandbytes") or "left out: not installed"}


def version_of(package: str) -> str | None:
    """Return a package's version; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def selftest(model: str, dry: bool) -> Figures:
    """Run the self-test on the tiny models of every family, in both compute types and all poolings."""
    from encyclo.types import POOLINGS
    from encyclo_capture.model import TransformersModel
    from encyclo_capture.selftest import check
    from tests.plugins.test_capture_equal import CORPUS
    from tests.tiny_models import FAMILIES, write_model

    found: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for family in FAMILIES:
            path = write_model(Path(folder) / family, family)
            for dtype in ("float32", "bfloat16"):
                loaded = TransformersModel(str(path), device_of(dry), dtype)
                worst: dict[str, float] = {}
                for pooling in POOLINGS:
                    for name, value in check(loaded, CORPUS, (0, 2, 3, 4), pooling, 4096).items():
                        worst[name] = max(value, worst.get(name, 0.0))
                # Texts that are read alone have no figure for padding.
                errors = max(worst.get(name, 0.0) for name in ("layers", "batch", "padding"))
                how = "padded" if loaded.support.whole.padded else "alone"
                how = "shared prefixes" if loaded.shares_prefixes else how
                found[f"{family} {dtype}"] = f"{errors:.1e} ({how})"
    return found


def values(model: str, dry: bool) -> Figures:
    """Compare each sample on the device, in both compute types, with the same sample on the CPU in float32."""
    import capture as bench
    import numpy as np

    from encyclo_capture.model import TransformersModel

    count = 5 if dry else 50
    own = [
        prompt
        for workload in ("templates", "definitions")
        for _, prompts in bench.make_prompts(workload, count, None)
        for prompt in bench.as_prompts(prompts)
    ]

    expected, found = states(TransformersModel(model, "cpu", "float32"), own), {"prompts": len(own)}
    for dtype in ("float32", "bfloat16"):
        loaded = TransformersModel(model, device_of(dry), dtype)
        error = np.linalg.norm(states(loaded, own) - expected, axis=-1)
        error /= np.linalg.norm(expected, axis=-1)
        found[f"{dtype}: largest error of a vector"] = f"{error.max():.1e}"
        found[f"{dtype}: mean error"] = f"{error.mean():.1e}"
    return found


def memory(model: str, dry: bool) -> Figures:
    """Force the device out of memory: the batch is halved, and the values stay."""
    import capture as bench
    import numpy as np
    import torch

    from encyclo_capture import capture as module
    from encyclo_capture.model import TransformersModel

    if dry:
        return {"left out": "a CPU has no limit to force"}
    loaded = TransformersModel(model, "cuda", "float32")
    ((_, prompts),) = bench.make_prompts("definitions", 1000, None)
    own = bench.as_prompts(prompts)
    sizes: list[int] = []
    run_tree = module.run_tree

    def counted(network: Any, device: str, tree: Any, layers: Any) -> Any:
        sizes.append(len(tree.counts))
        return run_tree(network, device, tree, layers)

    expected = states(loaded, own)
    used, total = torch.cuda.memory_allocated(), torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((used + 300e6) / total)
    module.run_tree = counted
    limited = states(loaded, own, 65536)
    error = np.linalg.norm(limited - expected, axis=-1) / np.linalg.norm(expected, axis=-1)
    if not error.max() < 1e-3:
        sys.exit(f"the values differ by {error.max():.2g} once the device ran out of memory")
    if len(sizes) < 3:
        sys.exit("the device did not run out of memory")
    return {
        "passes": len(sizes),
        "largest batch tried": max(sizes),
        "smallest": min(sizes),
        "largest error": f"{error.max():.1e}",
    }
