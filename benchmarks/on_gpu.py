"""What a GPU must show, step by step: writes gpu.json and gpu.md. Called by on_gpu.sh.

    python benchmarks/on_gpu.py                      every step, on CUDA
    python benchmarks/on_gpu.py capture memory       these steps
    python benchmarks/on_gpu.py --dry-run            the same on a CPU with less data; gpu.json says so

Each step is a process of its own with a limit of its own: a step that hangs or fails leaves the others' figures.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / ".gpu" / "model"
LAYERS = (7, 10, 13, 16, 18)
UNIT = 2000
RUN = ("run", "--sampler", "templates", "--with", "timing")
Figures = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("steps", nargs="*", help=f"of {', '.join(STEPS)}; the default is all")
    parser.add_argument("--dry-run", action="store_true", help="on a CPU with less data")
    parser.add_argument("--model", default=str(MODEL) if MODEL.exists() else "gemma-3-270m")
    parser.add_argument("--limit", type=int, default=240, help="seconds per step")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(STEPS[arguments.worker](arguments.model, arguments.dry_run)))
        return
    if unknown := set(arguments.steps) - set(STEPS):
        parser.error(f"there is no step {sorted(unknown)[0]!r}; the steps are {', '.join(STEPS)}")
    out = Path(os.environ.get("OUT", ROOT / ".gpu" / "out"))
    out.mkdir(parents=True, exist_ok=True)
    file = out / "gpu.json"
    figures: Figures = json.loads(file.read_text()) if file.exists() else {}
    for step in arguments.steps or STEPS:
        figures[step] = in_process(step, arguments, out / f"{step}.log")
        file.write_text(json.dumps(figures, indent=2))
        (out / "gpu.md").write_text(table(figures))
        print(f"{step}: {json.dumps(figures[step])}", flush=True)
    sys.exit(any("failed" in found for found in figures.values()))


def in_process(step: str, arguments: argparse.Namespace, log: Path) -> Figures:
    """Run a step in its own process; return its figures with its seconds, or why it failed."""
    command = [sys.executable, __file__, "--worker", step, "--model", arguments.model]
    command += ["--dry-run"] * arguments.dry_run
    begun = time.perf_counter()
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    with log.open("w") as said:
        try:
            done = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                timeout=arguments.limit,
                env=environment,
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"took longer than {arguments.limit} s"}
    if done.returncode:
        lines = log.read_text().strip().splitlines() or [f"exit code {done.returncode}"]
        return {"failed": lines[-1][:300]}
    return {**json.loads(done.stdout.splitlines()[-1]), "seconds": round(time.perf_counter() - begun, 1)}


def table(figures: Figures) -> str:
    """Return the figures as a table in Markdown."""
    lines = ["| step | figure | value |", "|---|---|---|"]
    for step, found in figures.items():
        lines += [f"| {step} | {key} | {value} |" for key, value in found.items()]
    return "\n".join(lines) + "\n"


def device_of(dry: bool) -> str:
    return "cpu" if dry else "cuda"


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
    """Run the tests marked `cuda`; on a GPU none may be skipped."""
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
    return {"pytest": closing}


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


def states(
    model: Any, prompts: list[Any], batch_tokens: int | None = None, layers: tuple[int, ...] = LAYERS
) -> Any:
    """Return the prompts' activations, float32 [n, L, H], captured in slices as `encyclo run` hands prompts over."""
    import numpy as np

    from encyclo_capture.batch_sizes import default_batch
    from encyclo_capture.capture import capture as captured

    size = batch_tokens or default_batch(model)
    found = np.full((len(prompts), len(layers), model.hidden_size), np.nan, np.float32)
    for start in range(0, len(prompts), UNIT):
        for batch in captured(model, prompts[start : start + UNIT], layers, "span", size):
            found[start + batch.positions] = batch.activations
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


def capture(model: str, dry: bool) -> Figures:
    """Time encyclo's capture and AutoModel's with several batch sizes, on template prompts and definitions."""
    import capture as bench
    import torch

    from encyclo_capture.model import TransformersModel

    loaded = TransformersModel(model, device_of(dry))
    found: Figures = {"dtype": loaded.dtype}
    for workload in ("templates", "definitions"):
        for _, prompts in bench.make_prompts(workload, 20 if dry else 1000, None):
            own = bench.as_prompts(prompts)
            for size in (4096, 16384, 65536):
                run = partial(states, loaded, own, size)
                found[f"{workload} encyclo {size}"] = rate(run, len(own), dry)
            for size in (128, 1024, 4096):
                bench.BATCH = size
                peer = partial(bench.METHODS["transformers"](loaded), prompts)
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
            bench.LAYERS = layers
            for size in (128, 1024):
                bench.BATCH = size
                peer = partial(bench.METHODS["transformers"](loaded), prompts)
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


def run(model: str, dry: bool) -> Figures:
    """Run `encyclo run` on the card and, beside it, on the CPU: the same concepts, all at their defaults."""
    found: Figures = {}
    for device in ("cpu",) if dry else ("cuda", "cpu"):
        flags = ["--model", model, "--device", device, *(["--limit", "30"] if dry else [])]
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            begun = time.perf_counter()
            encyclo(*RUN, *flags, "--out", str(out))
            found[f"{device} seconds"] = round(time.perf_counter() - begun, 1)
            encyclo("verify", str(out))
            metrics = flat(json.loads((out / "metrics.json").read_text()))
            timed = json.loads((out / "plugins" / "timing" / "timing.json").read_text())
        found.update({f"{device} {row['hook']} s": round(row["seconds"], 2) for row in timed["rows"]})
        found.update({f"{device} {key}": metrics[key] for key in KEYS})
    return found


KEYS = (
    "capture.dtype",
    "capture.prompts",
    "capture.prompts_per_second",
    "accuracy.heldout_prompts.transformer.top1",
    "calibration.ece",
)


def flat(value: Any, prefix: str = "") -> Figures:
    """Flatten nested objects: {"a": {"b": 1}} becomes {"a.b": 1}."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        k: v for key, inner in value.items() for k, v in flat(inner, f"{prefix}.{key}".lstrip(".")).items()
    }


def encyclo(*arguments: str) -> None:
    """Run the command line; its messages go to the log."""
    done = subprocess.run([sys.executable, "-m", "encyclo", *arguments], capture_output=True, text=True)
    print(f"encyclo {' '.join(arguments)}\n{done.stdout}\n{done.stderr}", file=sys.stderr)
    if done.returncode:
        sys.exit(f"encyclo {arguments[0]}: {done.stderr.strip().splitlines()[-1]}")


STEPS: dict[str, Callable[[str, bool], Figures]] = {
    "machine": machine,
    "tests": tests,
    "selftest": selftest,
    "values": values,
    "capture": capture,
    "shapes": shapes,
    "memory": memory,
    "run": run,
}

if __name__ == "__main__":
    main()
