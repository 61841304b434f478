"""How long a run on a cluster would take, from figures that were measured on one machine each; nothing is run.

    python benchmarks/scale.py --project [--concepts 1000000] [--per-concept 20] [--gpus 8]

Each line of the assumptions says what was measured and where, or that it is assumed.
"""

from __future__ import annotations

from dataclasses import dataclass

from encyclo.pipeline.units import SAMPLES_PER_UNIT
from encyclo.runs.judging_times import SAMPLES_A_SECOND

COMMAND = (
    "encyclo run --concepts concepts.csv --sampler templates --per-concept {per_concept} --device cuda --store zarr "
    "--executor ray -o ray.address=auto -o ray.workers={gpus} --out s3://BUCKET/run"
)
ASSUMPTIONS = {
    "capture": (13_514.0, "prompts/s of a GPU: gemma-3-270m, templates, one H200 (docs/gpu.md)"),
    "sampling": (3_125.0, "prompts/s of a worker's core: templates, 10,000 in 3.2 s (docs/performance.md)"),
    "commit": (0.031, "seconds to store a unit on a local disk with zarr (docs/stores.md)"),
    "finalise": (311.0, "MB/s at which the parts become the encyclopedia (docs/stores.md)"),
    "part size": (1.018, "times the raw float16, for parts and for the encyclopedia (docs/stores.md)"),
    "judging": (SAMPLES_A_SECOND, "samples/s of training, scoring and report: 1,000 concepts (judging_times.py)"),
    "stream": (100.0, "MB/s of one stream to or from the store: assumed"),
    "request": (0.03, "seconds until the store answers a request, two for each unit: assumed"),
    "streams": (8.0, "streams at a time when the encyclopedia is uploaded (working_copy.THREADS)"),
    "overhead": (1.03, "times the seconds of processes on one machine: Ray with 2 workers (docs/executors.md)"),
    "layers x hidden": (5 * 640.0, "numbers of a sample: the default layers of gemma-3-270m"),
}  # fmt: skip
LIMITS = (
    "One stage, all workers at work from the first unit to the last, and no unit done twice.",
    "Each worker samples, captures and stores one after the other, as it does today.",
    "The command's machine copies every part while the workers work, one after the other.",
    "Judging in proportion to the samples is a lower bound: a reading is compared with every concept.",
    "No run of more than 50,000 concepts has been made.",
)


@dataclass(frozen=True)
class Projection:
    """A run's seconds by step, and its bytes."""

    prompts: int
    workers: dict[str, float]
    """What the workers do, each its share."""
    command: dict[str, float]
    """What the command does alone; `copying` at the same time as the workers."""
    stored: float
    """Bytes of the parts, and as many of the encyclopedia."""

    @property
    def seconds(self) -> float:
        """The whole run."""
        alone = sum(seconds for step, seconds in self.command.items() if step != "copying")
        return max(sum(self.workers.values()), self.command["copying"]) + alone


def project(concepts: int, per_concept: int, gpus: int) -> Projection:
    """Return the projection."""
    of = {name: value for name, (value, _) in ASSUMPTIONS.items()}
    prompts = concepts * per_concept
    stored = prompts * of["layers x hidden"] * 2 * of["part size"]
    share, units = prompts / gpus, prompts / gpus / SAMPLES_PER_UNIT
    uploads = stored / gpus / (of["stream"] * 1e6) + units * 2 * of["request"]
    workers = {
        "sampling": share / of["sampling"],
        "capture": share / of["capture"],
        "storing": units * of["commit"] + uploads,
    }
    command = {
        "copying": stored / (of["stream"] * 1e6),
        "judging": prompts / of["judging"],
        "finalising": stored / (of["finalise"] * 1e6) + stored / (of["streams"] * of["stream"] * 1e6),
    }
    return Projection(prompts, {step: s * of["overhead"] for step, s in workers.items()}, command, stored)


def show(concepts: int, per_concept: int, gpus: int) -> None:
    """Print the command, the assumptions and the projection."""
    found = project(concepts, per_concept, gpus)
    print(COMMAND.format(per_concept=per_concept, gpus=gpus), end="\n\nAssumptions\n")
    for name, (value, what) in ASSUMPTIONS.items():
        print(f"  {name:<16} {value:>9,g}  {what}")
    print("\n".join(f"  {limit}" for limit in LIMITS), end="\n\n")
    print(f"{concepts:,} concepts x {per_concept} = {found.prompts:,} prompts on {gpus} GPUs")
    for step, seconds in found.workers.items():
        print(f"  {step:<12} {seconds:>9,.0f} s on each of {gpus} workers")
    for step, seconds in found.command.items():
        print(f"  {step:<12} {seconds:>9,.0f} s on the command's machine")
    print(f"  {'the run':<12} {found.seconds:>9,.0f} s, or {found.seconds / 3600:,.1f} h")
    print(f"  {'store':<12} {2 * found.stored / 1e9:>9,.0f} GB, and as much on the command's disk")
