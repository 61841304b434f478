"""The command line's application; every module of commands adds its own to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
import typer.core
from typer.models import CommandFunctionType as Command

ORDER = (
    "run",
    "plan",
    "show",
    "read",
    "learn",
    "capture",
    "evaluate",
    "converge",
    "verify",
    "convert",
    "report",
    "export",
)
"""The commands in the order of `--help`; others come last."""


class InOrder(typer.core.TyperGroup):
    """Lists the commands in `ORDER`, whichever module added them first."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands' names as `--help` lists them."""
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


class OwnOutput(typer.core.TyperCommand):
    """A command that has stdout for itself: what plugins print goes to stderr."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        from encyclo.terminal import own_output

        with own_output():
            return super().invoke(ctx)


class App(typer.Typer):
    """An application whose commands are of the class `OwnOutput`."""

    def command(self, name: str | None = None, **more: Any) -> Callable[[Command], Command]:
        """Return the decorator that adds a function as a command."""
        return super().command(name, cls=OwnOutput, **more)


app = App(
    cls=InOrder,
    name="encyclo",
    help="Writes an encyclopedia of the concepts inside a language model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        from encyclo.terminal import say
        from encyclo.version import __version__

        say(f"encyclo {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """`encyclo COMMAND --help` lists a command's options."""
