"""Steps of on_gpu.py that run whole commands: `encyclo run` and `encyclo capture`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from gpu_states import Figures, device_of

LINES = 100
"""The lines of a text."""
RUN = ("run", "--sampler", "templates", "--with", "timing")
KEYS = (
    "capture.dtype",
    "capture.prompts",
    "capture.prompts_per_second",
    "accuracy.heldout_prompts.transformer.top1",
    "calibration.ece",
)


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


def texts(model: str, dry: bool) -> Figures:
    """Capture every token of long texts with `encyclo capture`, in batches of the default size.

    The first text is captured on the CPU in float32, too, and compared.
    """
    found: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.jsonl" for name in ("all", "first")}
        given = long_texts(20 if dry else 1000)
        for name, some in (("all", given), ("first", given[:1])):
            files[name].write_text("".join(json.dumps({"text": text}) + "\n" for text in some))
        captured: dict[str, Any] = {}
        for name, device, dtype in (
            ("all", device_of(dry), "auto"),
            ("first", device_of(dry), "auto"),
            ("first", device_of(dry), "float32"),
            ("first", "cpu", "float32"),
        ):
            out = Path(folder) / f"{name} {device} {dtype} {len(captured)}"
            flags = [
                "--model",
                model,
                "--device",
                device,
                "--layers",
                "-6,-1",
                "-o",
                f"transformers.dtype={dtype}",
            ]
            begun = time.perf_counter()
            encyclo("capture", str(files[name]), "--out", str(out), *flags)
            seconds = time.perf_counter() - begun
            encyclo("verify", str(out))
            captured[out.name] = tokens_of(out)
            if name == "all":
                commits = [json.loads(file.read_text()) for file in (out / "commits").glob("*.json")]
                read, busy = (sum(commit[key] for commit in commits) for key in ("tokens", "seconds"))
                found |= {"tokens": len(captured[out.name]), "seconds of the command": round(seconds, 1)}
                found["tokens/s, without loading and writing"] = round(read / busy)
                found["self-test"] = (
                    f"{json.loads((out / 'capture.json').read_text())['self_test']['windows']:.1e}"
                )
        _, auto, exact, expected = captured.values()
    for dtype, values in (("the default dtype", auto), ("float32", exact)):
        error = np.linalg.norm(values - expected, axis=-1) / np.linalg.norm(expected, axis=-1)
        found[f"{dtype}: largest error of a vector"] = f"{error.max():.1e}"
        found[f"{dtype}: mean error"] = f"{error.mean():.1e}"
    return found


def long_texts(count: int) -> list[str]:
    """Return texts of 100 prompts of the benchmark each, a line each: about 1,500 tokens."""
    import capture as bench

    lines = [
        prompt["text"]
        for workload in ("templates", "definitions")
        for _, prompts in bench.make_prompts(workload, count, None)
        for prompt in prompts
    ]
    return ["\n".join(lines[start : start + LINES]) for start in range(0, len(lines), LINES)]


def tokens_of(out: Path) -> Any:
    """Return the activations of a capture of texts in their order: float32 [n, L, H]."""
    import encyclo as package

    with package.open(out) as opened:
        return np.concatenate([part.values() for part in opened.parts()])


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
