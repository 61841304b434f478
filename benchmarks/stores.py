"""Both stores compared with raw h5py, zarr and plain files, in one run: ratios, since absolute times drift.

    python benchmarks/stores.py [--samples 20000] [--shuffle 20000] [--folder DIR] [--repeat 3] [--json]

`--shuffle 800000` reads 5 GB in training batches; memory is this process's peak (a process of its own).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr

from encyclo.pipeline.units import SAMPLES_PER_UNIT
from encyclo.plugins.manager import Plugins
from encyclo.schema import Attributes, Book, ConceptTable, Part, Schema, SignatureTable
from encyclo.storage import files
from encyclo.storage.finalise import finalise, open_finished
from encyclo.storage.ledger import Commit, Ledger, Unit
from encyclo.storage.sample_rows import CommittedRows, batches

LAYERS, HIDDEN, PER_CONCEPT = 5, 640, 10
SCHEMA = Schema((-12, -9, -6, -3, -1), (7, 10, 13, 16, 18), HIDDEN)
RAW_BYTES = LAYERS * HIDDEN * 2
STORES = ("hdf5", "zarr")


def make_part(rows: int, first: int) -> Part:
    generator = np.random.default_rng(first)
    bits = generator.integers(0, 0x7800, (rows, LAYERS, HIDDEN), np.uint16)
    return Part(
        activations=bits.view(np.float16),
        scale=np.ones((rows, LAYERS), np.float32),
        concept=((first + np.arange(rows)) // PER_CONCEPT).astype(np.int32),
        stage=np.ones(rows, np.int8),
        family=[f"noun.subject.{i % 20}" for i in range(rows)],
        prompt=[f"The old professor spent her life studying number {first + i}." for i in range(rows)],
        span=np.tile(np.array([42, 50], np.int32), (rows, 1)),
    )


def make_book(concepts: int) -> Book:
    names = [f"concept {i}" for i in range(concepts)]
    whole, some = np.zeros(concepts, np.int32), np.zeros(concepts, np.float32)
    values = np.ones((concepts, LAYERS, HIDDEN), np.float32)
    attributes = Attributes(
        "gemma", "0" * 64, SCHEMA.layers, SCHEMA.layer_index, "span", HIDDEN, 1, "run", "", "0", "{}"
    )
    false = np.zeros(concepts, bool)
    table = ConceptTable(names, names, names, names, whole, whole, some, some, some, false, false)
    return Book(attributes, table, SignatureTable(values, values, whole))


def store_in(folder: Path, name: str) -> Any:
    return Plugins().call("store_activations", name, location=folder, schema=SCHEMA)


def timed(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def raw_file(path: Path, part: Part) -> None:
    """The minimal durable write: bytes under a temporary name, fsync, rename, fsync of the folder."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(part.activations.data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    files.sync_folder(path.parent)


def commit_all(ledger: Ledger, store: Any, parts: list[Part]) -> list[Commit]:
    return [ledger.store(store, Unit(f"{i:032x}", 1, ()), part, 1.0, 10, 10) for i, part in enumerate(parts)]


def raw_layer(name: str, folder: Path, data: np.ndarray) -> Callable[[], Any]:
    """Return the reading of one layer from a plain file of the same library, with the same chunks."""
    if name == "hdf5":
        with h5py.File(folder / "raw.h5", "w") as file:
            file.create_dataset("a", data=data, chunks=(250, 1, HIDDEN))
        file = h5py.File(folder / "raw.h5", "r")
        return lambda: file["a"][:, 2]
    array = zarr.create_array(
        str(folder / "raw.zarr"), data=data, chunks=(250, 1, HIDDEN), shards=(2000, LAYERS, HIDDEN),
        compressors=None,
    )  # fmt: skip
    return lambda: array[:, 2]


