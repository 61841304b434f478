"""The command line: parse, call, print. Heavy libraries are imported inside the commands."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

INTERRUPTED = 130

app = typer.Typer(
    name="encyclo",
    help="Writes an encyclopedia of the concepts inside a language model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Sampler = Annotated[
    list[str] | None,
    typer.Option("--sampler", help="A sampler; repeat for several stages. [default: raw, templates]"),
]
Store = Annotated[str | None, typer.Option(help="Where samples are kept. [default: hdf5]")]
Interpreter = Annotated[str | None, typer.Option(help="What reads them. [default: transformer]")]
Capture = Annotated[str | None, typer.Option(help="What runs the model. [default: transformers]")]
ConceptSource = Annotated[str | None, typer.Option("--concepts", help="A concept list. [default: core]")]
Limit = Annotated[int | None, typer.Option(help="Only the first so many concepts.")]
PerConcept = Annotated[int | None, typer.Option(help="Prompts a concept and stage. [default: 10]")]
Layers = Annotated[
    str | None, typer.Option(help="hidden_states indices, negative from the end. [default: -12,-9,-6,-3,-1]")
]
Pooling = Annotated[str | None, typer.Option(help="span, last, mean or mean-all. [default: span]")]
ModelName = Annotated[
    str | None,
    typer.Option("--model", help="gemma-3-270m, a hub id, a folder or a .gguf file. [default: gemma-3-270m]"),
]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda. [default: auto]")]
Seed = Annotated[int | None, typer.Option(help="Same seed, same result. [default: 0]")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="A TOML file with the same keys.")]
PluginOption = Annotated[
    list[str] | None, typer.Option("-o", help="A plugin's option: NAME.key=value. Repeatable.")
]
With = Annotated[list[str] | None, typer.Option("--with", help="Opt in a plugin's hook wrappers.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
RunFolder = Annotated[Path, typer.Argument(metavar="DIR", help="A run's directory.")]


def _version(asked: bool) -> None:
    if asked:
        from encyclo import __version__

        print(f"encyclo {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Read `encyclo COMMAND --help` for a command's options."""


@app.command()
def run(
    sampler: Sampler = None,
    store: Store = None,
    interpreter: Interpreter = None,
    capture: Capture = None,
    concepts: ConceptSource = None,
    limit: Limit = None,
    per_concept: PerConcept = None,
    layers: Layers = None,
    pooling: Pooling = None,
    model: ModelName = None,
    device: Device = None,
    out: Annotated[Path, typer.Option(help="The run's directory.")] = Path("encyclopedia"),
    seed: Seed = None,
    config: ConfigFile = None,
    option: PluginOption = None,
    with_: With = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write an encyclopedia into --out; the same command goes on where it stopped."""
    from encyclo import pipeline, rundir

    rundir.check_usable(out)
    session = _session(locals())
    outcome = pipeline.run(session, out)
    if as_json:
        print(json.dumps({"out": str(out), "run": outcome.record, "metrics": outcome.metrics}))
    else:
        from rich.console import Console

        from encyclo.summary import print_summary

        print_summary(outcome, Console(highlight=False))


@app.command()
def plan(
    sampler: Sampler = None,
    store: Store = None,
    interpreter: Interpreter = None,
    capture: Capture = None,
    concepts: ConceptSource = None,
    limit: Limit = None,
    per_concept: PerConcept = None,
    layers: Layers = None,
    pooling: Pooling = None,
    model: ModelName = None,
    device: Device = None,
    out: Annotated[Path, typer.Option(help="Ignored: nothing is written.")] = Path("encyclopedia"),
    seed: Seed = None,
    config: ConfigFile = None,
    option: PluginOption = None,
    with_: With = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what a run would take (prompts, tokens, time, memory, disk); writes nothing."""
    from encyclo.planning import plan as make_plan

    costs = asdict(make_plan(_session(locals())))
    if as_json:
        print(json.dumps(costs))
        return
    print(f"Concepts  {costs['concepts']:,}")
    print(f"Prompts   {costs['prompts']:,} ({costs['tokens']:,} tokens)")
    print(f"Time      about {costs['seconds']:,.0f} s on this machine")
    print(f"Memory    about {costs['memory_bytes'] / 2**30:.1f} GB")
    print(f"Disk      {costs['disk_bytes'] / 2**20:,.0f} MB")


@app.command()
def plugins(as_json: Json = False, debug: Debug = False) -> None:
    """List every installed plugin: name, hooks, package, version, or why it would not load."""
    from encyclo.plugins import Plugins

    rows = Plugins().describe()
    if as_json:
        print(json.dumps({"plugins": [asdict(row) for row in rows]}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("Name", "Hooks", "Package", box=None, pad_edge=False)
    for row in rows:
        hooks = row.error or ", ".join(row.hooks)
        table.add_row(row.name, hooks, f"{row.package} {row.version}")
    Console(highlight=False, markup=False).print(table)


@app.command()
def show(
    directory: RunFolder,
    concept: Annotated[str, typer.Argument(help="A concept's name.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show one entry: signature, confidence, nearest and most confused concepts, prompts."""
    from encyclo.encyclopedia import open_run
    from encyclo.summary import entry_json, print_entry

    with open_run(directory) as book:
        if as_json:
            print(json.dumps(entry_json(book, concept)))
        else:
            from rich.console import Console

            print_entry(book, concept, Console(highlight=False))


def _session(given: dict[str, Any]) -> Any:
    """Turn the flags that `run` and `plan` share into a checked session."""
    from encyclo.config import load_config, parse_layers
    from encyclo.progress import ConsoleProgress
    from encyclo.session import prepare

    plain = ("store", "interpreter", "capture", "concepts", "limit", "per_concept", "pooling", "model")
    flags = {key: given[key] for key in (*plain, "device", "seed")}
    flags["sampler"] = tuple(given["sampler"]) if given["sampler"] else None
    flags["with"] = tuple(given["with_"]) if given["with_"] else None
    flags["layers"] = parse_layers(given["layers"]) if given["layers"] else None
    config = load_config(flags, given["config"], given["option"] or ())
    return prepare(config, ConsoleProgress(quiet=given["as_json"]))


def main() -> NoReturn:
    """Run the command line and leave with its exit code: 0 done, 1 failed, 2 bad usage, 130 interrupted."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run the command line in this process and return its exit code."""
    from encyclo.errors import EncycloError

    try:
        result = app(args=arguments, standalone_mode=False)
        if result == INTERRUPTED:  # how typer hands on Ctrl-C
            raise KeyboardInterrupt
        return result if isinstance(result, int) else 0
    except EncycloError as error:
        if "--debug" in arguments:
            raise
        print(f"encyclo: {error}", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("encyclo: stopped; the same command goes on where it stopped.", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        # click's own usage errors know how to show themselves and carry exit code 2.
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()
            return int(error.exit_code)
        if "--debug" in arguments:
            raise
        print(
            f"encyclo: unexpected {type(error).__name__}: {error}; --debug shows where it comes from.",
            file=sys.stderr,
        )
        return 1
