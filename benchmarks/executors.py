"""Compare executors: the units of the same run, 10,000 prompts by default, with one worker, and with several as
processes, on Ray, and as jobs of submitit on this machine.

    python benchmarks/executors.py --workers 2

Each is a command in a process of its own, which is ended when its last unit is committed. Seconds are those from the
first unit to the last commit, the start of the workers and of Ray included. Processor seconds are those of the command
and of all processes that it started, from its start, sampled twice a second: where a machine is busy with other work,
compare these.
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
    arguments = parser.parse_args()
    number = arguments.workers
    methods = {
        "one": [],
        "local": ["-o", f"local.workers={number}"],
        "ray": ["--executor", "ray", "-o", f"ray.workers={number}"],
        "slurm": ["--executor", "slurm", "-o", "slurm.cluster=local", "-o", f"slurm.workers={number}"],
    }
    manifests = {}
    for name, flags in methods.items():
        if not arguments.only or name in arguments.only:
            with tempfile.TemporaryDirectory() as folder:
                manifests[name] = measure(name, Path(folder) / "run", flags, arguments)
    print("manifests are", "equal" if len(set(manifests.values())) == 1 else "NOT equal")


def measure(name: str, out: Path, flags: list[str], arguments: argparse.Namespace) -> str:
    """Run one command, print its figures, return its manifest."""
    command = [
        sys.executable, "-m", "encyclo", "run", "--sampler", "templates", "--limit",
        str(arguments.concepts), "--model", arguments.model, "--interpreter", "centroid",
        f"--layers={arguments.layers}", "--out", str(out), *flags,
    ]  # fmt: skip
    used: dict[tuple[int, float], float] = {}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    ready = threading.Event()
    threading.Thread(target=listen, args=(process, ready), daemon=True).start()
    while not ready.wait(0.5):
        record(psutil.Process(process.pid), used)
        if process.poll():
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    planned = (out / "rounds" / "0" / "plan.json").stat().st_mtime
    committed = max(path.stat().st_mtime for path in (out / "commits").iterdir())
    commits = Ledger(out).commits()
    process.terminate()
    process.wait()
    time.sleep(5)  # its workers end as well
    print(
        f"{name:6} {sum(commit.rows for commit in commits.values()):,} prompts in {len(commits)} units: "
        f"{committed - planned:.1f} s, {sum(used.values()):.1f} processor seconds",
        flush=True,
    )
    return json.dumps(sorted((unit, commit.checksum) for unit, commit in commits.items()))


def listen(process: subprocess.Popen[str], ready: threading.Event) -> None:
    """Read what the command says until it trains: then all units are committed."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Training"):
            ready.set()
            return


def record(process: psutil.Process, used: dict[tuple[int, float], float]) -> None:
    """Note the processor time of a process and of all that it started."""
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            times = member.cpu_times()
            used[member.pid, member.create_time()] = times.user + times.system
        except psutil.NoSuchProcess:
            continue


if __name__ == "__main__":
    main()
