"""`encyclo new-plugin`: a package to start a plugin from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from encyclo.cli import flags
from encyclo.cli.app import app


@app.command("new-plugin")
def new_plugin(
    name: Annotated[str, typer.Argument(help="The plugin's name on the command line.")],
    hook: Annotated[str, typer.Option(help="The hook to implement, such as sample_prompts.")],
    out: Annotated[Path, typer.Option(help="The parent folder of the new package.")] = Path(),
    debug: flags.Debug = False,
) -> None:
    """Write a small package with one plugin and its contract test."""
    from encyclo.scaffold import write_package
    from encyclo.terminal import say

    folder = write_package(name, hook, out)
    say(f"Wrote {folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}")
    say(f"Next: pip install -e '{folder}[test]' && pytest {folder}")
