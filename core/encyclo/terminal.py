"""What reaches the terminal: lines, JSON, tables and progress, all of it through this module.

A text may be somebody else's: a concept's name, a file's, a plugin's message. `printable` escapes what would
control the terminal, here, whichever command prints it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from encyclo.text import named, one_line, printable

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

SECONDS_BETWEEN_LINES = 10.0
UNBOUNDED = 10_000
"""The width of what is no terminal, in characters."""

_output: TextIO | None = None
"""The command's own output while `own_output` keeps others away from it; None: sys.stdout."""


class SafeConsole(Console):
    """A console of rich that takes no markup and prints no character that controls the terminal, but its own."""

    def __init__(self, **more: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **more)

    def render_str(self, text: str, **more: Any) -> Text:
        """Return a text, escaped before anything is laid out."""
        return super().render_str(printable(named(text)), **more)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the pieces of anything that rich can print, escaped."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(printable(text), style)


def say(text: str, end: str = "\n") -> None:
    """Print the command's output."""
    print(printable(named(text)), end=end, file=_output or sys.stdout)


def say_json(value: Any) -> None:
    """Print a value as JSON on one line."""
    say(json_text(value))


def json_text(value: Any) -> str:
    r"""Return JSON in ASCII; DEL, which JSON allows in a text, is written as `\u007f`."""
    return json.dumps(value).replace("\x7f", "\\u007f")


def warn(text: str) -> None:
    """Print an error or a warning on stderr, on one line."""
    print(one_line(named(text)), file=sys.stderr)


def warn_lines(text: str) -> None:
    """Print lines of encyclo's own, such as a traceback, on stderr."""
    print(printable(text.rstrip("\n")), file=sys.stderr)


def console() -> Console:
    """Return the console for a command's tables and styled text.

    What is no terminal has no width, unless COLUMNS sets one: a file or another program gets each row on one line.
    """
    file = _output or sys.stdout
    return SafeConsole(file=file, width=None if file.isatty() or "COLUMNS" in os.environ else UNBOUNDED)


@contextmanager
def own_output() -> Iterator[None]:
    """Keep stdout for the command's own output while the block runs: what a plugin prints goes to stderr.

    So does what its threads and its processes print, and a library that is not written in Python.
    """
    global _output
    if _output is not None:  # inside another such block
        yield
        return
    with _moved_stdout() as own, redirect_stdout(sys.stderr):
        _output = own
        try:
            yield
        finally:
            _output = None


@contextmanager
def _moved_stdout() -> Iterator[TextIO]:
    """Give a file that writes where stdout does; in a process's own stdout, let descriptor 1 be stderr's."""
    own: TextIO = sys.stdout
    if os.name == "nt" or not _is_the_process_s(own, sys.__stdout__, 1):
        yield own
        return
    own.flush()
    with open(os.dup(1), "w", encoding=own.encoding, errors=own.errors) as moved:
        os.dup2(2, 1)
        try:
            yield moved
        finally:
            own.flush()  # to stderr
            os.dup2(moved.fileno(), 1)


def _is_the_process_s(file: TextIO, at_start: TextIO | None, number: int) -> bool:
    """Return whether a standard stream is the one that the process began with, not a test's or a notebook's."""
    return file is not None and file is at_start and file.fileno() == number


class ConsoleProgress:
    """Shows progress on stderr: a bar with rate and time left on a terminal, plain lines elsewhere.

    `quiet` shows nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = SafeConsole(stderr=True, soft_wrap=True)

    def stage(self, title: str) -> None:
        """Announce the step that begins."""
        if not self._quiet:
            self._console.print(one_line(title))

    @contextmanager
    def track(
        self, title: str, total: int, unit: str, rate: Callable[[], str] | None = None
    ) -> Iterator[Callable[[int], None]]:
        """Show a bar while the block runs; the block gets a function to call with each amount done.

        Beside it is the amount a second, or what `rate` returns.
        """
        if self._quiet or total == 0:
            yield lambda _: None
        elif self._console.is_terminal:
            with self._bar() as bar:
                task = bar.add_task(one_line(title), total=total, rate="")
                counter = _Counter(total, unit, rate)

                def advance(amount: int) -> None:
                    counter.add(amount)
                    bar.update(task, advance=amount, rate=one_line(counter.rate()))

                yield advance
        else:
            yield _lines(title, _Counter(total, unit, rate))

    def _bar(self) -> RichProgress:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        return Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=self._console,
        )


class _Counter:
    """Counts what is done, and says its rate since the start, or what `rate` returns."""

    def __init__(self, total: int, unit: str, rate: Callable[[], str] | None) -> None:
        self.total, self.done = total, 0
        self.rate = rate or self._per_second
        self._unit, self._begun = unit, time.perf_counter()

    def add(self, amount: int) -> None:
        self.done += amount

    def said(self) -> str:
        """Say how much is done, with the unit if the rate doesn't have it."""
        unit = "" if self.rate == self._per_second else f" {self._unit}"
        return f"{self.done:,} of {self.total:,}{unit}, {self.rate()}"

    def _per_second(self) -> str:
        seconds = max(time.perf_counter() - self._begun, 1e-9)
        return f"{self.done / seconds:,.0f} {self._unit}/s"


def _lines(title: str, counter: _Counter) -> Callable[[int], None]:
    last = time.perf_counter()

    def advance(amount: int) -> None:
        nonlocal last
        counter.add(amount)
        now = time.perf_counter()
        if counter.done >= counter.total or now - last >= SECONDS_BETWEEN_LINES:
            warn(f"{title}: {counter.said()}")
            last = now

    return advance
