"""`encyclo export`: vectors, interpreter, entries and control vectors for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from encyclo.cli import flags
from encyclo.cli.app import app


@app.command()
def export(
    directory: flags.RunFolder,
    out: Annotated[Path, typer.Option(help="The folder to write; it must be new or empty.")],
    control: Annotated[
        list[str] | None,
        typer.Option(help="Write a llama.cpp control vector of this concept. Repeatable."),
    ] = None,
    model_hint: Annotated[
        str | None,
        typer.Option(
            help="The value of controlvector.model_hint in the control vectors. [default: the model's name]"
        ),
    ] = None,
    no_parquet: Annotated[bool, typer.Option("--no-parquet", help="Leave out entries.parquet.")] = False,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Write concept vectors and interpreter as safetensors, and entries as CSV and Parquet."""
    from encyclo.export.export import export as write
    from encyclo.terminal import say, say_json

    metadata = write(directory, out, tuple(control or ()), model_hint, parquet=not no_parquet)
    if as_json:
        say_json({"out": str(out), **metadata})
        return
    say(f"Wrote {out}: {len(metadata['concepts']):,} concepts of {metadata['model']}")
    for name, file in metadata["files"].items():
        say(f"  {name}  {file['bytes']:,} bytes")
