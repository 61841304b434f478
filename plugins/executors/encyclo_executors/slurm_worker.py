"""What a job of the executor `slurm` does: open the run, and do units until the command has no more.

Its folder has two files: `asked`, with tasks and at last None, and `said`, with pairs: ("ready", None), ("said", a list
of numbers of prompts and lines), ("done", a receipt) or ("failed", an error). `beat`, beside the folder, changes as
long as the command lives; it says "over" when units that are not done yet don't count any more.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from encyclo.executors import UnitTask, UnitWorker, Workplace
from encyclo_executors.file_pipes import FilePipe
from encyclo_executors.messages import portable

ASKED, SAID, BEAT, OVER = "asked", "said", "beat", "over"
SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_BETWEEN_REPORTS = 1.0
SECONDS_OF_SILENCE = 20.0
"""A worker ends if its command has given no sign of life for so long."""


class Line:
    """The worker's line to its command."""

    def __init__(self, folder: Path) -> None:
        self._asked, self._said = FilePipe(folder / ASKED), FilePipe(folder / SAID)
        self._beat = folder.parent / BEAT
        self._speaking = threading.Lock()
        self._prompts, self._lines = 0, list[str]()
        self._is_over = self._is_busy = False
        threading.Thread(target=self._keep_in_touch, daemon=True).start()

    def say(self, kind: str, content: object) -> None:
        """Say something, after what was reported before it."""
        self._pass_on()
        with self._speaking:
            self._said.send((kind, content))

    def report(self, said: int | str) -> None:
        """Take what the worker reports; it is passed on within a second."""
        with self._speaking:
            if isinstance(said, str):
                self._lines.append(said)
            else:
                self._prompts += said

    def tasks(self) -> Iterator[UnitTask]:
        """Yield tasks as they are asked for, until there are no more."""
        while not self._is_over:
            for task in self._asked.receive():
                if task is None:
                    self._is_over = True
                    return
                self._is_busy = True
                yield task
                self._is_busy = False
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _pass_on(self, also_nothing: bool = False) -> None:
        with self._speaking:
            items = [*self._lines, self._prompts] if self._prompts else self._lines
            if items or also_nothing:
                self._said.send(("said", items))
            self._prompts, self._lines = 0, []

    def _keep_in_touch(self) -> None:
        """Pass on reports and give signs of life; end this process when the command gives none any more.

        Without a unit it then ends as Python does, which removes what the worker keeps on its machine.
        """
        last, heard = "", time.monotonic()
        while not self._is_over and last != OVER and time.monotonic() - heard < SECONDS_OF_SILENCE:
            with suppress(OSError):
                self._pass_on(also_nothing=True)
                if (now := self._beat.read_text(encoding="ascii")) != last:
                    last, heard = now, time.monotonic()
            time.sleep(SECONDS_BETWEEN_REPORTS)
        if self._is_busy:
            os._exit(1)
        self._is_over = True


def serve(folder: str, workplace: bytes, threads: int) -> None:
    """Be a job: do the tasks that the command asks for in `folder`."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # submitit ignores SIGTERM; scancel would take half a minute
    signal.signal(
        signal.SIGUSR2, signal.SIG_IGN
    )  # the time is nearly over; perhaps the unit can still be done
    os.environ["OMP_NUM_THREADS"] = str(threads)  # torch is not imported yet
    line = Line(Path(folder))
    line.say("ready", None)
    try:
        opened: Workplace = pickle.loads(workplace)
        worker: UnitWorker | None = None
        for task in line.tasks():
            worker = worker or opened.worker(line.report)
            line.say("done", worker.do(task))
    except Exception as error:
        line.say("failed", portable(error))
