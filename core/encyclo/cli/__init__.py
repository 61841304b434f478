"""The command line: parse, call, print. Heavy libraries are imported inside the commands.

Each command has its own module, which adds it to `app`. `views` formats the output.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from encyclo.cli import (  # noqa: F401 - each of them adds its command to `app`
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

__all__ = ["app", "main", "run_command"]

INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line and exit with its code: 0 done, 1 failed, 2 bad usage, 130 interrupted."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run the command line in this process and return its exit code."""
    from encyclo.errors import EncycloError

    try:
        result = app(args=arguments, standalone_mode=False)
        if result == INTERRUPTED:  # how typer hands on Ctrl-C
            raise KeyboardInterrupt
        return result if isinstance(result, int) else 0
    except EncycloError as error:
        if "--debug" in arguments:
            raise
        print(f"encyclo: {error}", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("encyclo: stopped; run the same command to continue.", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        # click's own usage errors can show themselves and have the exit code 2.
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()
            return int(error.exit_code)
        if "--debug" in arguments:
            raise
        print(
            f"encyclo: unexpected {type(error).__name__}: {error}; --debug shows where it was raised.",
            file=sys.stderr,
        )
        return 1
