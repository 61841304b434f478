"""`encyclo plugins`: the installed plugins."""

from __future__ import annotations

from dataclasses import asdict

from encyclo.cli import flags
from encyclo.cli.app import app


@app.command()
def plugins(as_json: flags.Json = False, debug: flags.Debug = False) -> None:
    """List every installed plugin: name, hooks, package, version, and the error if it does not load."""
    from encyclo.plugins.manager import Plugins
    from encyclo.terminal import console, say_json

    rows = Plugins().describe()
    if as_json:
        say_json({"plugins": [asdict(row) for row in rows]})
        return
    from encyclo.cli.views.tables import columns

    table = columns("Name", "Hooks", "Package", "State", wrapped={"Hooks", "State"})
    for row in rows:
        table.add_row(row.name, ", ".join(row.hooks), f"{row.package} {row.version}", row.error or row.state)
    console().print(table)
