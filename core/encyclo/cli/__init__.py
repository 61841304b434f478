"""The command line: parse, call, print. Heavy libraries are imported inside the commands.

Each command has its own module, which adds it to `app`. `views` formats the output.
"""

from __future__ import annotations

import io
import sys
import traceback
from typing import NoReturn

import typer

from encyclo.cli import (
    converge,
    convert,
    evaluate,
    export,
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

__all__ = [
    "app",
    "converge",
    "convert",
    "evaluate",
    "export",
    "main",
    "new_plugin",
    "plan",
    "plugins",
    "read",
    "report",
    "run",
    "run_command",
    "show",
    "verify",
]

INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line and leave with its exit code: 0 done, 1 failed, 2 bad usage, 130 interrupted."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run the command line in this process and return its exit code."""
    from encyclo.errors import EncycloError
    from encyclo.terminal import warn, warn_lines

    try:
        result = app(args=arguments, standalone_mode=False)
        if result == INTERRUPTED:  # how typer hands on Ctrl-C
            raise KeyboardInterrupt
        return result if isinstance(result, int) else 0
    except EncycloError as error:
        if "--debug" in arguments:
            return _show_traceback(error, error.exit_code)
        warn(f"encyclo: {error}")
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        warn("encyclo: stopped; the same command goes on where it stopped.")
        return INTERRUPTED
    except Exception as error:
        # click's own usage errors know how to show themselves and carry exit code 2.
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show(shown := io.StringIO())
            warn_lines(shown.getvalue())
            return int(error.exit_code)
        if "--debug" in arguments:
            return _show_traceback(error, 1)
        warn(f"encyclo: unexpected {type(error).__name__}: {error}; --debug shows where it comes from.")
        return 1


def _show_traceback(error: Exception, code: int) -> int:
    from encyclo.terminal import warn_lines

    warn_lines("".join(traceback.format_exception(error)))
    return code
