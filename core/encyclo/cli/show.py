"""`encyclo show`: one entry."""

from __future__ import annotations

import json
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

    with open_run(directory) as book:
        if as_json:
            print(json.dumps(entry_json(book, concept)))
        else:
            from rich.console import Console

            print_entry(book, concept, Console(highlight=False))
