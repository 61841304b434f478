"""Parallel batches on a CPU: each has a thread, a share of the cores and a replica of the network.

Two batches on one core each take two thirds of the time of two successive batches on both cores (gemma-3-270m in
bfloat16): many of a network's operations are too short to split among cores.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

MAX_WORKERS = 8
"""More threads would wait for Python's global interpreter lock."""

T = TypeVar("T")


def worker_count(device: str) -> int:
    """Return the number of batches to compute in parallel."""
    return min(MAX_WORKERS, torch.get_num_threads()) if device == "cpu" else 1


class Replicas:
    """Copies of a network that share its weights; each can have its own hooks and attention function."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._idle: deque[nn.Module] = deque()

    def run(self, jobs: Sequence[Callable[[Any], T]], workers: int) -> Iterator[T]:
        """Run each job with exclusive use of a network; yield the results in the jobs' order.

        At most `workers` jobs run in parallel. A single worker uses the network itself; several use a replica each.
        """
        if min(workers, len(jobs)) <= 1:
            yield from run_jobs(jobs, [self._network])
            return
        taken = [self._take() for _ in range(min(workers, len(jobs)))]
        try:
            yield from run_jobs(jobs, taken)
        finally:
            self._idle.extend(taken)

    def _take(self) -> nn.Module:
        try:
            return self._idle.pop()
        except IndexError:
            return replica_of(self._network)


def replica_of(network: nn.Module) -> nn.Module:
    """Return a copy of the network's modules and configuration over the same tensors."""
    shared: dict[int, Any] = {}
    for module in network.modules():
        # Quantised layers keep tensors in an object of their own, such as bitsandbytes' MatmulLtState.
        states = [vars(value) for value in module.__dict__.values() if hasattr(value, "__dict__")]
        for values in (module.__dict__, module._parameters, module._buffers, *states):
            shared |= {id(value): value for value in values.values() if isinstance(value, Tensor)}
    return copy.deepcopy(network, shared)


def run_jobs(jobs: Sequence[Callable[[Any], T]], networks: Sequence[nn.Module]) -> Iterator[T]:
    """Run each job with one of `networks`, one thread per network; yield the results in the jobs' order.

    With one network, each job runs in the caller's thread when its result is requested.
    """
    if len(networks) == 1:
        yield from (job(networks[0]) for job in jobs)
        return
    threads = torch.get_num_threads()
    free: SimpleQueue[nn.Module] = SimpleQueue()
    for network in networks:
        free.put(network)

    def work(job: Callable[[Any], T]) -> T:
        network = free.get()
        try:
            return job(network)
        finally:
            free.put(network)

    workers = len(networks)
    share = max(1, threads // workers)
    pool = ThreadPoolExecutor(workers, "capture", initializer=torch.set_num_threads, initargs=(share,))
    waiting: deque[Future[T]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(work, job))
            if len(waiting) > workers + 1:  # waiting results take memory
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # a thread's setting applies to every thread that starts later
