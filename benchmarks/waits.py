"""How long one waits for each command, as a ratio to F: python benchmarks/waits.py [--large] [--out FOLDER]

F is a bare script that imports torch and transformers, loads the weights and tokenizer of gemma-3-270m and runs one
text. Everything runs one after the other on the same machine; F runs before each group and its median counts. For
each command there are wall seconds, processor seconds and their ratios to F's, and the peak memory. The processor's
seconds count where other work shares the machine. --large adds the main job (1,000 concepts, 10 templates), stage 0,
and converge and evaluate after it.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import statistics
import tempfile
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from processes import measured

BARE = """
import sys
import torch
from transformers import AutoModel, AutoTokenizer
folder = sys.argv[1]
tokenizer = AutoTokenizer.from_pretrained(folder)
network = AutoModel.from_pretrained(folder, dtype=torch.bfloat16).eval()
with torch.inference_mode():
    network(**tokenizer("A river runs through the valley.", return_tensors="pt"), output_hidden_states=True)
"""


def groups(folder: Path, large: bool) -> Iterator[dict[str, list[str | Path]]]:
    """Yield commands by name, in groups; a group may need the run that one before it made."""
    few, core = folder / "few", folder / "core"
    yield {
        "plan, 40 concepts, all stages": ["plan", "--limit", "40"],
        "plan, 40 concepts, templates": ["plan", "--limit", "40", "--sampler", "templates"],
        "run, 40 concepts, templates": ["run", "--limit", "40", "--sampler", "templates", "--out", few],
    }
    run = core if large else few
    if large:
        yield {"run, core, templates": ["run", "--sampler", "templates", "--out", core]}
        yield {"run, core, stage 0": ["run", "--sampler", "raw", "--out", folder / "names"]}
    yield {
        "show": ["show", run, "animal"],
        "read": ["read", run, "An animal drank water from the river."],
        "report": ["report", run],
        "converge": ["converge", run],
    }
    if large:
        yield {"evaluate": ["evaluate", run]}
        yield {"run, 40 concepts, all stages": ["run", "--limit", "40", "--out", folder / "stages"]}


def with_bytecode() -> dict[str, str]:
    """Compile encyclo's modules, as installing a package does; return the environment of commands that use them."""
    for package in {"encyclo", *(point.value.split(".")[0] for point in entry_points(group="encyclo"))}:
        spec = find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            compileall.compile_dir(folder, quiet=1)
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


def main() -> None:
    """Measure and print one line for each command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    folder = given.out or Path(tempfile.mkdtemp(prefix="waits-"))
    folder.mkdir(parents=True, exist_ok=True)
    from encyclo_capture.loading.weights import PACKAGED, find_weights

    weights = find_weights(PACKAGED, None).folder
    environment = with_bytecode()
    bare: list[dict[str, float]] = []
    found: dict[str, dict[str, float]] = {}
    for group in groups(folder, given.large):
        bare.append(measured(["-c", BARE, weights], folder / "log.txt", environment))
        print(
            f"F: {bare[-1]['wall_s']:.1f} s, {bare[-1]['cpu_s']:.1f} s of processor; load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
        for name, arguments in group.items():
            found[name] = measured(["-m", "encyclo", *arguments], folder / "log.txt", environment)
            print(
                f"{name}: {found[name]['wall_s']:.1f} s, {found[name]['cpu_s']:.1f} s of processor",
                flush=True,
            )
    wall, cpu = (statistics.median(each[key] for each in bare) for key in ("wall_s", "cpu_s"))
    print(f"\nF: {wall:.1f} s, {cpu:.1f} s of processor (median of {len(bare)})")
    print(f"{'':<32}{'wall / F':>10}{'processor / F':>15}{'peak MB':>10}")
    for name, figures in found.items():
        print(
            f"{name:<32}{figures['wall_s'] / wall:>10.2f}{figures['cpu_s'] / cpu:>15.2f}{figures['peak_mb']:>10.0f}"
        )
    (folder / "waits.json").write_text(json.dumps({"F": bare, "commands": found}, indent=1))


if __name__ == "__main__":
    main()
