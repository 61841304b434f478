"""The jobs of the executor `slurm`: submits them, gives units to those that have begun, replaces those that die."""

from __future__ import annotations

import contextlib
import logging
import math
import pickle
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from encyclo.errors import EncycloError, UsageError
from encyclo.executors import Report, UnitReceipt, UnitTask, Workplace
from encyclo_executors.file_pipes import FilePipe
from encyclo_executors.messages import MOST_DEATHS, died
from encyclo_executors.shares import threads
from encyclo_executors.slurm_options import Options
from encyclo_executors.slurm_worker import ASKED, BEAT, OVER, SAID, serve

SECONDS_BETWEEN_READS = 0.1
SECONDS_BETWEEN_LOOKS = {"local": 1.0, "slurm": 20.0}
"""How often the state of the jobs is asked for; Slurm's database should not be asked often."""
SECONDS_BETWEEN_BEATS = 2.0
SECONDS_OF_SILENCE = 180.0
"""A job that had begun and says nothing for so long is taken for dead: not every cluster keeps the states of jobs."""
SECONDS_FOR_ROOM = 60.0
"""How long the first job may wait before the run says so."""
SECONDS_TO_END = 10.0


class Job:
    """A job and what is between it and the command."""

    def __init__(self, folder: Path, handle: Any) -> None:
        self._said, self._asked = FilePipe(folder / SAID), FilePipe(folder / ASKED)
        self.handle = handle
        """submitit's job."""
        self.task: UnitTask | None = None
        self.has_begun = False
        self._heard_at = math.inf

    def give(self, task: UnitTask | None) -> None:
        """Let the job do a task; None ends it when it has nothing else to do."""
        self.task = task
        self._asked.send(task)

    def heard(self) -> list[tuple[str, Any]]:
        """Return what the job has said since the last call."""
        messages = self._said.receive()
        if messages:
            self.has_begun, self._heard_at = True, time.monotonic()
        return messages

    def is_silent(self) -> bool:
        """Return whether the job had begun and has said nothing for long; ask it after `heard`."""
        return time.monotonic() - self._heard_at > SECONDS_OF_SILENCE

    def how_it_died(self) -> str:
        """Return the state that the cluster knows, and the last line of the job's log."""
        lines = (self.handle.stderr() or "").strip().splitlines() or ["nothing"]
        return f"job {self.handle.job_id} is {self.handle.state}, and its log ends with: {lines[-1]}"

    def cancel(self) -> None:
        """Let the cluster end the job."""
        with contextlib.suppress(OSError):
            self.handle.cancel(check=False)


