"""Workers in processes of this machine, which end when the run's process ends, however it does.

A worker reads pickled tasks from its standard input and writes pickled messages to what was its standard output:
("said", a number of prompts or a line), ("done", a receipt) or ("failed", an error). What plugins print there goes to
standard error. A dead process costs its unit's attempt: another process does the unit again.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from queue import SimpleQueue
from typing import Any

from encyclo.executors import Report, UnitReceipt, UnitTask, UnitWorker, Workplace
from encyclo_executors.messages import MOST_DEATHS, died, portable

Heard = SimpleQueue[tuple["Process", str, Any]]
SECONDS_TO_END = 5.0
SERVE = "from encyclo_executors.processes import serve; serve()"


class Process:
    """A worker's process; a thread passes on what it says."""

    def __init__(self, workplace: Workplace, environment: Mapping[str, str], heard: Heard) -> None:
        self.environment = environment
        self.task: UnitTask | None = None
        path = os.pathsep.join(part for part in sys.path if part)
        self._child = subprocess.Popen(
            [sys.executable, "-c", SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, **environment},
        )
        threading.Thread(target=self._listen, args=(heard,), daemon=True).start()
        self._send(workplace)

    def give(self, task: UnitTask) -> None:
        """Let the worker do a task."""
        self.task = task
        self._send(task)

    def how_it_died(self) -> str:
        """Return what ended the process."""
        code = self._child.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def hang_up(self) -> None:
        """Let the process end: by itself if it has no unit, at once in the middle of one."""
        with contextlib.suppress(OSError):
            self._child.stdin.close()  # type: ignore[union-attr]

    def end(self, patiently: bool) -> None:
        """End the process and wait for it: `patiently` it has a few seconds to do so by itself."""
        self.hang_up()
        if not patiently:
            self._child.kill()
        try:
            self._child.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def _send(self, what: object) -> None:
        assert self._child.stdin is not None
        pickled = pickle.dumps(what)
        with contextlib.suppress(OSError):  # it is dead, which `_listen` reports
            self._child.stdin.write(pickled)
            self._child.stdin.flush()

    def _listen(self, heard: Heard) -> None:
        assert self._child.stdout is not None
        with self._child.stdout as said:
            while True:
                try:
                    kind, content = pickle.load(said)
                except Exception:  # the pipe ends, perhaps in the middle of a message
                    heard.put((self, "died", None))
                    return
                heard.put((self, kind, content))


class Processes:
    """One worker process for each of `environments`, started with the first units."""

    def __init__(self, workplace: Workplace, environments: Sequence[Mapping[str, str]]) -> None:
        self.workplace, self._environments = workplace, environments
        self._processes: list[Process] = []
        self._heard: Heard = SimpleQueue()

    def run(self, tasks: Sequence[UnitTask], report: Report) -> Iterator[UnitReceipt]:
        """Do the tasks; yield receipts as they arrive."""
        waiting, left, deaths = deque(tasks), len(tasks), Counter[str]()
        for environment in self._environments[len(self._processes) : len(tasks)]:
            self._processes.append(Process(self.workplace, environment, self._heard))
        for process in self._processes[: len(waiting)]:
            process.give(waiting.popleft())
        while left:
            process, kind, content = self._heard.get()
            if kind == "said":
                report(content)
            elif kind == "failed":
                raise content
            elif kind == "died":
                self._replace(process, waiting, deaths)
            else:
                left -= 1
                process.task = None
                if waiting:
                    process.give(waiting.popleft())
                yield content

    def _replace(self, process: Process, waiting: deque[UnitTask], deaths: Counter[str]) -> None:
        """Start another process for one that died, and let it do the same unit."""
        process.end(patiently=True)  # it lives if it said something that can't be read here
        task, how = process.task, process.how_it_died()
        place = self._processes.index(process)
        self._processes[place] = Process(self.workplace, process.environment, self._heard)
        if task is None:
            return
        deaths[task.unit] += 1
        if deaths[task.unit] == MOST_DEATHS:
            raise died(task, how)
        self._processes[place].give(task)

    def close(self) -> None:
        """End all processes; those that are in the middle of a unit at once."""
        for process in self._processes:
            process.hang_up()
        for process in self._processes:
            process.end(patiently=process.task is None)
        self._processes = []


def serve() -> None:
    """Be a worker's process: open the run's workplace, do tasks until standard input closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run's process, which ends this one
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    speaking = threading.Lock()

    def say(kind: str, content: object) -> None:
        with speaking:
            pickle.dump((kind, content), answers)
            answers.flush()

    inbox: SimpleQueue[Any] = SimpleQueue()
    working = threading.Lock()
    threading.Thread(target=_receive, args=(inbox, working), daemon=True).start()
    worker: UnitWorker | None = None
    try:
        workplace: Workplace | None = _next(inbox)  # None if the run's process ended before it sent one
        while workplace and (task := _next(inbox)) is not None and working.acquire(blocking=False):
            worker = worker or workplace.worker(lambda said: say("said", said))
            say("done", worker.do(task))
            working.release()
    except BaseException as error:
        say("failed", portable(error))
        sys.stderr.flush()


def _next(inbox: SimpleQueue[Any]) -> Any:
    item = inbox.get()
    if isinstance(item, BaseException):
        raise item
    return item


def _receive(inbox: SimpleQueue[Any], working: threading.Lock) -> None:
    """Pass on what arrives; None and end when the run's process is gone or has no more work.

    Without a unit the process then ends as Python does, which removes what the worker keeps on its machine; in the
    middle of one it ends at once.
    """
    while True:
        try:
            inbox.put(pickle.load(sys.stdin.buffer))
        except EOFError:
            if not working.acquire(blocking=False):
                os._exit(0)
            inbox.put(None)
            return
        except Exception as error:  # such as a plugin's module that can't be imported here
            inbox.put(error)
