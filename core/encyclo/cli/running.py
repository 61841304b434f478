"""`encyclo run` and `encyclo plan`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from encyclo.cli import flags
from encyclo.cli.app import app


@app.command()
def run(
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
    out: Annotated[Path, typer.Option(help="The run's directory.")] = Path("encyclopedia"),
    seed: flags.Seed = None,
    config: flags.ConfigFile = None,
    option: flags.PluginOption = None,
    with_: flags.With = None,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Write an encyclopedia into --out; the same command goes on where it stopped."""
    from encyclo.pipeline import run as pipeline
    from encyclo.runs import directory as rundir

    rundir.check_usable(out)
    session = flags.make_session(locals())
    outcome = pipeline.run(session, out)
    if as_json:
        print(json.dumps({"out": str(out), "run": outcome.record, "metrics": outcome.metrics}))
    else:
        from rich.console import Console

        from encyclo.cli.views.summary import print_summary

        print_summary(outcome, Console(highlight=False))
        for remark in outcome.remarks:
            print(f"\n{remark}")


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
    out: Annotated[Path, typer.Option(help="Ignored: nothing is written.")] = Path("encyclopedia"),
    seed: flags.Seed = None,
    config: flags.ConfigFile = None,
    option: flags.PluginOption = None,
    with_: flags.With = None,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Say what a run would take (prompts, tokens, time, memory, disk); writes nothing."""
    from encyclo.pipeline.cost_estimate import plan as make_plan

    costs = asdict(make_plan(flags.make_session(locals())))
    if as_json:
        print(json.dumps(costs))
        return
    print(f"Concepts  {costs['concepts']:,}")
    print(f"Prompts   {costs['prompts']:,} ({costs['tokens']:,} tokens)")
    print(f"Time      about {costs['seconds']:,.0f} s on this machine")
    print(f"Memory    about {costs['memory_bytes'] / 2**30:.1f} GB")
    print(f"Disk      {costs['disk_bytes'] / 2**20:,.0f} MB")
