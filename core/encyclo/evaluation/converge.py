"""`encyclo converge`: measure how far a run's signatures have converged, if asked also by the older protocol.

converge ── table_and_curve     the table by layer, and the curve, from the run's own samples: no model
         ├─ older_protocol      the same prompts captured again with the pooling mean-all at layer -1
         ├─ earlier             or what an earlier call found by it, if the samples are the same
         └─ convergence.json    written into the run, replaced atomically

convergence.json (null where nothing could be measured):

    run_id, seed, splits, pooling, finished, concepts, samples   what was measured: samples that name their concept, and
                                                                 the number of concepts that have any
    layers   {layer: {raw_rel_diff, centred_rel_diff, adjusted_rel_diff, cosine, null_cosine, within_5pct_raw,
             within_5pct_centred, samples_to_5pct_median, samples_to_95pct_raw, samples_to_10pct_centred,
             samples_to_10pct_adjusted, concepts}}, as metrics.json's `convergence` (see statistics/convergence.py)
    curve    {layer: {samples: [2, 4, 8, …], concepts: […], raw: […], centred: […], adjusted: […], cosine: […],
             null: […], exponent}}: the same figures with fewer samples per concept, drawn again for each split.
             `exponent` is the slope of log(adjusted) over log(samples), -0.5 for independent samples. `concepts`
             is the number of concepts at each point: the same ones up to the largest number of samples that half
             of the concepts have; beyond it, those that have enough.
    older    {pooling, layer, concepts, samples, most, figures, here}: a row of `layers` by the older protocol, and
             `here`, {layer: row}, by this run's pooling for the same prompts (at most `most` per concept); null
             unless --older was given
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from encyclo.config import RunConfig
from encyclo.errors import DamagedError
from encyclo.pipeline.natural_sentences import capture_rung
from encyclo.pipeline.train import chosen_rows
from encyclo.query.encyclopedia import Encyclopedia, open_run
from encyclo.runs.reopen import reopen_run
from encyclo.seeds import derive_seed
from encyclo.statistics.convergence import FEWEST, SPLITS, measure, table_and_curve
from encyclo.statistics.figures import Figures, LayerConvergence, LayerCurve
from encyclo.statistics.signatures import estimate
from encyclo.storage import checksums, run_files, safe_read
from encyclo.storage.ledger import locked
from encyclo.storage.run_location import in_working_copy
from encyclo.storage.sample_rows import sample_set
from encyclo.types import Progress, Prompt, SampleSet

FILE = "convergence.json"
AS_THEY_ARE = {
    key: RunConfig.model_fields[key].default for key in ("echo", "chat", "chat_role", "chat_system", "site")
}
OLDER_POOLING, OLDER_LAYER = "mean-all", -1
OLDER_CONCEPTS, OLDER_SAMPLES = 200, 20
"""The most concepts that are captured for the older protocol, and the most prompts of each. The experiment that
preceded encyclo had 20 templates."""


class OlderProtocol(Figures):
    """A row of the table by the older protocol, and `here`, by this run's pooling for the same prompts."""

    pooling: str
    layer: int
    concepts: int
    samples: int
    most: int
    figures: LayerConvergence | None
    here: dict[str, LayerConvergence] | None


class Convergence(Figures):
    """The content of convergence.json: see the module."""

    run_id: str
    seed: int
    splits: int
    pooling: str
    finished: bool
    concepts: int
    samples: int
    layers: dict[str, LayerConvergence] | None
    curve: dict[str, LayerCurve] | None
    older: OlderProtocol | None


