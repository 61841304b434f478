"""Compare executors: the units of the same run, 10,000 prompts by default, with one worker, and with several as
processes, on Ray, and as jobs of submitit on this machine.

    python benchmarks/executors.py --workers 2

Each is a command in a process of its own, which is ended when its last unit is committed. They take turns, each
`--times` times, and no further command begins if it might end after `--minutes`. Seconds are those from the first unit
to the last commit, the start of the workers and of Ray included. Processor seconds are those of the command and of all
processes that it started, from its start, sampled twice a second: where a machine is busy with other work, compare
these. At the end it says what each costs more than as many processes (`local`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import psutil

from encyclo.storage.ledger import Ledger


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--concepts", type=int, default=1000)
    parser.add_argument("--model", default="gemma-3-270m")
    parser.add_argument("--layers", default="-12,-9,-6,-3,-1")
    parser.add_argument("--only", nargs="+", choices=["one", "local", "ray", "slurm"])
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=10)
    arguments = parser.parse_args()
    number = arguments.workers
    methods = {
        "one": [],
        "local": ["-o", f"local.workers={number}"],
        "ray": ["--executor", "ray", "-o", f"ray.workers={number}"],
        "slurm": ["--executor", "slurm", "-o", "slurm.cluster=local", "-o", f"slurm.workers={number}"],
    }
    chosen = {name: flags for name, flags in methods.items() if name in (arguments.only or methods)}
    found: dict[str, list[Measured]] = {name: [] for name in chosen}
    begun, longest = time.monotonic(), 0.0
    for name in list(chosen) * arguments.times:
        started = time.monotonic()
        if started - begun + longest > 60 * arguments.minutes:
            print(f"{name}: left out, to end within {arguments.minutes:g} minutes")
            continue
        with tempfile.TemporaryDirectory() as folder:
            found[name].append(measure(name, Path(folder) / "run", chosen[name], arguments))
        longest = max(longest, time.monotonic() - started)
    compare(found)


class Measured(NamedTuple):
    """One command's figures."""

    seconds: float
    processor_seconds: float
    manifest: str


def measure(name: str, out: Path, flags: list[str], arguments: argparse.Namespace) -> Measured:
    """Run one command, print its figures."""
    command = [
        sys.executable, "-m", "encyclo", "run", "--sampler", "templates", "--limit",
        str(arguments.concepts), "--model", arguments.model, "--interpreter", "centroid",
        f"--layers={arguments.layers}", "--out", str(out), *flags,
    ]  # fmt: skip
    used: dict[psutil.Process, float] = {}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    ready = threading.Event()
    said: list[str] = []
    threading.Thread(target=listen, args=(process, said, ready), daemon=True).start()
    while not ready.wait(0.5):
        record(process.pid, used)
        if process.poll() is not None:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {''.join(said)}")
    record(process.pid, used)
    planned = (out / "rounds" / "0" / "plan.json").stat().st_mtime
    committed = max(path.stat().st_mtime for path in (out / "commits").iterdir())
    commits = Ledger(out).commits()
    process.terminate()
    process.wait()
    _, left = psutil.wait_procs(list(used), timeout=30)  # its workers end as well
    found = Measured(
        committed - planned,
        sum(used.values()),
        json.dumps(sorted((unit, commit.checksum) for unit, commit in commits.items())),
    )
    print(
        f"{name:6} {sum(commit.rows for commit in commits.values()):,} prompts in {len(commits)} units: "
        f"{found.seconds:.1f} s, {found.processor_seconds:.1f} processor seconds"
        + (f"; {len(left)} of its processes still run" if left else ""),
        flush=True,
    )
    return found


def compare(found: dict[str, list[Measured]]) -> None:
    """Print what each method costs more than `local`, on average of its turns, and whether all did the same."""
    means = {
        name: (mean(turn.seconds for turn in turns), mean(turn.processor_seconds for turn in turns))
        for name, turns in found.items()
        if turns
    }
    for name in [name for name in ("ray", "slurm") if {name, "local"} <= means.keys()]:
        seconds, processor = (own / local - 1 for own, local in zip(means[name], means["local"], strict=True))
        print(f"{name:6} against local: {seconds:+.0%} seconds, {processor:+.0%} processor seconds")
    manifests = {turn.manifest for turns in found.values() for turn in turns}
    print("manifests are", "equal" if len(manifests) == 1 else "NOT equal")


def listen(process: subprocess.Popen[str], said: list[str], ready: threading.Event) -> None:
    """Read what the command says until it trains: then all units are committed."""
    assert process.stderr is not None
    for line in process.stderr:
        said.append(line)
        if line.startswith("Training"):
            ready.set()
            return


def record(command: int, used: dict[psutil.Process, float]) -> None:
    """Note the processor time of a process and of all that it started."""
    try:
        process = psutil.Process(command)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            times = member.cpu_times()
            used[member] = times.user + times.system
        except psutil.NoSuchProcess:
            continue


if __name__ == "__main__":
    main()
