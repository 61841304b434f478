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
    from encyclo.echo import how_given
    from encyclo.pipeline.cost_estimate import estimate_cost
    from encyclo.runs.directory import check_parent, check_same, check_usable
    from encyclo.storage.cache import cache_folder
    from encyclo.storage.objects import folder_of, url_of
    from encyclo.storage.run_location import fetched
    from encyclo.terminal import say, say_json

    url = out and url_of(out)
    if out is not None:
        if url and (folder := folder_of(url)) and not folder.exists():
            check_parent(folder)
        out = fetched(out, record=True)
        check_usable(out)
    session = flags.make_session({**given, "out": out, "as_json": as_json})
    if out is not None:
        check_same(out, session.resolved(), session.default_options())
    estimate = estimate_cost(session)
    costs = {**asdict(estimate), "bottleneck": estimate.bottleneck}
    if as_json:
        say_json(costs)
        return
    how = how_given(session.config.model_dump())
    say(f"Concepts  {costs['concepts']:,}")
    say(f"Prompts   {costs['prompts']:,} ({costs['tokens']:,} tokens{how})")
    workers = estimate.workers
    where = "with workers like this machine" if workers.elsewhere else "on this machine"
    say(f"Time      about {costs['seconds']:,.0f} s {where}")
    steps = [f"{step} {seconds:,.0f} s" for step, seconds in estimate.seconds_by_step.items()]
    say(f"          {', '.join(steps)}: most of it is {estimate.bottleneck}")
    if workers.at_once > 1:
        say(f"          sampling and capture are divided by {workers.at_once:,} workers, judging is not")
    elif workers.number > 1:
        say(f"          not divided by the {workers.number:,} workers: they share this machine's cores")
    if not estimate.judging_measured:
        say(
            "          judging (training, scoring, report) as on another machine, until a run has ended on this one"
        )
    each = f", and {estimate.worker_bytes / 2**30:.1f} GB for each worker" if workers.elsewhere else ""
    say(f"Memory    about {costs['memory_bytes'] / 2**30:.1f} GB{each}")
    copied = f" in {url}, and as much for the copy in {cache_folder()}" if url else ""
    say(f"Disk      {costs['disk_bytes'] / 2**20:,.0f} MB{copied}")