@in_working_copy()
def converge(path: Path, progress: Progress, device: str = "auto", older: bool = False) -> Convergence:
    """Measure a run's convergence, write convergence.json, return its content.

    An unfinished run is measured on its committed samples. Without `older`, no model is loaded, and what an earlier
    call found by the older protocol stays while the samples are the same. The same run gives the same figures.
    Raises UsageError (or a subclass) if the older protocol needs concepts or weights that have changed since the run
    or if the run is in use, DamagedError for damaged samples.
    """
    with open_run(path) as book:
        samples, seed = sample_set(book.source, book.layers), int(book.record["config"]["seed"])
        named = int(samples.named.sum())
        progress.stage(f"Comparing halves of {named:,} samples")
        layers, curve = measure_by_layer(samples, len(book), seed)
        found = Convergence(
            run_id=book.record["run_id"],
            seed=seed,
            splits=SPLITS,
            pooling=book.record["config"]["pooling"],
            finished=book.finished,
            concepts=len(np.unique(samples.concept[samples.named])),
            samples=named,
            layers=layers,
            curve=curve,
            older=older_protocol(book, samples, progress, device) if older and layers else None,
        )
        if not older:
            found = found.model_copy(update={"older": earlier(path, found)})
    # An unfinished run may go on meanwhile; only a seal needs the lock.
    with locked(path) if (path / checksums.SEAL).exists() else nullcontext():
        run_files.write_json(path, FILE, found.as_json())
        run_files.settle(path)
    return found


def measure_by_layer(
    samples: SampleSet, concepts: int, seed: int
) -> tuple[dict[str, LayerConvergence] | None, dict[str, LayerCurve] | None]:
    """Return the table and the curve of these samples by layer; None if nothing can be measured."""
    if not samples.named.any():
        return None, None
    signatures, contexts = estimate(samples, concepts)
    return table_and_curve(samples, signatures, contexts, seed)


def earlier(path: Path, now: Convergence) -> OlderProtocol | None:
    """Return what convergence.json has by the older protocol, if it is about the samples that `now` is about."""
    if not (path / FILE).exists():
        return None
    advice = "run `encyclo converge` to write it again"
    try:
        content = run_files.read_json(path, FILE, at_most=safe_read.METRICS_JSON, advice=advice)
        before = Convergence.model_validate(content)
    except (DamagedError, ValidationError):
        return None  # this very command writes it again
    # A run only ever gets more samples, so their number says whether they are the same.
    same = all(getattr(before, key) == getattr(now, key) for key in ("run_id", "seed", "pooling", "samples"))
    return before.older if same else None


def older_protocol(
    book: Encyclopedia, samples: SampleSet, progress: Progress, device: str
) -> OlderProtocol | None:
    """Capture the run's prompts by the older protocol and compare; None if no two concepts have enough samples.

    The older protocol gives the model each text once and without a chat template, also in a run with --echo or --chat,
    and reads the residual stream.
    """
    seed = int(book.record["config"]["seed"])
    rows = older_rows(samples, book.concepts, seed)
    if len(rows) == 0:
        return None
    here = chosen_rows(samples, rows)
    config = {**book.record["config"], "pooling": OLDER_POOLING, "layers": [OLDER_LAYER], **AS_THEY_ARE}
    run = reopen_run(book.path, {**book.record, "config": config}, progress, device)
    ids = [run.session.concepts[concept].id for concept in here.concept]
    there = capture_rung(run, _prompts(book, rows, ids), f"as {OLDER_POOLING} at layer {OLDER_LAYER}")
    figures = measure(there, len(book), seed)
    return OlderProtocol(
        pooling=OLDER_POOLING,
        layer=OLDER_LAYER,
        concepts=len(np.unique(here.concept)),
        samples=len(rows),
        most=OLDER_SAMPLES,
        figures=figures[str(OLDER_LAYER)] if figures else None,
        here=measure(here, len(book), seed),
    )


def older_rows(samples: SampleSet, names: Sequence[str], seed: int) -> NDArray[np.int64]:
    """Return the rows to capture again, ascending: named samples of at most 200 concepts, drawn by the seed."""
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


def _prompts(book: Encyclopedia, rows: NDArray[np.int64], ids: Sequence[str]) -> list[Prompt]:
    """Return the prompts of these rows, with their concepts' ids."""
    part = book.source.samples(rows)
    spans = [(int(a), int(b)) for a, b in part.span]
    return [Prompt(i, t, s, f) for i, t, s, f in zip(ids, part.prompt, spans, part.family, strict=True)]
