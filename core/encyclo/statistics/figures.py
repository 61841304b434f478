"""Types of metrics.json's figures: accuracy, calibration, convergence. `encyclo.runs.metrics` has the whole file.

A figure that could not be measured is None. A key that a run does not measure at all is left out of the file:
`as_json` writes the fields that were set and no others.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

Figure = float | None
M = TypeVar("M", bound=BaseModel)


class Figures(BaseModel):
    """Named figures. Unknown keys are kept, so that a plugin may add its own."""

    model_config = ConfigDict(extra="allow", frozen=True, ser_json_inf_nan="constants", defer_build=True)

    def as_json(self) -> dict[str, Any]:
        """Return the figures that were set, in JSON's types."""
        return self.model_dump(mode="json", exclude_unset=True)


class Conformal(Figures):
    """Conformal sets: how often they should contain the truth (`level`), how often they do, their mean size."""

    level: Figure = None
    coverage: Figure = None
    size: Figure = None
    empty: Figure = None
    n: int | None = None


class Calibration(Figures):
    """Calibration. bins: [confidence, accuracy, count] each; coverage: [share, accuracy, confidence] each."""

    ece: Figure = None
    ece_by_chance: Figure = None
    """What `ece` would be on average if every confidence were exact: it rests on `n` readings."""
    brier: Figure = None
    temperature: Figure = None
    n: int | None = None
    bins: list[list[int | float | None]] | None = None
    coverage: list[list[int | float | None]] | None = None
    conformal: Conformal | None = None


class Accuracy(Figures):
    """How often the true concept is among the first k, over `n` readings and `candidates` concepts.

    `encyclo evaluate` adds 95% intervals, the null, categories, the most frequent misreadings ([truth, read
    instead, times]), prompts left out, calibration.
    """

    top1: Figure = None
    top10: Figure = None
    top100: Figure = None
    median_rank: Figure = None
    candidates: int | None = None
    n: int | None = None
    top1_low: Figure = None
    top1_high: Figure = None
    top10_low: Figure = None
    top10_high: Figure = None
    top100_low: Figure = None
    top100_high: Figure = None
    null: Accuracy | None = None
    by_category: dict[str, Accuracy] | None = None
    confused: list[tuple[str, str, int]] | None = None
    left_out: int | None = None
    calibration: Calibration | None = None
    all: Accuracy | None = None
    """The rung `senses`: the figures over all mentions, also of words that only one entry has."""


class LayerConvergence(Figures):
    """How far signatures have converged at one layer: see `encyclo.statistics.convergence`."""

    raw_rel_diff: Figure = None
    centred_rel_diff: Figure = None
    adjusted_rel_diff: Figure = None
    cosine: Figure = None
    null_cosine: Figure = None
    within_5pct_raw: Figure = None
    within_5pct_centred: Figure = None
    samples_to_5pct_median: Figure = None
    samples_to_95pct_raw: Figure = None
    samples_to_10pct_centred: Figure = None
    samples_to_10pct_adjusted: Figure = None
    concepts: int | None = None


class LayerCurve(Figures):
    """The same figures with fewer samples per concept, a point for each number; see `convergence_curve`."""

    samples: list[int]
    concepts: list[int]
    raw: list[float]
    centred: list[float]
    adjusted: list[float]
    cosine: list[float]
    null: list[float]
    exponent: Figure = None


class LayerCoverage(Figures):
    """The share of activations that k directions rebuild, for each of `k`: see `encyclo.statistics.coverage`."""

    k: list[int]
    entries: list[Figure]
    random: list[Figure]
    shuffled: list[Figure]
    principal: list[Figure]


class KindCoverage(Figures):
    """The share that 16 entries rebuild of one kind of token, mean over layers; number of tokens."""

    kind: str
    tokens: int
    explained: Figure = None


class Coverage(Figures):
    """How much of a text's activations the entries explain; `layers` and `kinds` are None for too short a text."""

    tokens: int
    measured: int
    """The tokens that the figures are about: the text's second half."""
    candidates: int
    """The entries with a signature."""
    source: str
    layers: dict[str, LayerCoverage] | None = None
    kinds: list[KindCoverage] | None = None

    def mean(self, directions: str, k: int) -> Figure:
        """Return the share that `k` of `directions` ("entries", "random", ...) rebuild, mean over layers."""
        rows = list((self.layers or {}).values())
        shares = [dict(zip(row.k, getattr(row, directions), strict=False)).get(k) for row in rows]
        known = [share for share in shares if share is not None]
        return sum(known) / len(known) if known and len(known) == len(shares) else None


class TextReadings(Figures):
    """What one reader reads in running text, at a minimum confidence; `n` is the number of mentions."""

    readings: int
    recall: Figure = None
    precision: Figure = None
    precision_low: Figure = None
    precision_high: Figure = None
    others_per_1000: Figure = None
    """Readings where no word of an entry stands, per 1,000 words."""
    ece: Figure = None
    n: int


class TextReaders(Figures):
    """The figures of what `encyclo read` reads, and of the baselines."""

    mentions: int
    read: TextReadings
    baselines: dict[str, TextReadings]


class TextSource(Figures):
    """A labelled text: the file's name and the sha256 of its content."""

    file: str
    sha256: str


class RunningText(TextReaders):
    """What is read in running text: a reading is right if the word means the entry; see docs/evaluation.md."""

    source: TextSource
    documents: int
    words: int
    at_least: float
    by_word: TextReaders
    """The same figures where a reading is right if the word is one of the entry's words."""


class Sureness(Figures):
    """How sure an interpreter is of one kind of reading: median confidence, share above 50%, number of readings."""

    median: Figure = None
    above_half: Figure = None
    n: int | None = None


class Absent(Figures):
    """How sure `encyclo read` and the interpreter alone are of concepts without an entry, by their samples.

    known_lost: the share of `known` samples of entries that the interpreter alone reads rightly, with a confidence
    above 50%, and `encyclo read` does not.
    """

    read: Sureness
    interpreter_alone: Sureness
    known_lost: Figure = None
    known: int | None = None
