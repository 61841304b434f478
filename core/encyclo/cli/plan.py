"""`encyclo plan`: the estimated cost of a run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from encyclo.cli import flags
from encyclo.cli.app import app
from encyclo.cli.run import run


@app.command()
@flags.takes_flags_of(run)
def plan(
    out: Annotated[
        Path | None, typer.Option(help="The run's directory; an error if a run could not use it.")
    ] = None,
    as_json: flags.Json = False,
    **given: Any,
) -> None:
    """Estimate the prompts, tokens, time, memory and disk of a run; write nothing."""
    from encyclo.echo import REMARK
    from encyclo.pipeline.cost_estimate import estimate_cost
    from encyclo.runs.directory import check_same, check_usable
    from encyclo.terminal import say, say_json

    if out is not None:
        check_usable(out)
    session = flags.make_session({**given, "out": out, "as_json": as_json})
    if out is not None:
        check_same(out, session.resolved(), session.default_options())
    costs = asdict(estimate_cost(session))
    if as_json:
        say_json(costs)
        return
    twice = f", {REMARK}" if session.config.echo else ""
    say(f"Concepts  {costs['concepts']:,}")
    say(f"Prompts   {costs['prompts']:,} ({costs['tokens']:,} tokens{twice})")
    say(f"Time      about {costs['seconds']:,.0f} s on this machine")
    say(f"Memory    about {costs['memory_bytes'] / 2**30:.1f} GB")
    say(f"Disk      {costs['disk_bytes'] / 2**20:,.0f} MB")
