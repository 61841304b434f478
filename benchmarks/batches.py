"""How fast a capture of texts feeds a training loop, beside plain reads of the same bytes in the same run.

    python benchmarks/batches.py [--gb 1] [--layers 1,5] [--hidden 640] [--store hdf5,zarr] [--json FILE]

It writes captures of random numbers with the stores' own writers, then reads each several times in turn:

    batches   `encyclo.open(DIR).batches(4096, seed)`: shuffled, compared with checksums, float32, as torch tensors
    h5py      h5py alone (hdf5 only): every part's float16 in order, not shuffled, not compared, not converted
    memmap    numpy.memmap over the same bytes of the same files: copied in order, as above

A figure is the best of the rounds, in MB (10^6 bytes) a second: of the files' float16, and for batches also of the
float32 that the loop gets. Each is given by the clock and by the process's own time (CPU), which other work on the
machine hardly changes. The files are in the page cache, so that the disk doesn't count.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import encyclo
from encyclo import half_precision
from encyclo.corpus.blocks import rows_of_part
from encyclo.corpus.directory import Manifest, claimed, write_manifest
from encyclo.corpus.job import schema_of, token_store
from encyclo.plugins.manager import Plugins
from encyclo.storage.ledger import Ledger, Unit
from encyclo.token_parts import TokenPart

ROUNDS = 3
BATCH = 4096


def write(out: Path, store: str, layers: int, hidden: int, size: float) -> None:
    config: dict[str, Any] = {
        "model": "none", "store": store, "layers": list(range(layers)), "layer_index": list(range(layers)),
        "hidden_size": hidden,
    }  # fmt: skip
    rows, generator, commits = rows_of_part(layers, hidden), np.random.default_rng(0), []
    schema = schema_of(config)
    with claimed(out, config, []):
        writer = token_store(Plugins(), store, out, schema)
        for number in range(max(1, round(size / (rows * layers * hidden * 2)))):
            halves, scale = half_precision.encode(
                generator.standard_normal((rows, layers, hidden), np.float32) * 30
            )
            places = np.arange(rows, dtype=np.int32)
            part = TokenPart(
                scale=scale, text=np.zeros(rows, np.int32), position=places, token=places,
                span=np.stack([places, places + 1], axis=1), number=np.array([number]), file=["a.txt"],
                line=np.array([number + 1]), start=np.array([0]), content=["a" * rows], activations=halves,
            )  # fmt: skip
            commits.append(Ledger(out).store(writer, Unit(f"{number:08d}", 0, ()), part, 0.0, rows, rows))
        write_manifest(out, Manifest(len(commits), 0, tuple((c.unit, c.rows, c.checksum) for c in commits)))


def batches(out: Path, seed: int) -> int:
    total = 0
    with encyclo.open(out) as capture:
        for batch in capture.batches(BATCH, seed):
            total += torch.from_numpy(batch.activations).shape[0]
        assert total == len(capture)
        return int(np.prod(capture.shape)) * 2


def plain_h5py(out: Path, _: int) -> int:
    import h5py

    total = 0
    for path in sorted((out / "parts").iterdir()):
        with h5py.File(path) as file:
            total += file["tokens/activations"][...].nbytes
    return total


def memmap(out: Path, _: int) -> int:
    total = 0
    for commit in Ledger(out).ordered():
        for name, described in commit.files.items():
            for start, length in described["bulk"]:
                mapped = np.memmap(out / "parts" / name, "<f2", "r", start, (length // 2,))
                total += np.array(mapped).nbytes
    return total


def measure(out: Path, ways: dict[str, Callable[[Path, int], int]]) -> dict[str, dict[str, float]]:
    best = {name: {"clock": 0.0, "cpu": 0.0} for name in ways}
    clocks = {"clock": time.perf_counter, "cpu": time.process_time}
    for way in ways.values():  # into the page cache
        way(out, 0)
    for number in range(ROUNDS):
        for name, way in ways.items():
            begun = {kind: now() for kind, now in clocks.items()}
            size = way(out, number)
            for kind, now in clocks.items():
                best[name][kind] = max(best[name][kind], size / 1e6 / (now() - begun[kind]))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gb", type=float, default=1.0)
    parser.add_argument("--layers", default="1,5")
    parser.add_argument("--hidden", type=int, default=640)
    parser.add_argument("--store", default="hdf5,zarr")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = []
    print(f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    for store in given.store.split(","):
        for layers in map(int, given.layers.split(",")):
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "capture"
                write(out, store, layers, given.hidden, given.gb * 1e9)
                ways = {"batches": batches, "memmap": memmap}
                if store == "hdf5":
                    ways["h5py"] = plain_h5py
                rates = measure(out, ways)
            found.append({"store": store, "layers": layers, "hidden": given.hidden, **rates})
            print(f"{store}, {layers} layer(s), {given.hidden} wide")
            for name, rate in rates.items():
                twice = f" ({2 * rate['clock']:,.0f} of float32, CPU {2 * rate['cpu']:,.0f})" * (
                    name == "batches"
                )
                share = rates["batches"]["cpu"] / rate["cpu"]
                print(
                    f"  {name:<8} {rate['clock']:>6,.0f} MB/s, CPU {rate['cpu']:>6,.0f}{twice}; "
                    f"batches / {name} = {share:.2f} by CPU"
                )
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
