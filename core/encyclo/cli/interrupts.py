"""Ctrl-C stops a command once and quietly, however often it is pressed."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
import time
from typing import Any, NoReturn

EXIT_CODE = 130
STOPPED = "encyclo: stopped; run the same command to continue."
PATIENCE = 3.0
"""Seconds after the first Ctrl-C during which others are ignored: files are being closed."""


class Interrupts:
    """Handles SIGINT in the process of the command line, until the process ends.

    The first one raises KeyboardInterrupt. Those within PATIENCE seconds are ignored, since another error in the
    middle of cleaning up would be printed; a later one ends the process at once, which harms no run.
    """

    def __init__(self) -> None:
        self._since: float | None = None

    def install(self) -> None:
        """Handle SIGINT from now on, unless the process was told to ignore it."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handle)
            sys.unraisablehook = self._lost

    def leave(self, code: int) -> NoReturn:
        """End the process with `code`; after Ctrl-C at once, without waiting for threads."""
        self._since = self._since or time.monotonic()  # nothing is left to interrupt
        if code == EXIT_CODE:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
        sys.exit(code)

    def _handle(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if self._since is None:
            self._since = now
            raise KeyboardInterrupt
        if now - self._since > PATIENCE:
            os.write(2, f"{STOPPED}\n".encode())
            os._exit(EXIT_CODE)

    def _lost(self, error: Any) -> None:
        """Raise a KeyboardInterrupt again that came where Python can only ignore it, such as in `__del__`."""
        if not issubclass(error.exc_type, KeyboardInterrupt):
            sys.__unraisablehook__(error)
            return
        self._since = None
        # A moment later: raised in here, it would be lost again.
        again = threading.Timer(0.01, _thread.interrupt_main)
        again.daemon = True
        again.start()


def was_interrupted(error: BaseException | None) -> bool:
    """Return whether Ctrl-C is behind an error: a library may have turned KeyboardInterrupt into another."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
