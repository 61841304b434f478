"""Time, memory and disk of a run and of the commands after it, by number of concepts, with the growth fitted.

    python benchmarks/scale.py [--sizes 1000,10000,50000] [--per-concept 10] [--out FOLDER]
    python benchmarks/scale.py --project [--concepts 1000000] [--per-concept 20] [--gpus 8]

The activations are made up, so that the figures are those of everything but the model: sampling, storing, training,
scoring, finalising, report, show, verify and export. Concepts and prompts are real (wordnet, templates); with
--per-concept 1 the sampler is raw. Made-up activations have the size of gemma-3-270m's: five layers of 640.
Prints one line for each command and size as it ends, then a table; writes scale.json into --out.

With --project nothing is run: see `projection.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import projection
from processes import measured

from encyclo.hookspecs import hookimpl
from encyclo.testing.fixtures.complete_plugin import install
from encyclo.types import Context, Prompt, Samples

NAME, HIDDEN, DEPTH, DIRECTIONS, BATCH = "madeup", 640, 18, 96, 2048


class MadeUpModel:
    """A model whose states are a common direction, the concept's, the prompt family's, and noise."""

    name, source, depth, hidden_size = NAME, "made-up activations", DEPTH, HIDDEN
    dtype, device, weights_sha256, licence, max_tokens = "float32", "cpu", "0" * 64, "none", 512

    @cached_property
    def basis(self) -> Any:
        """Directions that all codes are sums of: float32 [DIRECTIONS, DEPTH + 1, HIDDEN]."""
        return np.random.default_rng(0).standard_normal((DIRECTIONS, DEPTH + 1, HIDDEN)).astype(np.float32)

    @cached_property
    def noise(self) -> Any:
        """Rows of noise that prompts share: float32 [BATCH, DEPTH + 1, HIDDEN]."""
        return np.random.default_rng(1).standard_normal((BATCH, DEPTH + 1, HIDDEN)).astype(np.float32)

    def states(self, prompts: Sequence[Prompt], layers: Sequence[int]) -> Any:
        """Return float32 [n, L, H]."""
        codes = np.stack(
            [10 * _code("") + _code(p.concept) + 0.5 * _code(f"family {p.family}") for p in prompts]
        )
        chosen = self.basis[:, list(layers)].reshape(DIRECTIONS, -1)
        rows = np.array([zlib.crc32(p.text.encode()) % BATCH for p in prompts])
        return (codes @ chosen).reshape(len(prompts), len(layers), HIDDEN) + 4 * self.noise[rows][
            :, list(layers)
        ]

    def tokens(self, text: str) -> list[tuple[int, int]]:
        """Return the whole text as one token."""
        return [(0, len(text))]

    def forward(self, texts: Sequence[str], layers: Sequence[int]) -> list[Any]:
        """Return one state for each text."""
        return [self.states([Prompt("", text, None, "read")], layers) for text in texts]


def _code(text: str) -> Any:
    return np.random.default_rng(zlib.crc32(text.encode())).standard_normal(DIRECTIONS).astype(np.float32)


class Plugin:
    """Model and capture."""

    @hookimpl
    def load_model(self) -> MadeUpModel:
        """Return the model."""
        return MadeUpModel()

    @hookimpl
    def capture_layers(
        self, prompts: Sequence[Prompt], layers: Sequence[int], context: Context
    ) -> Iterator[Samples]:
        """Yield batches."""
        for start in range(0, len(prompts), BATCH):
            some = prompts[start : start + BATCH]
            values = context.model.states(some, layers)
            yield Samples(np.arange(start, start + len(some)), values, len(some), len(some))


plugin = Plugin()


def figures_of(arguments: Sequence[str | Path], folder: Path) -> dict[str, Any]:
    """Run the command in a process of its own; return its wall and processor seconds and peak memory."""
    paths = os.pathsep.join([str(folder), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    found = measured(
        ["-m", "encyclo", *arguments], folder / f"{arguments[0]}.log", {**os.environ, "PYTHONPATH": paths}
    )
    return {key: round(value, 1) for key, value in found.items()}


def one_size(size: int, per_concept: int, folder: Path) -> dict[str, dict[str, Any]]:
    """Return the figures of each command for a run of `size` concepts."""
    out = folder / f"run-{size}"
    sampler = ["raw"] if per_concept == 1 else ["templates", "--per-concept", str(per_concept)]
    chosen = ["--sampler", *sampler, "--concepts", "wordnet", "--limit", str(size), "--with", "timing"]
    first = "run", *chosen, "--capture", NAME, "--model", NAME, "--device", "cpu", "--out", out
    commands = [first, ("report", out), ("show", out, "be (verb.stative)"), ("verify", out)]
    commands.append(("export", out, "--out", folder / f"export-{size}"))
    figures = {}
    for command in commands:
        figures[str(command[0])] = found = figures_of(command, folder)
        if command is first:
            files = [path for path in out.rglob("*") if path.is_file()]
            found["disk_mb"] = round(sum(path.stat().st_size for path in files) / 2**20)
            found["report_mb"] = round((out / "report.html").stat().st_size / 1e6, 1)
            found["log"] = (folder / "run.log").read_text()[-2000:]
        shown = {key: value for key, value in found.items() if key != "log"}
        print(f"{size:>7,} concepts  {command[0]:<8}", json.dumps(shown), flush=True)
    return figures


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Return the slope of log(value) over log(size): 1 is in proportion to the concepts, 2 to their square."""
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(values, 1e-3)), 1)[0])


def main() -> None:
    """Measure all sizes and print the growth of each command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", default="1000,10000,50000")
    parser.add_argument("--per-concept", type=int, default=None)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--project", action="store_true")
    parser.add_argument("--concepts", type=int, default=1_000_000)
    parser.add_argument("--gpus", type=int, default=8)
    given = parser.parse_args()
    if given.project:
        projection.show(given.concepts, given.per_concept or 20, given.gpus)
        return
    folder = given.out or Path(tempfile.mkdtemp(prefix="scale-"))
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob("*.dist-info")):
        install(folder, NAME, "scale:plugin")
    sizes = [int(size) for size in given.sizes.split(",")]
    found = {size: one_size(size, given.per_concept or 10, folder) for size in sizes}
    (folder / "scale.json").write_text(json.dumps(found, indent=1))
    if len(sizes) > 1:
        for command in found[sizes[0]]:
            for figure in ("cpu_s", "peak_mb"):
                slope = exponent(sizes, [found[size][command][figure] for size in sizes])
                print(f"{command:<8} {figure:<8} grows as concepts to the power {slope:.2f}")


if __name__ == "__main__":
    main()
