"""Only workers of the command that runs a run may write into it."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from encyclo.errors import RunDirectoryError
from encyclo.runs import worker_locks

WORKER = (
    "import sys, time; from pathlib import Path; from encyclo.runs import worker_locks\n"
    "lock = worker_locks.enter(Path(sys.argv[1]), sys.argv[2]); print('in', flush=True); time.sleep(60)"
)


def test_a_worker_enters_with_the_token_of_its_command_alone(tmp_path: Path):
    token = worker_locks.admit(tmp_path)
    worker_locks.enter(tmp_path, token).release()
    later = worker_locks.admit(tmp_path)
    with pytest.raises(
        RunDirectoryError, match=r"doesn't see the run in .*; give --out a folder on a file system"
    ):
        worker_locks.enter(tmp_path, token)
    worker_locks.clear(tmp_path)
    with pytest.raises(RunDirectoryError, match=re.escape(worker_locks.place())):
        worker_locks.enter(tmp_path, later)
    assert not (tmp_path / worker_locks.FOLDER).exists()


def test_a_later_command_waits_for_the_workers_of_an_earlier_one(tmp_path: Path):
    token = worker_locks.admit(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(tmp_path), token], stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None and worker.stdout.readline() == "in\n"
        with pytest.raises(
            RunDirectoryError, match=rf"still in use by a worker .*-{worker.pid}-.*; end that"
        ):
            worker_locks.clear(tmp_path, patience=0.2)
        threading.Timer(0.5, worker.kill).start()
        begun = time.monotonic()
        worker_locks.clear(tmp_path)
        assert time.monotonic() - begun >= 0.3
    assert not (tmp_path / worker_locks.FOLDER).exists()
    worker_locks.clear(tmp_path)  # where there was no worker, nothing is to do
