"""`encyclo converge`: how far a run's signatures have converged."""

from __future__ import annotations

from typing import Annotated

import typer

from encyclo.cli import flags
from encyclo.cli.app import app


@app.command()
def converge(
    directory: flags.RunFolder,
    older: Annotated[
        bool,
        typer.Option(
            "--older/--no-older",
            help="Capture some prompts again by the older protocol, which needs the run's model, for comparison.",
        ),
    ] = False,
    device: flags.Device = None,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Compare halves of the samples by layer and by their number; write DIR's convergence.json."""
    from encyclo.evaluation.converge import converge as measure
    from encyclo.terminal import ConsoleProgress, console, say_json

    found = measure(directory, ConsoleProgress(quiet=as_json), device or "auto", older)
    if as_json:
        say_json({"out": str(directory), **found.as_json()})
        return
    from encyclo.cli.views.convergence import print_convergence

    print_convergence(found, console())
