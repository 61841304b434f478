"""`encyclo show`: one entry."""

from __future__ import annotations

from typing import Annotated

import typer

from encyclo.cli import flags
from encyclo.cli.app import app


@app.command()
def show(
    directory: flags.RunFolder,
    concept: Annotated[str, typer.Argument(help="A concept's name.")],
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Show one entry: signature, confidence, nearest and most confused concepts, prompts."""
    from encyclo.cli.views.entry import entry_json, print_entry
    from encyclo.query.encyclopedia import open_run
    from encyclo.terminal import console, say_json

    with open_run(directory) as book:
        if as_json:
            say_json(entry_json(book, concept))
        else:
            print_entry(book, concept, console())