def size_of(folder: Path) -> int:
    if folder.is_file():
        return folder.stat().st_size
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(name: str, samples: int, place: Path, repeat: int) -> dict[str, float]:
    parts = [make_part(SAMPLES_PER_UNIT, start) for start in range(0, samples, SAMPLES_PER_UNIT)]
    raw, book = len(parts) * SAMPLES_PER_UNIT * RAW_BYTES, make_book(samples // PER_CONCEPT)
    found: dict[str, list[float]] = {}

    def note(key: str, value: float) -> None:
        found.setdefault(key, []).append(value)

    for attempt in range(repeat):
        folder = place / f"{name}{attempt}"
        plain = folder / "plain"
        plain.mkdir(parents=True)
        plain_seconds = timed(lambda: [raw_file(plain / f"{i}.raw", p) for i, p in enumerate(parts)])  # noqa: B023
        shutil.rmtree(plain)
        ledger, store, commits = Ledger(folder), store_in(folder, name), []
        ledger.create()
        seconds = timed(lambda: commits.extend(commit_all(ledger, store, parts)))  # noqa: B023
        note("commit_mb_per_s", raw / seconds / 1e6)
        note("commit_to_raw_files", plain_seconds / seconds)
        note("part_bytes_to_raw", size_of(folder / "parts") / raw)
        seconds = timed(lambda: finalise(store, folder, commits, book))  # noqa: B023
        tables = size_of(folder / f"encyclopedia.{'h5' if name == 'hdf5' else name}")
        note("finalise_mb_per_s", tables / seconds / 1e6)
        # Samples alone: the signatures' bytes depend on how many samples a concept has.
        own = folder / "encyclopedia.zarr" / "samples"
        held = size_of(own) if own.exists() else tables - book.signatures.mean.nbytes * 2
        note("samples_bytes_to_raw", held / raw)
        note("open_ms", 1e3 * timed(lambda: open_finished(store, folder)[0].close()))  # noqa: B023
        reader, rows = open_finished(store, folder)
        every = np.arange(len(rows.columns))
        theirs = raw_layer(name, folder, np.concatenate([part.activations for part in parts]))
        for work in (theirs, lambda: reader.activations(every, [2])):  # noqa: B023
            work()  # once, so that both find their bytes in memory
        library = timed(theirs)
        note("layer_mb_per_s", raw / LAYERS / timed(lambda: reader.activations(every, [2])) / 1e6)  # noqa: B023
        note("layer_to_library", library / timed(lambda: reader.activations(every, [2])))  # noqa: B023
        note("layer_checked_to_library", library / timed(lambda: rows.halves(every, [2])))  # noqa: B023
        generator = np.random.default_rng(0)
        picks = generator.integers(0, samples // PER_CONCEPT, 200) * PER_CONCEPT
        times = [timed(lambda: rows.samples(np.arange(p, p + PER_CONCEPT))) for p in picks]  # noqa: B023
        note("concept_ms", 1e3 * statistics.median(times))
        reader.close()
        shutil.rmtree(folder)
    return {key: statistics.median(values) for key, values in found.items()}


def peak_mb() -> float:
    """Return this process's peak memory. On Linux ru_maxrss would count the parent's from before exec."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024


def shuffle(name: str, samples: int, place: Path) -> None:
    """Write a run of `samples`, then read it in training batches; print memory and rate (own process)."""
    folder = place / f"shuffle-{name}"
    folder.mkdir()
    ledger, store, commits = Ledger(folder), store_in(folder, name), []
    ledger.create()
    part = make_part(SAMPLES_PER_UNIT, 0)
    for number in range(samples // SAMPLES_PER_UNIT):
        own = dataclasses.replace(part, concept=part.concept + np.int32(number * 200))
        commits.append(ledger.store(store, Unit(f"{number:032x}", 1, ()), own, 1.0, 10, 10))
    begun, count = time.perf_counter(), 0
    for batch in batches(CommittedRows(store, ledger, commits), 256, seed=0):
        count += len(batch.rows)
    seconds = time.perf_counter() - begun
    peak = peak_mb()
    shutil.rmtree(folder)
    print(json.dumps({"shuffled_gb": count * RAW_BYTES / 1e9, "shuffle_mb_per_s": count * RAW_BYTES / seconds / 1e6,
                      "peak_rss_mb": peak}))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--shuffle", type=int, default=60_000, help="samples read in batches; 800000 is 5 GB")
    parser.add_argument("--folder", type=Path, help="where to write; the disk that is measured")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--shuffle-store", help=argparse.SUPPRESS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        if given.shuffle_store:
            shuffle(given.shuffle_store, given.shuffle, Path(folder))
            return
        results = {}
        for name in STORES:
            results[name] = measure(name, given.samples, Path(folder), given.repeat)
            command = [sys.executable, __file__, "--shuffle", str(given.shuffle), "--shuffle-store", name]
            command += ["--folder", folder]
            results[name] |= json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    if given.json:
        print(json.dumps(results))
        return
    print(f"{'':26}" + "".join(f"{name:>12}" for name in STORES))
    for key in results[STORES[0]]:
        print(f"{key:26}" + "".join(f"{results[name][key]:12.3f}" for name in STORES))


if __name__ == "__main__":
    main()
