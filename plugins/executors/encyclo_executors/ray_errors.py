"""What an error of Ray means for a run: the unit's own error, a worker that died, or the end of Ray."""

from __future__ import annotations

from encyclo.errors import EncycloError
from encyclo.executors import UnitTask
from encyclo_executors.messages import died


class RayEnded(Exception):
    """Ray itself, or all of its machines, ended."""


def look() -> None:
    """Raise RayEnded if no machine of the cluster is left."""
    import ray

    try:
        alive = any(node["Alive"] for node in ray.nodes())
    except Exception as error:
        raise RayEnded from error
    if not alive:
        raise RayEnded


def meaning(error: Exception, task: UnitTask) -> Exception:
    """Return what to raise for the RayError of a unit. Raises RayEnded if Ray ended."""
    from ray import exceptions as kinds

    own = getattr(error, "cause", None) or error  # of a RayTaskError: what was raised in the worker
    if isinstance(reason := getattr(own, "client_exc", None), Exception):
        return reason if isinstance(reason, EncycloError) else _unreadable(task, repr(reason))
    if not isinstance(own, kinds.RayError):
        return own
    if getattr(own, "actor_init_failed", False):
        return _unreadable(task, str(own).strip().rpartition("\n")[2])
    look()
    if isinstance(own, kinds.OutOfMemoryError):
        return died(task, "Ray ended it because its machine ran out of memory")
    if isinstance(own, kinds.RayActorError | kinds.TaskCancelledError):
        return died(task, "its actor died")
    if isinstance(own, _refusals()):
        said = str(own).strip().rpartition("\n")[2].rstrip(".")
        return EncycloError(
            f"Ray refused the unit {task.unit}: {said}; correct this, then run the same command again, which keeps "
            "what is committed."
        )
    raise RayEnded from error


def _refusals() -> tuple[type[Exception], ...]:
    """Return the errors of a Ray that lives and can't do what it was asked for."""
    from ray import exceptions as kinds

    return (
        kinds.RuntimeEnvSetupError,
        kinds.OutOfDiskError,
        kinds.ObjectStoreFullError,
        kinds.ActorUnschedulableError,
        kinds.TaskUnschedulableError,
    )


def _unreadable(task: UnitTask, reason: str) -> EncycloError:
    """Return the error for a task or an answer that one of the two machines can't unpickle."""
    return EncycloError(
        f"The unit {task.unit} can't be passed between the command and its worker ({reason}); install the same encyclo "
        "and the same plugins on every machine of the cluster, then run the same command again."
    )
