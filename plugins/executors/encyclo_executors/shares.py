"""What each worker gets of a machine: one of its GPUs, or a share of its cores."""

from __future__ import annotations

import os
from collections.abc import Sequence

from encyclo.executors import Workers

FEWEST_THREADS = 8
"""Capture batches prompts for up to this many threads, so with more a worker's batches, and their last bits, are those
of a single process."""


def threads(workers: int = 1, share: int | None = None) -> int:
    """Return the threads of a worker that has `share` cores, or is one of `workers` on this machine."""
    import torch

    alone = torch.get_num_threads()
    return min(alone, max(FEWEST_THREADS, share or alone // workers))


def cores() -> int:
    """Return the cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def environments(workers: int, device: str) -> list[dict[str, str]]:
    """Return what each worker's environment has in addition; on a GPU, workers take the visible ones in turn."""
    shared = {"OMP_NUM_THREADS": str(threads(workers))}
    if not device.startswith("cuda"):
        return [shared] * workers
    gpus = visible_gpus()
    return [shared | {"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]} for place in range(workers)]


def workers_here(workers: int, device: str) -> Workers:
    """Return what `encyclo plan` says of workers on this machine: on a CPU they share what one alone uses, too."""
    return Workers(workers, min(workers, len(visible_gpus())) if device.startswith("cuda") else 1)


def visible_gpus() -> list[str]:
    """Return the names, for CUDA_VISIBLE_DEVICES, of the GPUs that this process sees."""
    import torch

    if named := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return named.split(",")
    return [str(number) for number in range(torch.cuda.device_count())]


def cores_each(workers: int, machines: Sequence[float]) -> int:
    """Return the most cores that each of `workers` can have on machines with these numbers of cores; 0 if none."""
    most = int(max(machines, default=0))
    return next((n for n in range(most, 0, -1) if sum(m // n for m in machines) >= workers), 0)
