"""Waits for what another process does, as long as it gets on: a busy machine is no failure, a hung process is one."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS = 300.0
"""How long nothing may change before a process counts as hung."""


def wait_until(
    reached: Callable[[], object], progress: Callable[[], object], said: Callable[[], object]
) -> None:
    """Wait until `reached`; fail with what was `said` if `progress` returns the same value for SECONDS."""
    last, since, looked = progress(), time.monotonic(), time.monotonic()
    while not reached():
        time.sleep(0.05)
        if time.monotonic() - looked < 1:
            continue
        looked = time.monotonic()
        if (now := progress()) != last:
            last, since = now, looked
        assert looked - since < SECONDS, said()
