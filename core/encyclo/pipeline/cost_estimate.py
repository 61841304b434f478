"""What a run will take, before it runs: prompts, tokens, time, memory, disk.

Prompts are drawn for a few units and tokenised, a few of them are captured and timed on this machine, and
the rest is in proportion.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from encyclo.pipeline.disk_estimate import Disk
from encyclo.runs.session import Session, Stage
from encyclo.storage.sample_rows import IN_MEMORY_BYTES
from encyclo.types import Concept, Prompt, Samples

SAMPLED_CONCEPTS = 100
TIMED_PROMPTS = 256
ATTEMPTS = 60
"""Prompts of a concept that a sampler reads to find those that an interpreter misreads."""
# What follows capture (training, scoring, convergence, report) and the start, in samples a second. Measured on
# gemma-3-270m, 2 cores: a run whose 10,000 samples of 5 layers were all committed took 35 s.
SAMPLES_JUDGED_A_SECOND = 285.0

# The trained interpreter of default size and the report.
OTHER_BYTES = 3_000_000


@dataclass(frozen=True)
class Plan:
    """A run's cost. Times are estimates from a short measurement; disk is what the files will hold."""

    concepts: int
    prompts: int
    tokens: int
    seconds: float
    memory_bytes: int
    disk_bytes: int


def plan(session: Session) -> Plan:
    """Estimate the run from a sample of its own prompts; every stage as if nothing were settled."""
    concepts = len(session.concepts)
    prompts = tokens = 0
    seconds = 0.0
    measured = {"tokens_per_prompt": 0.0, "seconds_per_prompt": 0.0}
    disk = Disk(session)
    # A plugin that keeps things in its folder must leave nothing behind.
    with tempfile.TemporaryDirectory() as folder:
        for stage in session.stages:
            if session.plugins.needs_interpreter(
                stage.sampler
            ):  # nothing to look at yet: as the stage before
                count = session.config.per_concept * concepts
                prompts += count
                tokens += round(measured["tokens_per_prompt"] * count)
                seconds += measured["seconds_per_prompt"] * (count + ATTEMPTS * concepts)
                continue
            sampled, asked, sampling = _sampled_prompts(session, stage, Path(folder))
            count = round(len(sampled) * concepts / asked)
            measured = _timed(session, sampled, Path(folder))
            prompts += count
            disk.add(sampled, count)
            tokens += round(measured["tokens_per_prompt"] * count)
            seconds += measured["seconds_per_prompt"] * count + sampling * concepts / asked
    layers, hidden = len(session.schema.layers), session.schema.hidden_size
    sample_bytes = layers * (hidden * 2 + 4) + 13  # halves, scales, concept, stage, span
    in_memory = min(prompts * sample_bytes, IN_MEMORY_BYTES)
    used = psutil.Process().memory_info().rss
    return Plan(
        concepts=concepts,
        prompts=prompts,
        tokens=tokens,
        seconds=seconds + prompts / SAMPLES_JUDGED_A_SECOND,
        # What is loaded now, samples in half precision, and the float32 working copies of training.
        memory_bytes=used + in_memory + 3 * concepts * layers * hidden * 8 + 400 * 2**20,
        disk_bytes=disk.predict(prompts) + OTHER_BYTES,
    )


def _sampled_prompts(session: Session, stage: Stage, folder: Path) -> tuple[list[Prompt], int, float]:
    """Return a stage's prompts for some concepts, how many concepts, and the seconds that sampling took."""
    step = max(1, len(session.concepts) // SAMPLED_CONCEPTS)
    some = session.trainable[::step][:SAMPLED_CONCEPTS]
    context = session.context(stage.sampler, folder)

    def sample(concepts: Sequence[Concept]) -> list[Prompt]:
        given = session.plugins.call(
            "sample_prompts", stage.sampler, concepts=concepts, stage=stage.number, context=context
        )
        return list(session.plugins.iterate(stage.sampler, given))

    sample(some[:1])  # warms up: a sampler may load a model
    begun = time.perf_counter()
    sampled = sample(some)
    return sampled, len(some), time.perf_counter() - begun


def _timed(session: Session, prompts: list[Prompt], folder: Path) -> dict[str, float]:
    """Capture some of the prompts twice, the first time to warm up, and time the second."""
    generator = np.random.default_rng(0)
    chosen = generator.permutation(len(prompts))[:TIMED_PROMPTS]
    some = [prompts[i] for i in sorted(chosen)]
    name = session.config.capture
    tokens, begun = 0, 0.0
    for _ in range(2):
        tokens, begun = 0, time.perf_counter()
        batches: Any = session.plugins.call(
            "capture_layers",
            name,
            prompts=some,
            layers=session.schema.layer_index,
            pooling=session.config.pooling,
            context=session.context(name, folder),
        )
        batch: Samples
        for batch in session.plugins.iterate(name, batches):
            tokens += batch.tokens
    seconds = time.perf_counter() - begun
    return {"tokens_per_prompt": tokens / len(some), "seconds_per_prompt": seconds / len(some)}
