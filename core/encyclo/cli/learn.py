"""`encyclo learn`: learn from labelled sentences which entry a word means, or none."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from encyclo.cli import flags
from encyclo.cli.app import app


@app.command()
def learn(
    directory: flags.RunFolder,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Sentences with labelled mentions: CSV, TSV or JSON Lines with the columns concept, sentence, start, "
            "end and source.",
        ),
    ],
    device: flags.Device = None,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Learn from labelled sentences which of a word's entries `read` should read, or none of them."""
    from encyclo.pipeline.learn import learn as fit
    from encyclo.terminal import ConsoleProgress, say, say_json

    reader = fit(directory, file, ConsoleProgress(quiet=as_json), device or "auto")
    words = len({word for word, _ in reader.means.place})
    if as_json:
        say_json({"out": str(directory), "mentions": reader.n, "words": words})
        return
    say(
        f"Learned from {reader.n:,} mentions of {words:,} words; `encyclo read {directory}` uses it from now on."
    )
