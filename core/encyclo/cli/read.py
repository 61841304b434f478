"""`encyclo read`: the likeliest concepts at each token of a text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from encyclo.cli import flags
from encyclo.cli.app import app

if TYPE_CHECKING:
    from encyclo.query.readings import TokenReading


@app.command()
def read(
    directory: flags.RunFolder,
    text: Annotated[str | None, typer.Argument(help="The text to read.")] = None,
    file: Annotated[Path | None, typer.Option(help="Read a UTF-8 file instead, as a stream.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Concepts shown at each token.")] = 3,
    at_least: Annotated[float, typer.Option(min=0, max=1, help="Abstain below this confidence.")] = 0.5,
    any_word: Annotated[
        bool,
        typer.Option(help="Read every token, also where no entry's word stands; confidences may be wrong."),
    ] = False,
    chat: Annotated[
        bool,
        typer.Option(
            "--chat",
            help="In a run with --chat: the text or file is a conversation in JSON, a list of messages with role and "
            "content.",
        ),
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page with a heat map to this file.")] = None,
    device: flags.Device = None,
    model: Annotated[
        str | None, typer.Option(help="The run's model, if it has another name or place now.")
    ] = None,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Read a text: print the likeliest concepts at each token, with calibrated confidences."""
    from encyclo.chat import joined, message_places, parse_conversation
    from encyclo.errors import UsageError
    from encyclo.query.encyclopedia import open_run
    from encyclo.query.evidence import reader_basis
    from encyclo.query.text_reader import read_pieces
    from encyclo.terminal import ConsoleProgress, console, say
    from encyclo.text import named

    if (text is None) == (file is None):
        raise UsageError("Give a text, or a file with --file: one of the two.")
    if text is not None and not text.strip():
        raise UsageError(
            "There is nothing to read: the text is empty or blank; give words, or a file with --file."
        )
    messages = None
    if chat:
        messages = parse_conversation(text or "".join(read_pieces(file or Path())))
        text, file = joined(messages), None
    with open_run(directory) as book:
        if messages and not book.chat:
            raise UsageError(
                f"The run in {directory} was made without --chat, so its interpreter reads no conversations; read "
                "a text without --chat, or make a run with it."
            )
        progress = ConsoleProgress(quiet=as_json)
        reader = book.reader(device or "auto", model, progress)
        basis = reader_basis(reader)
        found = book.own_readings
        own = None if found is None else dict(zip(book.book.concepts.id, found.tolist(), strict=True))
        counted = "; n is the number of the entry's own held-out readings" if own else ""
        progress.stage(f"Confidences are {basis}{counted}")
        if html is not None:
            # The page holds the whole text, so memory may as well.
            text, file = text if file is None else "".join(read_pieces(file)), None
        if messages:
            readings = reader.read_conversation(messages, top, at_least, any_word)
        else:
            readings = reader.read(read_pieces(file) if file else text or "", top, at_least, any_word)
        if html is not None:
            from encyclo.report import write_reading

            readings = iter(kept := list(readings))
            write_reading(
                html, text or "", kept, reader.model.name, named(str(directory)), at_least, basis, own
            )
        if as_json:
            more = {"messages": message_places(messages)} if messages else {}
            _say_json(
                {
                    "out": str(directory),
                    "model": reader.model.name,
                    "calibrated": reader.calibrator is not None,
                    "at_least": at_least,
                    **more,
                },
                readings,
            )
        elif html is not None:
            say(f"Written to {html} ({len(kept):,} tokens); open it in a browser, it needs no network.")
        else:
            from encyclo.cli.views.heat_map import print_readings

            print_readings(readings, text, console(), own)


def _say_json(head: dict[str, Any], readings: Iterable[TokenReading]) -> None:
    """Print one object, written as it is read: a whole book needs no memory for itself."""
    from encyclo.terminal import json_text, say

    say(json_text(head)[:-1] + ', "tokens": [', end="")
    for number, reading in enumerate(readings):
        say(", " * (number > 0) + json_text(asdict(reading)), end="")
    say("]}")
