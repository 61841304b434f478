"""`encyclo convert`: the same run in another store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from encyclo.cli import flags
from encyclo.cli.app import app


@app.command()
def convert(
    directory: flags.RunFolder,
    store: Annotated[str, typer.Option(help="The store to copy the run to.")],
    out: Annotated[Path, typer.Option(help="The new run's directory.")],
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Copy a run to another store, bit for bit."""
    from encyclo.maintenance.convert import convert as copy
    from encyclo.terminal import say, say_json

    copy(directory, store, out)
    if as_json:
        say_json({"out": str(out), "store": store})
    else:
        say(f"{directory} is now in {out} as well, in the store {store}; `encyclo verify {out}` checks it.")
