"""The flags that several commands share, and the checked session that `run` and `plan` make of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

Sampler = Annotated[
    list[str] | None,
    typer.Option(
        "--sampler",
        help="A sampler; repeat for several, by stage. [default: all stages: raw, templates, diverse, adversarial]",
    ),
]
Store = Annotated[str | None, typer.Option(help="The store for the samples. [default: hdf5]")]
Interpreter = Annotated[str | None, typer.Option(help="The interpreter to train. [default: transformer]")]
Capture = Annotated[str | None, typer.Option(help="The plugin that runs the model. [default: transformers]")]
Executor = Annotated[
    str | None, typer.Option(help="What does the units of a run: local, ray or slurm. [default: local]")
]
ConceptSource = Annotated[
    list[str] | None,
    typer.Option(
        "--concepts",
        help="The concept list: core, wordnet, a file of yours, or a plugin; repeat for several. [default: core]",
    ),
]
Examples = Annotated[
    Path | None,
    typer.Option(
        help="A file with the columns concept and sentence; its sentences only test the interpreter.",
        metavar="FILE",
    ),
]
Limit = Annotated[int | None, typer.Option(help="Take only the first LIMIT concepts of the list.")]
PerConcept = Annotated[
    int | None, typer.Option(help="Prompts for each concept from each sampler. [default: 10]")
]
Budget = Annotated[
    int | None,
    typer.Option(
        help="The largest number of samples of one sampler. [default: --per-concept x the number of concepts]"
    ),
]
Targets = Annotated[
    str | None,
    typer.Option(help="The confidence that settles a concept in stages 0 to 3. [default: 0.4,0.7,0.85,0.95]"),
]
Layers = Annotated[
    str | None,
    typer.Option(
        help="Layers as hidden_states indices; negative ones count from the end. [default: -12,-9,-6,-3,-1 of 18 "
        "layers, and the same shares of another depth]"
    ),
]
Site = Annotated[
    str | None,
    typer.Option(
        help="Where the layers are read: resid (the residual stream after a block), or attn or mlp (what attention or "
        "the MLP adds to it). [default: resid]"
    ),
]
Pooling = Annotated[
    str | None, typer.Option(help="The tokens to average: span, last, mean or mean-all. [default: span]")
]
Echo = Annotated[
    bool | None,
    typer.Option(
        "--echo",
        help="Give the model each text twice and read the second copy; capture takes at least twice as long.",
    ),
]
Chat = Annotated[
    bool | None,
    typer.Option("--chat", help="Give the model each text as a message in its chat template."),
]
ChatRole = Annotated[str | None, typer.Option(help="With --chat, the role of the message. [default: user]")]
ChatSystem = Annotated[
    str | None, typer.Option(help="With --chat, the system prompt. [default: the template's own, if any]")
]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="gemma-3-270m, smollm2-135m-instruct, minilm, a hub id, a folder or a .gguf file. "
        "[default: gemma-3-270m]",
    ),
]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda. [default: auto]")]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same result. [default: 0]")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="A TOML file with the same keys.")]
PluginOption = Annotated[
    list[str] | None, typer.Option("-o", help="A plugin's option: NAME.key=value. Repeatable.")
]
With = Annotated[
    list[str] | None,
    typer.Option("--with", help="Enable a plugin's hook wrappers, such as timing. Repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout, and nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
RunFolder = Annotated[Path, typer.Argument(metavar="DIR", help="A run's directory.")]


def takes_flags_of(other: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the flags of `other` through its `**given`; its own parameters replace those of their name."""

    def extended(command: Callable[..., Any]) -> Callable[..., Any]:
        both = [signature(function, eval_str=True).parameters for function in (other, command)]
        parameters = {**both[0], **both[1]}
        del parameters["given"]
        command.__signature__ = Signature(list(parameters.values()))  # type: ignore[attr-defined]
        return command

    return extended


def make_session(given: Mapping[str, Any]) -> Any:
    """Turn the flags that `run` and `plan` share into a checked session."""
    from encyclo.config import RunConfig, load_config, parse_layers, parse_targets
    from encyclo.runs.session import prepare
    from encyclo.terminal import ConsoleProgress

    flags = {key: given[key] for key in RunConfig.model_fields if key in given}
    flags |= {
        "sampler": given["sampler"] or None,
        "concepts": given["concepts"] or None,
        "with": given["with_"] or None,
        "layers": parse_layers(given["layers"]) if given["layers"] else None,
        "targets": parse_targets(given["targets"]) if given["targets"] else None,
    }
    config = load_config(flags, given["config"], given["option"] or ())
    return prepare(config, ConsoleProgress(quiet=given["as_json"]), given["out"] or Path())
