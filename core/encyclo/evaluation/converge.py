"""`encyclo converge`: how far a run's signatures have converged, over samples, and by the older protocol.

converge ── measure             the table by layer, and the curve, from the run's own samples: no model
         ├─ older_protocol      the same prompts captured anew with the pooling mean-all at layer -1
         └─ convergence.json    written into the run, replaced atomically

convergence.json (null where nothing could be measured):

    run_id, seed, splits, pooling, finished, concepts, samples   what was measured; samples that name their concept
    layers   {layer: {raw_rel_diff, centred_rel_diff, adjusted_rel_diff, cosine, null_cosine, within_5pct_raw,
             within_5pct_centred, samples_to_5pct_median, samples_to_95pct_raw, samples_to_10pct_centred,
             samples_to_10pct_adjusted, concepts}}, as metrics.json's `convergence` (see convergence.py)
    curve    {layer: {samples: [2, 4, 8, …], concepts: […], raw: […], centred: […], adjusted: […], cosine: […],
             null: […], exponent}}: the same figures where each concept has only so many samples, drawn anew for
             each split. `exponent` is the slope of log(adjusted) over log(samples), -0.5 for independent samples.
             Up to the point that half of the concepts reach, all points are of the same concepts; beyond it, of
             those that have so many: `concepts` says how many.
    older    {pooling, layer, concepts, samples, most, figures, here}: a row of `layers` by the older protocol, and
             `here`, {layer: row}, by this run's pooling for the very same prompts (at most `most` a concept); or null
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.evaluation import rungs as ladder
from encyclo.pipeline import run as pipeline
from encyclo.query.encyclopedia import Encyclopedia, open_run
from encyclo.runs.reopen import reopen
from encyclo.seeds import derive_seed
from encyclo.statistics.convergence import FEWEST, SPLITS, convergence_table, half_splits
from encyclo.statistics.signatures import Contexts, estimate
from encyclo.storage import files
from encyclo.storage.sample_rows import sample_set
from encyclo.types import Progress, Prompt, SampleSet, Signatures

FILE = "convergence.json"
OLDER_POOLING, OLDER_LAYER = "mean-all", -1
OLDER_CONCEPTS, OLDER_SAMPLES = 200, 20
"""The older protocol is captured for at most so many concepts, with at most so many prompts each: its templates
were 20."""


def converge(path: Path, progress: Progress, device: str = "auto", older: bool = True) -> dict[str, Any]:
    """Measure a run's convergence, write convergence.json into it, return its content.

    An unfinished run is measured on what it has committed. Without `older` no model is loaded. The same run
    gives the same figures. Raises UsageError (or a kind of it) if the older protocol needs concepts or weights
    that are no longer those of the run, DamagedError for damaged samples.
    """
    with open_run(path) as book:
        samples, seed = sample_set(book.source, book.layers), int(book.record["config"]["seed"])
        progress.stage(f"Comparing halves of {int(samples.named.sum()):,} samples")
        found: dict[str, Any] = {
            "run_id": book.record["run_id"],
            "seed": seed,
            "splits": SPLITS,
            "pooling": book.record["config"]["pooling"],
            "finished": book.finished,
            "concepts": len(book),
            "samples": int(samples.named.sum()),
            **measure(samples, len(book), seed),
            "older": None,
        }
        if older and found["layers"] is not None:
            found["older"] = older_protocol(book, samples, progress, device)
    files.write_json(path / FILE, found)
    return found


def measure(samples: SampleSet, concepts: int, seed: int) -> dict[str, Any]:
    """Return the table and the curve of these samples, {"layers": …, "curve": …}: see the module."""
    if not samples.named.any():
        return {"layers": None, "curve": None}
    signatures, contexts = estimate(samples, concepts)
    halves = half_splits(samples, signatures, contexts, seed)
    return {
        "layers": convergence_table(halves, samples.layers),
        "curve": curve(samples, signatures, contexts, seed),
    }


def curve(
    samples: SampleSet, signatures: Signatures, contexts: Contexts, seed: int
) -> dict[str, dict[str, Any]] | None:
    """Return the figures over the number of samples a concept, by layer; None where no two concepts have any."""
    points = []
    for take, chosen in _points(signatures.count):
        halves = half_splits(samples, signatures, contexts, seed, take=take, among=chosen)
        if halves is not None:
            points.append((take, halves))
    if not points:
        return None
    found = {}
    for index, layer in enumerate(samples.layers):
        row: dict[str, Any] = {
            "samples": [take for take, _ in points],
            "concepts": [len(halves.concepts) for _, halves in points],
        }
        for name in ("raw", "centred", "adjusted", "cosine", "null"):
            row[name] = [float(getattr(halves, name)[:, index].mean()) for _, halves in points]
        row["exponent"] = _slope(row["samples"], row["adjusted"])
        found[str(layer)] = row
    return found


def older_protocol(
    book: Encyclopedia, samples: SampleSet, progress: Progress, device: str
) -> dict[str, Any] | None:
    """Capture the run's own prompts as the older work did and compare; None where no two concepts have enough."""
    seed = int(book.record["config"]["seed"])
    rows = older_rows(samples, book.concepts, seed)
    if len(rows) == 0:
        return None
    prompts, owners = _prompts(book, rows), samples.concept[rows]
    config = {**book.record["config"], "pooling": OLDER_POOLING, "layers": [OLDER_LAYER]}
    session = reopen(book.path, {**book.record, "config": config}, progress, device)
    prompts = [
        dataclasses.replace(p, concept=session.concepts[c].id) for p, c in zip(prompts, owners, strict=True)
    ]
    store = pipeline.open_store(session, book.path)
    there = ladder.capture(session, book.path, store, prompts, f"as {OLDER_POOLING} at layer {OLDER_LAYER}")
    here = dataclasses.replace(
        samples,
        concept=owners,
        named=samples.named[rows],
        family=samples.family[rows],
        split=samples.split[rows],
        fetch=lambda some: samples.read(rows[some]),
    )
    figures = measure_table(there, len(book), seed)
    return {
        "pooling": OLDER_POOLING,
        "layer": OLDER_LAYER,
        "concepts": len(np.unique(owners)),
        "samples": len(rows),
        "most": OLDER_SAMPLES,
        "figures": figures[str(OLDER_LAYER)] if figures else None,
        "here": measure_table(here, len(book), seed),
    }


