"""How long the user's own runs took to train, score and report: kept in the cache, for `encyclo plan`."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from encyclo.errors import StoreError
from encyclo.runs.session import Session
from encyclo.storage import files
from encyclo.storage.cache import cache_folder

FILE = "judging.json"
MOST = 200
"""The most runs that are remembered, the newest ones."""
SAMPLES_A_SECOND = 285.0
"""Without a run of one's own: gemma-3-270m, five layers, three interpreters, 2 cores."""


class Time(BaseModel):
    """A run's work after capture: what its time depends on, its samples and the seconds that it took."""

    model_config = ConfigDict(extra="forbid")

    of: list[Any]
    samples: int
    seconds: float


TIMES = TypeAdapter(list[Time])


@dataclass(frozen=True)
class Expected:
    """The expected seconds, and whether they come from a run on this machine."""

    seconds: float
    measured: bool


def remember(session: Session, samples: int, seconds: float) -> None:
    """Keep a finished run's time; a cache that can't be written is ignored."""
    known = [*_read(), Time(of=_depends_on(session), samples=samples, seconds=round(seconds, 2))]
    # The cache is no part of the run: it has a disk of its own.
    with contextlib.suppress(OSError, StoreError), files.using(files.Disk()):
        cache_folder().mkdir(parents=True, exist_ok=True)
        files.write_json(cache_folder() / FILE, TIMES.dump_python(known[-MOST:]))


def expected(session: Session, samples: int) -> Expected:
    """Return the time for `samples`, in proportion to the run of the same plugins that is most alike in size."""
    of = _depends_on(session)
    alike = [time for time in _read() if time.of == of and time.samples > 0]
    if not alike or not samples:
        return Expected(samples / SAMPLES_A_SECOND, measured=False)
    # Of equally distant runs the newest.
    nearest = min(reversed(alike), key=lambda time: abs(math.log(time.samples / samples)))
    return Expected(nearest.seconds * samples / nearest.samples, measured=True)


def _depends_on(session: Session) -> list[Any]:
    config, schema = session.config, session.schema
    return [
        config.interpreter,
        sorted(config.baselines),
        config.scorer,
        config.store,
        [stage.sampler for stage in session.stages],
        len(schema.layers) * schema.hidden_size,
        session.model.device,
    ]


def _read() -> list[Time]:
    try:
        return TIMES.validate_json((cache_folder() / FILE).read_bytes())
    except (OSError, ValidationError):
        return []
