"""Estimate the cost of a run: prompts, tokens, time, memory, disk.

Prompts are drawn for a few units and tokenised, and a few of them are captured and timed on this machine;
the rest is extrapolated in proportion.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from encyclo.pipeline.collect import UnitSampler, require_prompts
from encyclo.pipeline.disk_estimate import DiskEstimate
from encyclo.runs.directory import RunDirectory
from encyclo.runs.open_run import OpenRun
from encyclo.runs.session import Session, Stage
from encyclo.storage.ledger import Unit
from encyclo.storage.sample_rows import IN_MEMORY_BYTES
from encyclo.types import Prompt

SAMPLED_CONCEPTS = 100
TIMED_PROMPTS = 256
ATTEMPTS = 60
"""Candidate prompts of a concept, of which a sampler keeps those that the interpreter misreads."""
# Samples per second of everything except capture (start, training, scoring, convergence, report). Measured on
# gemma-3-270m, 2 cores: a run whose 10,000 samples of 5 layers were all committed took 35 s.
SAMPLES_JUDGED_A_SECOND = 285.0

# The trained interpreter of default size and the report.
OTHER_BYTES = 3_000_000


@dataclass(frozen=True)
class CostEstimate:
    """A run's cost. Times are estimates from a short measurement; disk is the size of the files."""

    concepts: int
    prompts: int
    tokens: int
    seconds: float
    memory_bytes: int
    disk_bytes: int


def estimate_cost(session: Session) -> CostEstimate:
    """Estimate the run from a sample of its own prompts; no concept is assumed to settle at any stage."""
    concepts = len(session.concepts)
    require_prompts(session)
    prompts = tokens = 0
    seconds = 0.0
    tokens_each = seconds_each = 0.0
    disk = DiskEstimate(session)
    # The plugins' own files are deleted with the folder.
    with tempfile.TemporaryDirectory() as folder:
        run = OpenRun.of(session, RunDirectory(Path(folder), {}))
        for stage in session.stages:
            most = session.config.budget or stage.usual * concepts
            if session.looks(stage):  # there is no interpreter yet: assume the stage before
                count = min(stage.usual * concepts, most)
                seconds += seconds_each * (count + ATTEMPTS * concepts)
            else:
                sampled, asked, sampling = _sample_some(run, stage)
                count = min(round(len(sampled) * concepts / asked), most)
                if sampled:
                    tokens_each, seconds_each = _capture_some(run, sampled)
                disk.add(sampled, count, stage.usual)
                seconds += seconds_each * count + sampling * concepts / asked
            prompts += count
            tokens += round(tokens_each * count)
    layers, hidden = len(session.schema.layers), session.schema.hidden_size
    sample_bytes = layers * (hidden * 2 + 4) + 13  # halves, scales, concept, stage, span
    in_memory = min(prompts * sample_bytes, IN_MEMORY_BYTES)
    used = psutil.Process().memory_info().rss
    return CostEstimate(
        concepts=concepts,
        prompts=prompts,
        tokens=tokens,
        seconds=seconds + prompts / SAMPLES_JUDGED_A_SECOND,
        # The memory in use now, samples in half precision, and training's float32 working copies.
        memory_bytes=used + in_memory + 3 * concepts * layers * hidden * 8 + 400 * 2**20,
        disk_bytes=disk.predict(prompts) + OTHER_BYTES,
    )


def _sample_some(run: OpenRun, stage: Stage) -> tuple[list[Prompt], int, float]:
    """Return a stage's prompts for a few concepts, the number of concepts, and the seconds it took."""
    step = max(1, len(run.session.concepts) // SAMPLED_CONCEPTS)
    concepts = tuple(range(0, len(run.session.concepts), step))[:SAMPLED_CONCEPTS]
    sampler = UnitSampler(run, stage, (), {})

    def sample(chosen: tuple[int, ...]) -> list[Prompt]:
        wanted, done = (stage.usual,) * len(chosen), (0,) * len(chosen)
        return sampler.sample(Unit("plan", stage.number, chosen, wanted, done, stage.key))

    sample(concepts[:1])  # warms up: a sampler may load a model
    begun = time.perf_counter()
    sampled = sample(concepts)
    return sampled, len(concepts), time.perf_counter() - begun


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
