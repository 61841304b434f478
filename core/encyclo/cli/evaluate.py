"""`encyclo evaluate`: the evaluation ladder of a finished run."""

from __future__ import annotations

from typing import Annotated

import typer

from encyclo.cli import flags
from encyclo.cli.app import app


@app.command()
def evaluate(
    directory: flags.RunFolder,
    device: flags.Device = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="The largest number of sentences and of definitions. [default: 10000]"),
    ] = None,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Measure every rung of the evaluation ladder; write the figures into DIR's metrics.json and report.html."""
    from encyclo.evaluation.evaluate import evaluate as measure
    from encyclo.evaluation.rungs import LIMIT
    from encyclo.terminal import ConsoleProgress, console, say_json

    metrics = measure(
        directory, ConsoleProgress(quiet=as_json), device or "auto", LIMIT if limit is None else limit
    )
    if as_json:
        written = metrics.as_json()
        figures = {key: written[key] for key in ("accuracy", "unfamiliar")}
        say_json({"out": str(directory), **figures})
        return
    from encyclo.cli.views.ladder import print_ladder

    print_ladder(metrics, console())
