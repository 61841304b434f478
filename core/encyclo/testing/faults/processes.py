"""Short-lived processes: started in milliseconds, killed at a chosen instant, limited in time and memory.

A `ForkServer` is a process that has imported what the jobs need and forks a child for each job. It has a single
thread, so forking it is safe even if its parent has many. POSIX only.
"""

from __future__ import annotations

import math
import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Ending:
    """How a child process ended: its exit status (negative: the signal), its time, and its output."""

    status: int
    seconds: float
    output: str
    killed: bool
    """It was killed at the chosen instant, before it ended by itself."""
    hung: bool
    """It was killed because it took longer than its limit."""


class ForkServer:
    """Forks children that run module-level functions; use it as a context manager."""

    def __enter__(self) -> ForkServer:
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from encyclo.testing.faults.processes import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **ONE_THREAD},
        )
        self._ask(_import_from, sys.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.kill()
        self._process.wait()

    def warm(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function in the server itself, so that every child has its imports.

        It must leave no thread behind.
        """
        self._ask(function, *arguments)

    def run(
        self,
        function: Callable[..., object],
        *arguments: Any,
        kill_after: float | None = None,
        since: Path | None = None,
        limit: float = 120,
        memory: int | None = None,
    ) -> Ending:
        """Call a function in a child and wait for its end.

        The child is killed with SIGKILL after `kill_after` seconds; with `since`, they count from the moment when that
        folder is no longer empty. It may take `limit` seconds and allocate `memory` bytes.
        """
        kill = None if kill_after is None else _Kill(kill_after, since)
        ending: Ending = self._ask(_fork, function, arguments, kill, limit, memory)
        return ending

    def _ask(self, function: Callable[..., object], *arguments: Any) -> Any:
        """Call a function in the nursery; return the ending of a child that it forked."""
        assert self._process.stdin and self._process.stdout
        # Pickled twice: the nursery reads the whole request, even one that names what it can't import.
        pickle.dump(pickle.dumps((function, arguments)), self._process.stdin)
        self._process.stdin.flush()
        kind, answer = pickle.load(self._process.stdout)
        if kind == "error":
            raise RuntimeError(answer)
        return answer


def serve() -> None:
    """Run the server: answer requests from stdin until it closes."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a job's output must not mix with the answers
    while True:
        try:
            request = pickle.load(requests)
        except EOFError:
            return
        try:
            function, arguments = pickle.loads(request)
            ending = function(*arguments)
            answer: tuple[str, object] = ("answer", ending if isinstance(ending, Ending) else None)
        except Exception:
            answer = ("error", traceback.format_exc())
        pickle.dump(answer, answers)
        answers.flush()


def _import_from(path: list[str]) -> None:
    sys.path[:] = path


@dataclass
class _Kill:
    """When a child is killed: some seconds after it began, or after a folder is no longer empty."""

    after: float
    since: Path | None
    began: float | None = None

    def seconds_left(self, begun: float) -> float:
        """Return the seconds left, given when the child began; infinite while the folder is empty."""
        if self.began is None:
            if self.since is None:
                self.began = begun
            elif self.since.is_dir() and any(self.since.iterdir()):
                self.began = time.perf_counter()
            else:
                return math.inf
        return self.began + self.after - time.perf_counter()


def _fork(
    function: Callable[..., object],
    arguments: tuple[Any, ...],
    kill: _Kill | None,
    limit: float,
    memory: int | None,
) -> Ending:
    import tempfile

    with tempfile.TemporaryFile() as output:
        begun = time.perf_counter()
        child = os.fork()
        if child == 0:
            _be_child(function, arguments, memory, output)
        status, killed, hung = _wait(child, begun, kill, limit)
        seconds = time.perf_counter() - begun
        output.seek(0)
        said = output.read().decode("utf-8", "replace")
    return Ending(os.waitstatus_to_exitcode(status), seconds, said, killed, hung)


def _wait(child: int, begun: float, kill: _Kill | None, limit: float) -> tuple[int, bool, bool]:
    """Return (wait status, killed as asked, killed because it hung)."""
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status, False, False
        left = math.inf if kill is None else kill.seconds_left(begun)
        room = begun + limit - time.perf_counter()
        if min(left, room) <= 0:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            return status, left <= 0 and os.WIFSIGNALED(status), left > 0
        time.sleep(min(0.002, left, room))


def _be_child(
    function: Callable[..., object], arguments: tuple[Any, ...], memory: int | None, output: IO[bytes]
) -> None:
    code = 1
    try:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        if memory is not None:
            _limit_memory(memory)
        function(*arguments)
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _limit_memory(more: int) -> None:
    """Let this process allocate at most `more` additional bytes and write no core file."""
    import resource

    import psutil

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    now = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (now + more, now + more))
