"""`encyclo plan`: the estimated cost of a run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from encyclo.cli import flags
from encyclo.cli.app import app


@app.command()
def plan(
    sampler: flags.Sampler = None,
    store: flags.Store = None,
    interpreter: flags.Interpreter = None,
    capture: flags.Capture = None,
    concepts: flags.ConceptSource = None,
    limit: flags.Limit = None,
    per_concept: flags.PerConcept = None,
    budget: flags.Budget = None,
    targets: flags.Targets = None,
    layers: flags.Layers = None,
    pooling: flags.Pooling = None,
    model: flags.ModelName = None,
    device: flags.Device = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's directory; an error if a run could not use it.")
    ] = None,
    seed: flags.Seed = None,
    config: flags.ConfigFile = None,
    option: flags.PluginOption = None,
    with_: flags.With = None,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Estimate the prompts, tokens, time, memory and disk of a run; write nothing."""
    from encyclo.pipeline.cost_estimate import estimate_cost
    from encyclo.runs.directory import check_same, check_usable

    if out is not None:
        check_usable(out)
    session = flags.make_session(locals())
    if out is not None:
        check_same(out, session.resolved(), session.default_options())
    costs = asdict(estimate_cost(session))
    if as_json:
        print(json.dumps(costs))
        return
    print(f"Concepts  {costs['concepts']:,}")
    print(f"Prompts   {costs['prompts']:,} ({costs['tokens']:,} tokens)")
    print(f"Time      about {costs['seconds']:,.0f} s on this machine")
    print(f"Memory    about {costs['memory_bytes'] / 2**30:.1f} GB")
    print(f"Disk      {costs['disk_bytes'] / 2**20:,.0f} MB")
