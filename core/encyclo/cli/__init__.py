"""The command line: parse, call, print. Heavy libraries are imported inside the commands.

Each command has its own module, which adds it to `app`. `views` formats the output.
"""

from __future__ import annotations

import io
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer

from encyclo.cli import (  # noqa: F401 - each of them adds its command to `app`
    capture,
    converge,
    convert,
    evaluate,
    export,
    learn,
    new_plugin,
    plan,
    plugins,
    read,
    report,
    run,
    show,
    verify,
)
from encyclo.cli.app import app
from encyclo.cli.interrupts import EXIT_CODE, STOPPED, Interrupts, was_interrupted
from encyclo.cli.threads import let_waiting_threads_sleep

__all__ = ["app", "main", "run_command"]


def main() -> NoReturn:
    """Run the command line and exit with its code: 0 done, 1 failed, 2 bad usage, 130 interrupted."""
    let_waiting_threads_sleep()
    interrupts = Interrupts()
    interrupts.install()
    interrupts.leave(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run the command line in this process and return its exit code."""
    from encyclo.errors import AmbiguousNameError, EncycloError
    from encyclo.terminal import warn, warn_lines

    try:
        with _plain_warnings():
            result = app(args=arguments, standalone_mode=False)
        if result == EXIT_CODE:  # how typer hands on Ctrl-C
            raise KeyboardInterrupt
        return result if isinstance(result, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return _stopped()
    except Exception as error:
        if was_interrupted(error):
            return _stopped()
        # click's own usage errors can show themselves and have the exit code 2.
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show(shown := io.StringIO())
            warn_lines(shown.getvalue())
            return int(error.exit_code)
        if "--debug" in arguments:
            warn_lines("".join(traceback.format_exception(error)))
            return getattr(error, "exit_code", 1)
        if isinstance(error, AmbiguousNameError):
            warn(f"encyclo: {error.question}:")
            width = max(map(len, error.senses))
            for chooses, definition in error.senses.items():
                warn(f"  {chooses:<{width}}  {definition}".rstrip())
            return error.exit_code
        if isinstance(error, EncycloError):
            warn(f"encyclo: {error}")
            return error.exit_code
        warn(f"encyclo: unexpected {type(error).__name__}: {error}; --debug shows where it was raised.")
        return 1


def _stopped() -> int:
    print(STOPPED, file=sys.stderr)
    return EXIT_CODE


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print each of encyclo's own warnings once, as one line on stderr."""
    from encyclo.errors import EncycloWarning
    from encyclo.terminal import warn

    with warnings.catch_warnings():
        warnings.simplefilter("always", EncycloWarning)
        usual, shown = warnings.showwarning, set[str]()

        def show(message: Warning | str, category: type[Warning], *more: Any, **named: Any) -> None:
            if not issubclass(category, EncycloWarning):
                usual(message, category, *more, **named)
            elif str(message) not in shown:
                shown.add(str(message))
                warn(f"Warning: {message}")

        warnings.showwarning = show
        yield