def measure_table(samples: SampleSet, concepts: int, seed: int) -> dict[str, dict[str, float]] | None:
    """Return the table alone."""
    signatures, contexts = estimate(samples, concepts)
    return convergence_table(half_splits(samples, signatures, contexts, seed), samples.layers)


def older_rows(samples: SampleSet, names: Sequence[str], seed: int) -> NDArray[np.int64]:
    """Return the rows to capture anew, rising: named samples of up to 200 concepts, drawn by the seed."""
    rows = np.flatnonzero(samples.named)
    count = np.bincount(samples.concept[rows], minlength=len(names))
    enough = np.flatnonzero(count >= FEWEST).tolist()
    if len(enough) < 2:
        return np.empty(0, np.int64)
    drawn = sorted(enough, key=lambda c: (derive_seed(seed, "older", names[c]), c))[:OLDER_CONCEPTS]
    chosen = []
    for concept in drawn:
        own = rows[samples.concept[rows] == concept]
        generator = np.random.default_rng(derive_seed(seed, "older prompts", names[concept]))
        chosen.append(generator.permutation(own)[:OLDER_SAMPLES])
    return np.sort(np.concatenate(chosen))


def _prompts(book: Encyclopedia, rows: NDArray[np.int64]) -> list[Prompt]:
    """Return the prompts of these rows; each is still to be given its concept's id."""
    part = book.source.samples(rows)
    spans = [(int(a), int(b)) for a, b in part.span]
    return [Prompt("", t, s, f) for t, s, f in zip(part.prompt, spans, part.family, strict=True)]


def _points(count: NDArray[np.int32]) -> list[tuple[int, NDArray[np.int64]]]:
    """Return (samples, concepts to compare) of each of the curve's points; the last is of a twentieth of them."""
    enough = count[count >= FEWEST]
    if len(enough) < 2:
        return []
    panel = 2 ** int(np.log2(np.median(enough)))
    points, take = [], 2
    fewest = max(2, len(enough) // 20)
    while (chosen := np.flatnonzero(count >= max(take, panel))).size >= fewest:
        points.append((take, chosen))
        take *= 2
    return points


def _slope(samples: list[int], figures: list[float]) -> float | None:
    """Return the least-squares slope of log(figure) over log(samples); None for fewer than two points."""
    if len(samples) < 2 or min(figures) <= 0:
        return None
    return float(np.polyfit(np.log(samples), np.log(figures), 1)[0])
