"""`encyclo run`: write an encyclopedia, or resume one."""

from __future__ import annotations

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
    executor: flags.Executor = None,
    concepts: flags.ConceptSource = None,
    examples: flags.Examples = None,
    limit: flags.Limit = None,
    per_concept: flags.PerConcept = None,
    budget: flags.Budget = None,
    targets: flags.Targets = None,
    layers: flags.Layers = None,
    site: flags.Site = None,
    pooling: flags.Pooling = None,
    echo: flags.Echo = None,
    chat: flags.Chat = None,
    chat_role: flags.ChatRole = None,
    chat_system: flags.ChatSystem = None,
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
    """Write an encyclopedia into --out; the same command resumes an interrupted run."""
    from encyclo.pipeline.run import run as write
    from encyclo.runs.directory import check_usable
    from encyclo.storage.run_location import opened
    from encyclo.terminal import console, say, say_json

    given = locals()
    with opened(out) as folder:
        check_usable(folder)
        outcome = write(flags.make_session({**given, "out": folder}), folder)
    if as_json:
        metrics = outcome.metrics.as_json()
        say_json({"out": str(folder), "run": outcome.record, "metrics": metrics})
        return
    from encyclo.cli.views.summary import print_summary

    print_summary(outcome, console())
    for remark in outcome.remarks:
        say(f"\n{remark}")
