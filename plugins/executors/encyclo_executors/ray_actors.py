"""The executor `ray`: workers are actors of Ray Core, on this machine or on those of a cluster.

Each actor has a GPU or a share of the cores, opens the run by its folder and loads the model once. Ray restarts an
actor that dies and gives it the same unit again. If no machine is left of a Ray that this command started, it starts
another.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from encyclo import hookimpl
from encyclo.errors import UsageError
from encyclo.executors import Executor, Report, UnitReceipt, UnitTask, UnitWorker, Workers, Workplace
from encyclo.optional_packages import require
from encyclo.types import Context
from encyclo_executors.messages import MOST_DEATHS, portable
from encyclo_executors.ray_errors import RayEnded, look, meaning
from encyclo_executors.shares import cores, cores_each, threads, workers_here

OBJECT_STORE_BYTES = 100 * 2**20
"""Shared memory of a Ray that is started here: only tasks and receipts pass through it."""
SECONDS_BETWEEN_REPORTS = 1.0
SECONDS_BETWEEN_LOOKS = 3.0
SECONDS_TO_END = 3.0
"""How long an actor without a unit may take to end by itself."""
SECONDS_FOR_ROOM = 60.0
"""How long the start of the first worker may take before the run says that it waits."""
MOST_STARTS = 3
"""How often Ray is started on this machine, if it ends by itself."""


class Options(BaseModel):
    """Options: `-o ray.address=auto` on the command line."""

    model_config = ConfigDict(extra="forbid")

    address: str | None = None
    """An existing cluster: `auto`, HOST:PORT or ray://HOST:PORT. Without it Ray starts on this machine."""
    workers: int | None = Field(None, ge=1, le=10_000)
    """Actors, each with a model of its own; by default one for each GPU, on CPUs one for each 8 cores."""
    cpus: int | None = Field(None, ge=1)
    """Cores of each actor; by default its share of all, and 1 on a GPU."""
    gpus: float = Field(1.0, gt=0)
    """GPUs of each actor, if the run computes on a GPU; 0.5 lets two share one."""

    def planned(self, device: str) -> Workers:
        """Return what `encyclo plan` says of the workers; on a cluster each has a place of its own."""
        workers = self.workers or 1
        return workers_here(workers, device) if self.address is None else Workers(workers, workers, True)

    @model_validator(mode="after")
    def _installed(self) -> Self:
        """Refuse a run without Ray before it begins."""
        require("ray", "The executor ray", "ray")
        return self


class Actor:
    """A worker's process, restarted by Ray if it dies. Its methods run in two threads."""

    def __init__(self, workplace: Workplace, threads: int) -> None:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # torch is not imported yet
        self._workplace = workplace
        self._worker: UnitWorker | None = None
        self._said: tuple[str, list[int | str]] = ("", [])
        """The unit, and all that was reported of it."""
        self._ends = threading.Event()

    def do(self, task: UnitTask) -> tuple[UnitReceipt | BaseException, list[int | str]]:
        """Do a unit; return its receipt, or the error, and all that was reported."""
        self._said = task.unit, []
        try:
            self._worker = self._worker or self._workplace.worker(self._say)
            return self._worker.do(task), self._said[1]
        except Exception as error:
            return portable(error), self._said[1]

    def heard(self) -> tuple[str, list[int | str]]:
        """Return the unit that is being done, and all that was reported of it in the next second as well."""
        self._ends.wait(SECONDS_BETWEEN_REPORTS)
        return self._said

    def end(self) -> None:
        """End the process as Python does, which removes what the worker keeps on its machine."""
        import ray

        self._ends.set()
        ray.actor.exit_actor()

    def _say(self, said: int | str) -> None:
        self._said[1].append(said)


