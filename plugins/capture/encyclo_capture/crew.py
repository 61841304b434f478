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
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from encyclo_capture.model import TransformersModel

# More threads than this would wait for the interpreter's lock.
MOST = 8

T = TypeVar("T")


def crew_size(device: str) -> int:
    """Return how many batches to compute at once."""
    return min(MOST, torch.get_num_threads()) if device == "cpu" else 1


class Twins:
    """Copies of a network that share its weights: each may have hooks and a way of attention of its own."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._idle: deque[nn.Module] = deque()

    def take(self) -> nn.Module:
        """Return a copy that nobody else uses."""
        try:
            return self._idle.pop()
        except IndexError:
            return twin_of(self._network)

    def give_back(self, twin: nn.Module) -> None:
        """Let others use a copy that was taken."""
        self._idle.append(twin)


def twin_of(network: nn.Module) -> nn.Module:
    """Return a copy of the network's modules and configuration over the same tensors."""
    shared: dict[int, Any] = {}
    for module in network.modules():
        for held in (module.__dict__, module._parameters, module._buffers):
            shared |= {id(value): value for value in held.values() if isinstance(value, Tensor)}
    return copy.deepcopy(network, shared)


def run_jobs(jobs: Sequence[Callable[[Any], T]], model: TransformersModel) -> Iterator[T]:
    """Hand each job a network of the model; yield what they return, in the jobs' order."""
    workers = min(crew_size(model.device), len(jobs))
    if workers > 1:
        return _side_by_side(jobs, model.twins, workers)
    return (job(model.network) for job in jobs)


def _side_by_side(jobs: Sequence[Callable[[Any], T]], twins: Twins, workers: int) -> Iterator[T]:
    threads = torch.get_num_threads()
    free: SimpleQueue[nn.Module] = SimpleQueue()
    for _ in range(workers):
        free.put(twins.take())

    def work(job: Callable[[Any], T]) -> T:
        network = free.get()
        try:
            return job(network)
        finally:
            free.put(network)

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
        while not free.empty():
            twins.give_back(free.get())
