"""Progress of long work: a bar with rate and time left on a terminal, plain lines elsewhere (stderr)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

SECONDS_BETWEEN_LINES = 10.0


class ConsoleProgress:
    """Shows progress on stderr; `quiet` shows nothing."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)

    def stage(self, title: str) -> None:
        """Announce the step that begins."""
        if not self._quiet:
            self._console.print(title, markup=False)

    @contextmanager
    def track(self, title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """Show a bar while the block runs; the block gets a function to call with each amount done."""
        if self._quiet or total == 0:
            yield lambda _: None
        elif self._console.is_terminal:
            with self._bar() as bar:
                task = bar.add_task(title, total=total, rate="")
                counter = _Counter(total)

                def advance(amount: int) -> None:
                    bar.update(task, advance=amount, rate=f"{counter.add(amount):,.0f} {unit}/s")

                yield advance
        else:
            yield _lines(title, total, unit)

    def _bar(self) -> RichProgress:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
        )


class _Counter:
    """Counts what is done, and its rate since the start."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self._begun = time.perf_counter()

    def add(self, amount: int) -> float:
        self.done += amount
        return self.done / max(time.perf_counter() - self._begun, 1e-9)


def _lines(title: str, total: int, unit: str) -> Callable[[int], None]:
    counter = _Counter(total)
    last = time.perf_counter()

    def advance(amount: int) -> None:
        nonlocal last
        rate, now = counter.add(amount), time.perf_counter()
        if counter.done >= total or now - last >= SECONDS_BETWEEN_LINES:
            print(
                f"{title}: {counter.done:,} of {total:,}, {rate:,.0f} {unit}/s", file=sys.stderr, flush=True
            )
            last = now

    return advance
