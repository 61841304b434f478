"""Estimate the cost of a run: prompts, tokens, time, memory, disk.

Prompts are drawn for a few concepts and tokenised, and a few of them are captured and timed on this machine; the rest
is extrapolated in proportion. The time of training, scoring and report comes from the user's own earlier runs.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from encyclo.executors import Workers
from encyclo.pipeline.collect import UnitSampler, require_prompts
from encyclo.pipeline.disk_estimate import DiskEstimate
from encyclo.runs import judging_times
from encyclo.runs.directory import RunDirectory
from encyclo.runs.open_run import OpenRun
from encyclo.runs.session import Session, Stage
from encyclo.storage.ledger import Unit
from encyclo.storage.sample_rows import IN_MEMORY_BYTES
from encyclo.types import Prompt

SAMPLED_CONCEPTS = 100
SAMPLING_SECONDS = 1.0
"""No more concepts are sampled after this time: a sampler whose sentences the model writes is slow."""
WARM_UP = 2
"""Prompts that a sampler is asked for before it is timed."""
TIMED_PROMPTS = 256
ATTEMPTS = 60
"""Candidate prompts of a concept, of which a sampler keeps those that the interpreter misreads."""
# The trained interpreter of default size and the report.
OTHER_BYTES = 3_000_000


@dataclass(frozen=True)
class CostEstimate:
    """A run's cost. Times are estimates from a short measurement; disk is the size of the files."""

    concepts: int
    prompts: int
    tokens: int
    seconds: float
    seconds_by_step: dict[str, float]
    """The same by what takes them: sampling and capture, divided by the workers, and judging (training, scoring,
    report), which the command does alone."""
    workers: Workers
    judging_measured: bool
    """Whether the time of judging comes from a run on this machine."""
    memory_bytes: int
    """On this machine."""
    worker_bytes: int
    """Of each worker on another machine; 0 if there are none."""
    disk_bytes: int

    @property
    def bottleneck(self) -> str:
        """The step that takes the most time."""
        return max(self.seconds_by_step, key=lambda step: self.seconds_by_step[step])


def estimate_cost(session: Session) -> CostEstimate:
    """Estimate the run from a sample of its own prompts; no concept is assumed to settle at any stage."""
    concepts = len(session.concepts)
    require_prompts(session)
    prompts = tokens = 0
    seconds = {"sampling": 0.0, "capture": 0.0}
    tokens_each = seconds_each = 0.0
    disk = DiskEstimate(session)
    # The plugins' own files are deleted with the folder.
    with tempfile.TemporaryDirectory() as folder:
        run = OpenRun.of(session, RunDirectory(Path(folder), {}))
        for stage in session.stages:
            most = session.config.budget or stage.usual * concepts
            if session.looks(stage):  # there is no interpreter yet: assume the stage before
                count = min(stage.usual * concepts, most)
                seconds["capture"] += seconds_each * (count + ATTEMPTS * concepts)
            else:
                sampled, asked, sampling_each = _sample_some(run, stage)
                count = min(round(len(sampled) * concepts / asked), most)
                if sampled:
                    tokens_each, seconds_each = _capture_some(run, sampled)
                disk.add(sampled, count, stage.usual)
                seconds["capture"] += seconds_each * count
                seconds["sampling"] += sampling_each * concepts
            prompts += count
            tokens += round(tokens_each * count)
    layers, hidden = len(session.schema.layers), session.schema.hidden_size
    sample_bytes = layers * (hidden * 2 + 4) + 13  # halves, scales, concept, stage, span
    in_memory = min(prompts * sample_bytes, IN_MEMORY_BYTES)
    judging, workers = judging_times.expected(session, prompts), workers_of(session)
    seconds = {step: needed / workers.at_once for step, needed in seconds.items()}
    seconds["judging"] = judging.seconds
    used = psutil.Process().memory_info().rss
    beside = workers.number if workers.number > 1 and not workers.elsewhere else 0
    return CostEstimate(
        concepts=concepts,
        prompts=prompts,
        tokens=tokens,
        seconds=sum(seconds.values()),
        seconds_by_step=seconds,
        workers=workers,
        judging_measured=judging.measured,
        # The memory in use now, in every process; samples in half precision; training's float32 working copies.
        memory_bytes=used * (1 + beside) + in_memory + 3 * concepts * layers * hidden * 8 + 400 * 2**20,
        worker_bytes=used if workers.elsewhere else 0,
        disk_bytes=disk.predict(prompts) + OTHER_BYTES,
    )


def workers_of(session: Session) -> Workers:
    """Return what the executor's options say of its workers: by `planned`, or by the option `workers` alone."""
    options = session.options[session.config.executor]
    planned: Callable[[str], Workers] | None = getattr(options, "planned", None)
    if planned is not None:
        return planned(session.model.device)
    workers = getattr(options, "workers", None)
    return Workers(workers if isinstance(workers, int) else 1)


def _sample_some(run: OpenRun, stage: Stage) -> tuple[list[Prompt], int, float]:
    """Return a stage's prompts for a few concepts, the number of concepts, and the seconds of one concept.

    Concepts are spread over the list. They are sampled in groups, each twice as large as the one before, until there
    are enough or the time is up. The last group, which is the most like a run's units, gives the seconds.
    """
    step = max(1, len(run.session.concepts) // SAMPLED_CONCEPTS)
    spread = list(range(0, len(run.session.concepts), step))[:SAMPLED_CONCEPTS]
    sampler = UnitSampler(run, stage, (), {})

    def sample(chosen: tuple[int, ...], each: int = stage.usual) -> list[Prompt]:
        wanted, done = (each,) * len(chosen), (0,) * len(chosen)
        return sampler.sample(Unit("plan", stage.number, chosen, wanted, done, stage.key))

    # Warms up: a sampler may load a model, and `diverse` lets it write from two prompts on.
    sample(tuple(spread[:1]), min(WARM_UP, stage.usual))
    # In an order that spreads the first few over the whole list, too.
    order = np.random.default_rng(0).permutation(spread).tolist()
    sampled: list[Prompt] = []
    asked, group, seconds = 0, 4, 0.0
    begun = time.perf_counter()
    while asked < len(order) and (not asked or time.perf_counter() - begun < SAMPLING_SECONDS):
        chosen = tuple(sorted(order[asked : asked + group]))
        started = time.perf_counter()
        sampled += sample(chosen)
        seconds = (time.perf_counter() - started) / len(chosen)
        asked, group = asked + len(chosen), 2 * group
    return sampled, asked, seconds


def _capture_some(run: OpenRun, prompts: list[Prompt]) -> tuple[float, float]:
    """Capture a few of the prompts twice, to warm up and to time; return a prompt's tokens and seconds."""
    generator = np.random.default_rng(0)
    chosen = generator.permutation(len(prompts))[:TIMED_PROMPTS]
    timed = [prompts[i] for i in sorted(chosen)]
    run.capture(timed)
    begun = time.perf_counter()
    captured = run.capture(timed)
    seconds = time.perf_counter() - begun
    return captured.tokens / len(timed), seconds / len(timed)
