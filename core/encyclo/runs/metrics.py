"""metrics.json: every figure of a run, typed; null where it could not be measured.

A run that has the file is finished. Keys that a run leaves out (such as `unfamiliar` before `encyclo evaluate`)
stay out when the file is written again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationError

from encyclo.errors import DamagedError
from encyclo.statistics.figures import (
    Absent,
    Accuracy,
    Calibration,
    Coverage,
    Figure,
    Figures,
    LayerConvergence,
    RunningText,
    Sureness,
)
from encyclo.storage import run_files, safe_read

FILE = "metrics.json"
RUNGS = ("heldout_prompts", "natural", "aliases", "senses", "described", "unseen", "adversarial")
"""The evaluation ladder; each rung gives the interpreter less help than the one before."""
Rung = dict[str, Accuracy | None] | None
"""Figures by interpreter; None if the rung was not measured."""


class CaptureFigures(Figures):
    """The cost of capture; seconds are those spent in `capture_layers`."""

    prompts: int | None = None
    tokens: int | None = None
    tokens_computed: int | None = None
    seconds: Figure = None
    prompts_per_second: Figure = None
    peak_rss_mb: Figure = None
    device: str | None = None
    dtype: str | None = None


class LadderFigures(Figures):
    """Accuracy by rung and interpreter."""

    heldout_prompts: Rung = None
    natural: Rung = None
    aliases: Rung = None
    senses: Rung = None
    described: Rung = None
    unseen: Rung = None
    adversarial: Rung = None

    def rungs(self) -> dict[str, Rung]:
        """Return every rung by name, the easiest first."""
        return {name: getattr(self, name) for name in RUNGS}


class RunCalibration(Calibration):
    """The calibration of the run's interpreter, with each baseline's under the baseline's name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Any]

    def baselines(self) -> dict[str, Calibration]:
        """Return the baselines' calibration by name."""
        found = {k: v for k, v in (self.__pydantic_extra__ or {}).items() if isinstance(v, dict) and v}
        return {name: Calibration.model_validate(value) for name, value in found.items()}


class Attacks(Figures):
    """Fresh attacks before and after an adversarial stage; 1 - top1 of them succeed."""

    before: Accuracy | None = None
    after: Accuracy | None = None


class StageFigures(Figures):
    """One visit to one stage, over all samples so far; seconds are for all steps, in the process that made it."""

    stage: int | None = None
    sampler: str | None = None
    concepts: int | None = None
    samples: int | None = None
    settled: int | None = None
    heldout_top1: Figure = None
    heldout_n: int | None = None
    natural_top1: Figure = None
    natural_n: int | None = None
    confidence: Figure = None
    ece: Figure = None
    converged: int | None = None
    convergence: dict[str, LayerConvergence] | None = None
    seconds: Figure = None
    attacks: Attacks | None = None


class Metrics(Figures):
    """The whole of metrics.json."""

    capture: CaptureFigures = Field(default_factory=CaptureFigures)
    accuracy: LadderFigures = Field(default_factory=LadderFigures)
    calibration: RunCalibration | None = None
    convergence: dict[str, LayerConvergence] | None = None
    stages: list[StageFigures] = Field(default_factory=list)
    splits: dict[str, list[str]] = Field(default_factory=dict)
    """Prompt families by their use: train, validation, calibration, test."""
    natural_sentences: int | None = None
    """How many sentences by other authors the run had for the rung `natural`, prompts of training included."""
    unfamiliar: dict[str, dict[str, Sureness] | None] | None = None
    """How sure each interpreter is of activations without a right answer; measured by `encyclo evaluate`."""
    absent: dict[str, Absent | None] | None = None
    """How sure `encyclo read` is of concepts without an entry; measured by `encyclo evaluate`."""
    coverage: Coverage | None = None
    """How much of a text's activations the entries explain; measured by `encyclo evaluate`."""
    running_text: RunningText | None = None
    """What `encyclo read` finds in a labelled text; measured by `encyclo evaluate --running-text`."""


def write_metrics(run: Path, metrics: Metrics) -> None:
    """Write metrics.json durably. It is a run's last file and marks it as finished."""
    run_files.write_json(run, FILE, metrics.as_json())
    run_files.settle(run)


def read_metrics(run: Path) -> Metrics:
    """Read metrics.json. Raises DamagedError, saying what to do, if it can't be read or isn't the run's."""
    path = run / FILE
    advice = "delete it and run the same `encyclo run` command again to write it again"
    content = run_files.read_json(run, FILE, at_most=safe_read.METRICS_JSON, advice=advice)
    try:
        return Metrics.model_validate(content)
    except ValidationError as error:
        raise safe_read.refusal(path, safe_read.invalid(error), advice, DamagedError) from error
