"""`encyclo report`: the HTML page of a finished run."""

from __future__ import annotations

from encyclo.cli import flags
from encyclo.cli.app import app


@app.command()
def report(directory: flags.RunFolder, as_json: flags.Json = False, debug: flags.Debug = False) -> None:
    """Write report.html again: the run's figures, a map, and every entry, in one file for a browser."""
    from encyclo.report import report_run
    from encyclo.storage.objects import is_remote, url_of
    from encyclo.terminal import say, say_json

    path = report_run(directory)
    size = path.stat().st_size
    if as_json:
        say_json({"out": str(directory), "report": str(path), "bytes": size})
    else:
        first = "download it and " if is_remote(url_of(directory)) else ""
        say(f"Written to {path} ({size / 1e6:.1f} MB); {first}open it in a browser, it needs no network.")
