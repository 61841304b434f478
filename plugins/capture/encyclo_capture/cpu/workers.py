"""Batches side by side on a CPU: a thread each, with a share of the cores and a network of its own.

Two batches on a core each are computed in two thirds of the time that they take one after the other on both
cores (gemma-3-270m in bfloat16): many of a network's operations are too short to be worth sharing out.
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
"""More threads than this would wait for the interpreter's lock."""

T = TypeVar("T")


def worker_count(device: str) -> int:
    """Return how many batches to compute at once."""
    return min(MAX_WORKERS, torch.get_num_threads()) if device == "cpu" else 1


class Replicas:
    """Copies of a network that share its weights: each may have hooks and a way of attention of its own."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._idle: deque[nn.Module] = deque()

    def run(self, jobs: Sequence[Callable[[Any], T]], workers: int) -> Iterator[T]:
        """Hand each job a network that nobody else uses; yield what they return, in the jobs' order.

        Up to `workers` jobs run at once. One worker gets the network itself, several get a replica each.
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
        for held in (module.__dict__, module._parameters, module._buffers):
            shared |= {id(value): value for value in held.values() if isinstance(value, Tensor)}
    return copy.deepcopy(network, shared)


def run_jobs(jobs: Sequence[Callable[[Any], T]], networks: Sequence[nn.Module]) -> Iterator[T]:
    """Run each job with one of `networks`, a thread a network; yield what the jobs return, in their order.

    With one network the jobs run in the caller's thread, each when its result is asked for.
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
            if len(waiting) > workers + 1:  # results that wait take memory
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # what a thread sets holds for every thread that begins later