class SlurmJobs:
    """The jobs of one run; they live from its first unit to its last."""

    def __init__(self, workplace: Workplace, options: Options, on_gpu: bool) -> None:
        self.workplace, self.options, self.on_gpu = workplace, options, on_gpu
        self._jobs: list[Job] = []
        self._replaced: list[Job] = []
        """Jobs that are taken for dead; the end of each is waited for."""
        self._folder: Path | None = None
        self._over = threading.Event()
        self._beats: threading.Thread | None = None
        self._bad_starts = 0
        """How many jobs in a row ended before they had begun."""
        self._looked = 0.0

    def run(self, tasks: Sequence[UnitTask], report: Report) -> Iterator[UnitReceipt]:
        """Do the tasks; yield receipts as they arrive."""
        waiting, left, deaths = deque(tasks), len(tasks), Counter[str]()
        begun = time.monotonic()
        while left:
            self._submit(min(self.options.workers, left) - len(self._jobs))
            look = self._is_time_to_look()
            for job in list(self._jobs):
                ended = look and job.handle.done(force_check=True)  # before its last words are read
                for kind, content in job.heard():
                    if kind == "said":
                        for item in content:
                            report(item)
                    elif kind == "failed":
                        raise content
                    elif kind == "done":
                        left -= 1
                        job.task = None
                        if waiting and not ended:
                            job.give(waiting.popleft())
                        yield content
                if ended or job.is_silent():
                    self._bury(job, waiting, deaths)
                elif job.has_begun and job.task is None and waiting:
                    job.give(waiting.popleft())
            if any(job.has_begun for job in self._jobs):
                begun, self._bad_starts = math.inf, 0
            if time.monotonic() - begun > SECONDS_FOR_ROOM:
                report("Slurm has begun none of the jobs yet; the run waits")
                begun = math.inf
            if left:
                time.sleep(SECONDS_BETWEEN_READS)

    def _is_time_to_look(self) -> bool:
        if time.monotonic() - self._looked < SECONDS_BETWEEN_LOOKS[self.options.cluster]:
            return False
        self._looked = time.monotonic()
        return True

    def _bury(self, job: Job, waiting: deque[UnitTask], deaths: Counter[str]) -> None:
        """Forget a job that died, and put its unit first. Raises EncycloError if that happens again and again."""
        self._jobs.remove(job)
        self._replaced.append(job)
        how = job.how_it_died()
        job.cancel()
        if job.task is not None:
            deaths[job.task.unit] += 1
            if deaths[job.task.unit] == MOST_DEATHS:
                raise died(job.task, how)
            waiting.appendleft(job.task)
        elif not job.has_begun:
            self._bad_starts += 1
            if self._bad_starts == MOST_DEATHS:
                raise EncycloError(
                    f"{MOST_DEATHS} jobs in a row ended before they had begun ({how}); see their logs in "
                    f"{self._folder}, which all machines must see, then run the same command again."
                )

    def _submit(self, number: int) -> None:
        """Submit so many further jobs, as one array. Raises UsageError if Slurm refuses them."""
        if number <= 0:
            return
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        logging.getLogger("submitit").setLevel(logging.ERROR)
        folder = self._folder or self._open()
        places = [Path(tempfile.mkdtemp(dir=folder)) for _ in range(number)]
        for place in places:
            (place / ASKED).touch()
            (place / SAID).touch()
        executor = submitit.AutoExecutor(folder / "jobs", cluster=self.options.cluster)
        executor.update_parameters(**self._parameters())
        what = pickle.dumps(self.workplace)
        share = threads(share=self._cpus)
        try:
            handles = executor.map_array(
                serve, [str(place) for place in places], [what] * number, [share] * number
            )
        except (FailedJobError, FailedSubmissionError) as error:
            reason = (str(error).strip().splitlines() or ["no reason given"])[-1]
            raise UsageError(f"Slurm refused the jobs ({reason}); change the options -o slurm.*.") from error
        self._jobs += [Job(place, handle) for place, handle in zip(places, handles, strict=True)]

    def _open(self) -> Path:
        """Make the folder in which the command and the jobs meet; give signs of life there."""
        parent = self.options.folder or self.workplace.run / ".workers"
        parent.mkdir(parents=True, exist_ok=True)
        self._folder = folder = Path(tempfile.mkdtemp(prefix="slurm-", dir=parent.absolute()))
        (folder / BEAT).touch()
        self._beats = threading.Thread(target=self._give_signs_of_life, args=(folder / BEAT,), daemon=True)
        self._beats.start()
        return folder

    def _give_signs_of_life(self, beat: Path) -> None:
        is_over = False
        while not is_over:
            is_over = self._over.wait(SECONDS_BETWEEN_BEATS)
            with contextlib.suppress(OSError):
                beat.write_text(OVER if is_over else str(time.monotonic()), encoding="ascii")

    @property
    def _cpus(self) -> int:
        return self.options.cpus or (1 if self.on_gpu else 8)

    def _parameters(self) -> dict[str, Any]:
        """Return what submitit asks the cluster for."""
        return {
            "name": "encyclo",
            "timeout_min": self.options.time,
            "cpus_per_task": self._cpus,
            "gpus_per_node": self.options.gpus if self.on_gpu else None,
            "mem_gb": self.options.memory,
            "slurm_partition": self.options.partition,
            "slurm_array_parallelism": self.options.workers,
            "slurm_additional_parameters": self.options.sbatch_flags(),
        }

    def close(self) -> None:
        """End all jobs: those that wait for a unit end by themselves, the cluster ends the others."""
        for job in self._jobs:
            if job.has_begun and job.task is None:
                with contextlib.suppress(OSError):
                    job.give(None)
            elif self.options.cluster == "slurm":
                job.cancel()
        self._over.set()
        if self._beats is not None:
            self._beats.join()
        self._jobs += self._replaced
        self._wait()
        for job in self._jobs:
            job.cancel()
        self._wait()
        self._jobs, self._replaced = [], []

    def _wait(self) -> None:
        """Wait a few seconds for the jobs' ends, and forget those that have ended."""
        until = time.monotonic() + SECONDS_TO_END
        while self._jobs and time.monotonic() < until:
            self._jobs = [job for job in self._jobs if not job.handle.done()]
            time.sleep(SECONDS_BETWEEN_READS)
