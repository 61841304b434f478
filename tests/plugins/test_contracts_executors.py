"""The executors keep the contract of `run_units`."""

from __future__ import annotations

import os

import pytest

from encyclo.errors import CaptureError, EncycloError
from encyclo.executors import UnitTask
from encyclo.testing.executors import ExecutorContract
from encyclo.testing.fixtures.folder_workplace import FolderWorkplace, tasks


class TestLocal(ExecutorContract):
    plugin = "local"
    in_process = True


class TestSeveralProcesses(ExecutorContract):
    plugin = "local"
    options = {"workers": 2}  # noqa: RUF012


@pytest.fixture(scope="module")
def ray_here():
    """One Ray for all checks: an executor uses a Ray that its process has started, and leaves it running."""
    ray = pytest.importorskip("ray")
    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=10**8, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("ray_here")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::ResourceWarning")
class TestRay(ExecutorContract):
    plugin = "ray"
    options = {"workers": 2}  # noqa: RUF012


def refuse(process: int, kind: type[Exception]) -> None:
    if os.getpid() != process:
        raise kind("It can't be opened here.")


class Closed:
    """What no other process can unpickle."""

    def __init__(self, kind: type[Exception] = ModuleNotFoundError) -> None:
        self.kind = kind

    def __reduce__(self):
        return refuse, (os.getpid(), self.kind)


class Worker:
    """An actor whose answers are errors of Ray's, not of `encyclo_executors.ray_actors.Actor`."""

    def raises(self) -> None:
        raise CaptureError("The unit fails outside of what the worker catches.")

    def answers(self) -> tuple[Closed, list[str]]:
        return Closed(), []


UNREADABLE = r"The unit 7 can't be passed between .*It can't be opened here.*install the same encyclo"


@pytest.mark.usefixtures("ray_here")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::ResourceWarning")
class TestErrorsOfRay:
    """Ray wraps what a worker raises, and raises errors of its own; a run takes neither for the end of Ray."""

    @pytest.mark.parametrize(
        ("call", "sentence"), [("raises", "^The unit fails outside"), ("answers", UNREADABLE)]
    )
    def test_the_sentence_is_the_worker_s(self, call: str, sentence: str):
        import ray

        from encyclo_executors.ray_actors import _receipt

        actor = ray.remote(Worker).remote()
        with pytest.raises(EncycloError, match=sentence):
            _receipt(getattr(actor, call).remote(), UnitTask("7", 1, 0))
        ray.kill(actor)

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            (Closed(CaptureError), r"^It can't be opened here\.$"),
            (Closed(), UNREADABLE.replace("unit 7", "unit 0-0")),
        ],
    )
    def test_a_task_that_a_worker_can_not_open(self, content: Closed, sentence: str, tmp_path):
        from encyclo_executors.ray_actors import Actors, Options

        executor = Actors(FolderWorkplace(tmp_path).prepared(), Options(workers=1), on_gpu=False)
        with pytest.raises(EncycloError, match=sentence):
            list(executor.run(tasks(1, content=[content]), lambda said: None))
        executor.close()

    def test_a_run_that_a_worker_can_not_open(self, tmp_path):
        from encyclo_executors.ray_actors import Actors, Options

        workplace = FolderWorkplace(tmp_path).prepared()
        object.__setattr__(workplace, "process", Closed())
        executor = Actors(workplace, Options(workers=1), on_gpu=False)
        with pytest.raises(EncycloError, match=UNREADABLE.replace("unit 7", "unit 0-0")):
            list(executor.run(tasks(1), lambda said: None))
        executor.close()


class TestSlurm(ExecutorContract):
    plugin = "slurm"
    options = {"workers": 2, "cluster": "local"}  # noqa: RUF012
