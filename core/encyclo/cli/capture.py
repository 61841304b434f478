"""`encyclo capture`: the layers of every token of the user's own texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from encyclo.cli import flags
from encyclo.cli.app import app

if TYPE_CHECKING:
    from encyclo.corpus.job import CaptureJob


@app.command("capture")
def capture_texts(
    texts: Annotated[
        list[Path],
        typer.Argument(metavar="FILES", help="Files of texts: .txt or .md, .jsonl, .parquet."),
    ],
    out: Annotated[Path, typer.Option(help="The capture's folder.")] = Path("capture"),
    field: Annotated[
        str, typer.Option(help="The key or column of the text in JSON Lines and Parquet files.")
    ] = "text",
    lines: Annotated[
        bool, typer.Option("--lines", help="Take each line of a text file as a text, not the whole file.")
    ] = False,
    skip_empty: Annotated[
        bool, typer.Option("--skip-empty", help="Skip and count empty texts instead of refusing them.")
    ] = False,
    tokens: Annotated[
        str, typer.Option(help="The tokens to keep of each text: all, last, spans, or n for every n-th.")
    ] = "all",
    spans_field: Annotated[
        str, typer.Option(help="With --tokens spans, the key or column of the spans: [[start, end], ...].")
    ] = "spans",
    context: Annotated[
        int | None,
        typer.Option(help="The most tokens that the model reads together. [default: 1024, or what it takes]"),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(help="Tokens from one window's start to the next. [default: windows don't overlap]"),
    ] = None,
    layers: flags.Layers = None,
    site: flags.Site = None,
    model: flags.ModelName = None,
    device: flags.Device = None,
    store: flags.Store = None,
    capture: flags.Capture = None,
    option: flags.PluginOption = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Estimate tokens, time and disk; write nothing.")
    ] = False,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Keep the layers of every token of your texts, to train on; the same command resumes an interrupted one."""
    from encyclo.config import load_config, parse_layers
    from encyclo.corpus.capture import capture as write
    from encyclo.corpus.capture import check_out
    from encyclo.corpus.job import prepare
    from encyclo.corpus.settings import make_settings, parse_tokens
    from encyclo.terminal import ConsoleProgress, say, say_json

    check_out(out)
    chosen = {"model": model, "device": device, "store": store, "capture": capture, "site": site}
    chosen["layers"] = parse_layers(layers) if layers else None  # type: ignore[assignment]
    settings = make_settings(
        files=tuple(texts), field=field, spans_field=spans_field, lines=lines, skip_empty=skip_empty,
        context=context, stride=stride, tokens=parse_tokens(tokens),
    )  # fmt: skip
    job = prepare(settings, load_config(chosen, None, option or ()), ConsoleProgress(quiet=as_json), out)
    if plan:
        _plan(job, out, as_json)
        return
    done = write(job, out)
    manifest = done.manifest
    if as_json:
        say_json(
            {"out": str(out), "texts": manifest.texts, "skipped": manifest.skipped, "tokens": manifest.tokens,
             "captured": done.captured, "seconds": done.seconds}
        )  # fmt: skip
        return
    skipped = f" ({manifest.skipped:,} empty ones skipped)" if manifest.skipped else ""
    before = manifest.tokens - done.captured
    say(f"{out}: {manifest.tokens:,} tokens of {manifest.texts:,} texts{skipped}")
    say(
        f"Captured  {done.captured:,} tokens in {done.seconds:,.0f} s"
        + (f", {before:,} before" if before else "")
    )


def _plan(job: CaptureJob, out: Path, as_json: bool) -> None:
    from dataclasses import asdict

    from encyclo.corpus.estimate import estimate
    from encyclo.terminal import say, say_json

    found = estimate(job, out)
    if as_json:
        say_json(asdict(found))
        return
    about = "about " if found.extrapolated else ""
    say(f"Texts     {about}{found.texts:,}")
    say(
        f"Tokens    {about}{found.kept:,} stored, {about}{found.tokens:,} computed, with special and repeated ones"
    )
    if found.stored and not found.tokens_per_second:
        say(f"Stored    {found.stored:,} tokens in {out}: all of them")
        return
    if found.stored:
        say(f"Stored    {found.stored:,} tokens in {out}; time and disk are those of the rest")
    say(f"Time      about {found.seconds:,.0f} s on this machine ({found.tokens_per_second:,.0f} tokens/s)")
    say(f"Disk      about {found.disk_bytes / 2**20:,.0f} MB")
