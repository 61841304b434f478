"""What workers and the run's process say to each other."""

from __future__ import annotations

import pickle
import traceback

from encyclo.errors import EncycloError
from encyclo.executors import UnitTask

MOST_DEATHS = 3
"""A unit whose worker dies this many times ends the run: the next worker would die as well."""


def portable(error: BaseException) -> BaseException:
    """Return an error that another process can raise, with the traceback as a note for --debug."""
    noted = "".join(traceback.format_exception(error))
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:
        copy = RuntimeError(f"{type(error).__name__}: {error}")
    copy.add_note(f"In the worker:\n{noted}")
    assert isinstance(copy, BaseException)
    return copy


def died(task: UnitTask, how: str) -> EncycloError:
    """Return the error for a unit whose workers died again and again."""
    return EncycloError(
        f"The unit {task.unit} ended its worker {MOST_DEATHS} times ({how}), which is often a lack of memory; give "
        "fewer workers, then run the same command again, which keeps what is committed."
    )
