"""`encyclo verify`: the integrity of a run."""

from __future__ import annotations

from typing import Annotated

import typer

from encyclo.cli import flags
from encyclo.cli.app import app


@app.command()
def verify(
    directory: flags.RunFolder,
    seal: Annotated[
        bool, typer.Option("--seal", help="Seal a run of the first version as it is, if nothing is wrong.")
    ] = False,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="First remove what killed processes left: parts that no commit names."),
    ] = False,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> int:
    """Check every checksum and invariant of a run; say what is wrong and what can be recovered."""
    from encyclo.maintenance.verify import verify as check
    from encyclo.terminal import say, say_json
    from encyclo.text import one_line

    report = check(directory, seal, prune)
    if as_json:
        say_json(report.json())
        return int(bool(report.findings))
    for finding in report.findings:
        say(one_line(str(finding)))
    state = f"a finished {report.kind}" if report.finished else f"a {report.kind} that is not finished"
    what = "samples" if report.kind == "run" else "tokens"
    amount = f"{state}, {report.units:,} unit{'s' * (report.units != 1)}, {report.samples:,} {what}"
    count = len(report.findings)
    say(
        f"{directory}: {f'{count} findings' if count > 1 else 'one finding' if count else 'whole'} ({amount})"
    )
    return int(bool(count))
