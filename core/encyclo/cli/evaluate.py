"""`encyclo evaluate`: the evaluation ladder of a finished run."""

from __future__ import annotations

from pathlib import Path
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
    text: Annotated[
        Path | None,
        typer.Option(
            help="A UTF-8 file with ordinary text: how much of its activations the entries explain is measured on "
            "its first 2,000 tokens. [default: the concept list's sentences, if it has any]"
        ),
    ] = None,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Measure every rung of the evaluation ladder; write the figures into DIR's metrics.json and report.html."""
    from encyclo.evaluation.evaluate import evaluate as measure
    from encyclo.evaluation.rungs import LIMIT
    from encyclo.terminal import ConsoleProgress, console, say_json

    progress = ConsoleProgress(quiet=as_json)
    metrics = measure(directory, progress, device or "auto", LIMIT if limit is None else limit, text)
    if as_json:
        written = metrics.as_json()
        figures = {key: written[key] for key in ("accuracy", "unfamiliar", "coverage")}
        say_json({"out": str(directory), **figures})
        return
    from encyclo.cli.views.ladder import print_ladder

    print_ladder(metrics, console())
