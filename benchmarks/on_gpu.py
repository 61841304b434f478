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
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from gpu_checks import machine, memory, selftest, tests, values
from gpu_commands import run, texts
from gpu_speed import capture, shapes
from gpu_states import Figures

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / ".gpu" / "model"


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


STEPS: dict[str, Callable[[str, bool], Figures]] = {
    "machine": machine,
    "tests": tests,
    "selftest": selftest,
    "values": values,
    "capture": capture,
    "shapes": shapes,
    "memory": memory,
    "run": run,
    "texts": texts,
}

if __name__ == "__main__":
    main()