class Actors:
    """The actors of one run; they live from its first unit to its last."""

    def __init__(self, workplace: Workplace, options: Options, on_gpu: bool) -> None:
        self.workplace, self.options, self.on_gpu = workplace, options, on_gpu
        self._actors: list[Any] = []
        self._hearing: dict[Any, Any] = {}
        """The actor of each call of `heard` that has not returned; one each, also between rounds."""
        self._doing: dict[Any, tuple[Any, UnitTask]] = {}
        """The actor and the task of each call of `do` that has not returned."""
        self._begun: list[Any] = []
        """The actors that have done a unit."""
        self._started = 0
        """How often Ray was started here."""
        self._connected = False
        """Whether Ray is this object's to leave: not one that the process had before."""

    def run(self, tasks: Sequence[UnitTask], report: Report) -> Iterator[UnitReceipt]:
        """Do the tasks; yield receipts as they arrive."""
        left = {task.unit: task for task in tasks}
        while left:
            if not self._actors:
                self._start()
            try:
                for receipt in self._do(list(left.values()), report):
                    del left[receipt.unit]
                    yield receipt
            except RayEnded as error:
                self._begun = []
                self.close()
                if self._started in (0, MOST_STARTS):
                    raise UsageError(
                        "Ray ended, or none of its machines is left; run the same command again, which keeps what is "
                        "committed."
                    ) from error
                report("Ray ended by itself and is started again")

    def _do(self, tasks: list[UnitTask], report: Report) -> Iterator[UnitReceipt]:
        """Do the tasks while Ray lives; raise RayEnded otherwise."""
        import ray

        waiting = tasks[::-1]
        doing = self._doing
        told = _Told(report)
        looked = begun = time.monotonic()

        def give(actor: Any) -> None:
            if waiting:
                task = waiting.pop()
                doing[actor.do.remote(task)] = actor, task

        for actor in self._actors:
            give(actor)
        while doing:
            ready, _ = ray.wait([*doing, *self._hearing], timeout=SECONDS_BETWEEN_LOOKS)
            for reference in ready:
                begun = math.inf
                if (actor := self._hearing.pop(reference, None)) is not None:
                    self._listen(actor)
                    told.pass_on(reference, {task.unit for _, task in doing.values()})
                    continue
                actor, task = doing.pop(reference)
                receipt, said = _receipt(reference, task)
                if actor not in self._begun:
                    self._begun.append(actor)
                give(actor)
                told.tell(task.unit, said)
                yield receipt
            if time.monotonic() - looked > SECONDS_BETWEEN_LOOKS:
                look()
                looked = time.monotonic()
            if looked - begun > SECONDS_FOR_ROOM:
                report("Ray has no room for a worker yet; the run waits")
                begun = math.inf

    def _listen(self, actor: Any) -> None:
        self._hearing[actor.heard.options(max_task_retries=0).remote()] = actor

    def _start(self) -> None:
        """Connect to Ray, or start it; make the actors. Raises UsageError if they have no room."""
        import ray

        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            # Else Ray lets its workers wait for all other processes of the machine.
            os.environ.setdefault("RAY_worker_niceness", "0")
            self._connect()
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        resource = "GPU" if self.on_gpu else "CPU"
        found = [node.get(resource, 0.0) for node in nodes]
        usual = sum(found) // (self.options.gpus if self.on_gpu else 8)
        workers = self.options.workers or max(1, int(usual))
        each = self.options.gpus if self.on_gpu else self.options.cpus or cores_each(workers, found)
        if workers * each > sum(found) or each == 0:
            raise UsageError(
                f"Ray has {sum(found):g} {resource}s, too few for {workers} workers; give fewer with -o ray.workers=N."
            )
        kind = ray.remote(Actor).options(
            num_cpus=self.options.cpus or 1 if self.on_gpu else each,
            num_gpus=each if self.on_gpu else 0,
            max_restarts=-1,
            max_task_retries=MOST_DEATHS - 1,
            max_concurrency=2,
        )
        self._actors = [kind.remote(self.workplace, threads(workers)) for _ in range(workers)]
        for actor in self._actors:
            self._listen(actor)

    def _connect(self) -> None:
        import ray

        self._connected = True
        address = self.options.address
        quiet = {"log_to_driver": False, "logging_level": "error"}
        if address is not None:
            try:
                ray.init(address, **quiet)
            except ConnectionError as error:
                raise UsageError(
                    f"No Ray cluster lets this command in at {address!r}; start one with `ray start --head`, set "
                    "RAY_AUTH_MODE=token if it asks for a token, or leave out -o ray.address to start Ray here."
                ) from error
            return
        self._started += 1
        ray.init(
            "local",
            num_cpus=max(cores(), (self.options.workers or 1) * (self.options.cpus or 1)),
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            **quiet,
        )

    def close(self) -> None:
        """End the actors, those in the middle of a unit at once, and Ray if it was started here."""
        import ray

        busy = [actor for actor, _ in self._doing.values()]
        ends = [actor.end.options(max_task_retries=0).remote() for actor in self._begun if actor not in busy]
        if ends:
            ray.wait(ends, num_returns=len(ends), timeout=SECONDS_TO_END)
        for actor in self._actors:
            ray.kill(actor)
        self._actors, self._begun, self._hearing, self._doing = [], [], {}, {}
        if self._connected:
            ray.shutdown()
            self._connected = False


class _Told:
    """Reports what actors said of each unit, each item once, also if another attempt says it again."""

    def __init__(self, report: Report) -> None:
        self._report, self._items = report, Counter[str]()

    def tell(self, unit: str, said: Sequence[int | str]) -> None:
        """Report what is new."""
        for item in said[self._items[unit] :]:
            self._report(item)
        self._items[unit] = max(self._items[unit], len(said))

    def pass_on(self, reference: Any, doing: Collection[str]) -> None:
        """Report what an actor said of a unit that isn't done yet; nothing if it died: its unit says so."""
        import ray

        try:
            unit, said = ray.get(reference)
        except ray.exceptions.RayError:
            time.sleep(SECONDS_BETWEEN_REPORTS / 10)  # it is being restarted
            return
        if unit in doing:
            self.tell(unit, said)


def _receipt(reference: Any, task: UnitTask) -> tuple[UnitReceipt, list[int | str]]:
    """Return a unit's receipt and all that was reported of it; raise the error that its worker raised."""
    import ray

    try:
        answer, said = ray.get(reference)
    except ray.exceptions.RayError as error:
        raise meaning(error, task) from error
    if isinstance(answer, BaseException):
        raise answer
    return answer, said


@hookimpl
def run_units(workplace: Workplace, context: Context) -> Executor:
    """Return an executor whose actors start with the first unit."""
    assert isinstance(context.options, Options)
    device = getattr(context.model, "device", "cpu")
    return Actors(workplace, context.options, device.startswith("cuda"))
