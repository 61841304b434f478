"""A finished run without a model: random samples of a few concepts, stored, sealed, with all that a run leaves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from encyclo import half_precision
from encyclo.config import RunConfig
from encyclo.plugins.manager import Plugins
from encyclo.runs.concept_lists import load_concepts
from encyclo.runs.directory import claimed, read_record
from encyclo.runs.interpreter_folder import save_interpreter
from encyclo.runs.metrics import Metrics, write_metrics
from encyclo.runs.session import concepts_hash
from encyclo.schema import NO_SPAN, Attributes, Book, ConceptTable, Part, Schema, SignatureTable
from encyclo.statistics.signatures import estimate_signatures
from encyclo.storage import checksums, files, run_files
from encyclo.storage.finalise import finalise
from encyclo.storage.ledger import Unit
from encyclo.storage.sample_rows import CommittedRows, fetch
from encyclo.types import SampleSet

LAYERS, HIDDEN, CONCEPTS = (-2, -1), 16, 30
CREATED = "2025-01-01T00:00:00+00:00"


def make_part(rows: int, seed: int, stage: int = 1, prompt: str = "A dog sleeps") -> Part:
    generator = np.random.default_rng(seed)
    values = 1e5 * generator.normal(size=(rows, len(LAYERS), HIDDEN)).astype(np.float32)
    activations, scale = half_precision.encode(values)
    return Part(
        activations=activations,
        scale=scale,
        concept=generator.permutation(np.arange(rows) % CONCEPTS).astype(np.int32),
        stage=np.full(rows, stage, np.int8),
        family=[f"family.{i % 4}" for i in range(rows)],
        prompt=[f"{prompt} {seed} {i}" for i in range(rows)],
        span=np.array([(2, 5), (0, 1), NO_SPAN] * rows, np.int32).reshape(-1, 2)[:rows],
    )


def parts() -> list[Part]:
    return [make_part(301, 0), make_part(60, 1, stage=2), make_part(240, 2, stage=2)]


def sample_set(source) -> SampleSet:
    columns = source.columns
    families, family = np.unique(columns.family, return_inverse=True)
    splits = np.zeros(len(columns), np.int8)
    return SampleSet(
        columns.concept, columns.span[:, 0] >= 0, family.astype(np.int32), tuple(families), splits,
        LAYERS, lambda rows: fetch(source, rows),
    )  # fmt: skip


def make_run(out: Path, store: str, finish: bool = True) -> Path:
    """Write the run; the same for the same store."""
    config = {"store": store, "layers": list(LAYERS), "concepts": "core", "limit": CONCEPTS, "seed": 0}
    config |= {"interpreter": "centroid", "model": "tiny", "options": {}, "budget": None}
    config["targets"] = list(RunConfig().targets)
    plugins = Plugins()
    listed = load_concepts(RunConfig(limit=CONCEPTS), plugins, {"core": plugins.options("core", {})})
    config |= {"pooling": "span", "concepts_sha256": concepts_hash(listed)}
    with claimed(out, config, {"plugins": {store: "encyclo 0.1.0"}}) as directory:
        made = Plugins().call("store_activations", store, location=out, schema=Schema(LAYERS, (3, 4), HIDDEN))
        commits = [
            directory.ledger.store(made, Unit(f"unit{i}", int(part.stage[0]), (i,)), part, 0.5, 10, 8)
            for i, part in enumerate(parts())
        ]
        if not finish:
            return out
        source = CommittedRows(made, directory.ledger, commits)
        found = estimate_signatures(sample_set(source), CONCEPTS)
        finalise(made, out, commits, make_book(directory.record, source.columns.concept, found))
        save_interpreter(plugins, "centroid", BytesInterpreter(), out / "interpreter")
        run_files.write_text(out, "report.html", "<p>report</p>")
        write_metrics(out, Metrics())
    return out


class BytesInterpreter:
    """Saves a file as an interpreter does."""

    def save(self, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"weights")


def seal_as_it_is(run: Path) -> None:
    """List in the run's seal the files that are there, whatever was done to them."""
    run_files.seal_as_it_is(run, read_record(run)["run_id"])


def make_first_version(run: Path) -> None:
    """Make the run what encyclo's first version left: neither its files nor its model's identity are recorded."""
    record = {key: value for key, value in read_sealed(run, "run.json").items()}
    record["config"].pop("model_sha256", None)
    files.write_json(run / "run.json", checksums.sealed(record))
    if (run / "seal.json").exists():
        seal = read_sealed(run, "seal.json")
        kept = {key: value for key, value in seal.items() if key not in ("run", "run_files")}
        files.write_json(run / "seal.json", checksums.sealed(kept))


def read_sealed(run: Path, name: str) -> dict:
    return checksums.unsealed(json.loads((run / name).read_text()))


def make_book(record, owners, signatures) -> Book:
    names = [f"name {i}" for i in range(CONCEPTS)]
    confidence = np.linspace(0.2, 0.8, CONCEPTS).astype(np.float32)
    table = ConceptTable(
        id=[f"c{i}" for i in range(CONCEPTS)],
        name=names,
        definition=[""] * CONCEPTS,
        category=["größe"] * CONCEPTS,
        stage=np.full(CONCEPTS, 2, np.int32),
        n_samples=np.bincount(owners, minlength=CONCEPTS).astype(np.int32),
        confidence=confidence,
        confidence_low=confidence - np.float32(0.1),
        confidence_high=confidence + np.float32(0.1),
        converged=np.ones(CONCEPTS, bool),
        settled=np.zeros(CONCEPTS, bool),
    )
    attributes = Attributes(
        "tiny", "ab" * 32, LAYERS, (3, 4), "span", HIDDEN, 2, record["run_id"], CREATED, "0.1.0",
        json.dumps(record["config"], sort_keys=True),
    )  # fmt: skip
    return Book(attributes, table, SignatureTable(signatures.mean, signatures.variance, signatures.count))
