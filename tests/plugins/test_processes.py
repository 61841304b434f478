"""Worker processes whose workplace can't be sent, or which say what can't be read: an error, no endless wait."""

from __future__ import annotations

import errno
import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from encyclo.errors import EncycloError
from encyclo.testing.fixtures.folder_workplace import FolderWorkplace, tasks
from encyclo_executors.processes import Processes


class FullDisk(FolderWorkplace):
    def __reduce__(self) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")


class Unreadable:
    def __reduce__(self) -> Any:
        return os.stat, ("/no/such/file",)


class Mumbling(FolderWorkplace):
    def worker(self, report: Any) -> Any:
        return self

    def do(self, task: Any) -> Unreadable:
        return Unreadable()


def test_a_workplace_that_can_not_be_sent_is_an_error(tmp_path: Path):
    with closing(Processes(FullDisk(tmp_path), [{}])) as processes:
        with pytest.raises(OSError, match="No space left"):
            list(processes.run(tasks(1), print))


def test_a_worker_whose_answers_can_not_be_read_counts_as_dead(tmp_path: Path):
    with closing(Processes(Mumbling(tmp_path), [{}])) as processes:
        with pytest.raises(EncycloError, match=r"The unit 0-0 ended its worker 3 times"):
            list(processes.run(tasks(1), print))
