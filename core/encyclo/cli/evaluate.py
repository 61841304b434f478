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
    running_text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A .csv, .tsv or .jsonl file with running text: columns concept, sentence, start, end, source. The "
            "sentences of a source are one document. Every mention of an entry has a line; words without one mean "
            "no entry. A line with the concept ? marks words that are not judged, an empty concept marks nothing.",
        ),
    ] = None,
    words: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Read the first sources of --running-text with at most so many words. [default: 20000]",
        ),
    ] = None,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Measure every rung of the evaluation ladder; write the figures into DIR's metrics.json and report.html."""
    from encyclo.evaluation.evaluate import evaluate as measure
    from encyclo.evaluation.labelled_text import WORDS
    from encyclo.evaluation.rungs import LIMIT
    from encyclo.terminal import ConsoleProgress, console, say_json

    progress = ConsoleProgress(quiet=as_json)
    limit, words = limit or LIMIT, words or WORDS
    metrics = measure(directory, progress, device or "auto", limit, text, running_text, words)
    if as_json:
        written = metrics.as_json()
        keys = ("accuracy", "unfamiliar", "absent", "coverage", "running_text")
        figures = {key: written.get(key) for key in keys}
        say_json({"out": str(directory), **figures})
        return
    from encyclo.cli.views.ladder import print_ladder

    print_ladder(metrics, console())
