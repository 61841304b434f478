"""Wrapper `timing`: measures a run's time per stage and hook.

`--with timing` prints a table after the run and writes it to plugins/timing/timing.json in the run. Samplers and
captures are generators: only the time inside their iteration counts, not the core's work between two items. A store's
methods count under `store_activations`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from encyclo import hookimpl
from encyclo.storage import files
from encyclo.types import Context

T = TypeVar("T")
REST = "everything else"


@dataclass
class Row:
    """The time of one hook in one stage; stage None is before the first stage."""

    stage: int | None
    hook: str
    calls: int
    seconds: float


class TimedStore:
    """Times a store's methods; its other attributes pass through."""

    def __init__(self, store: Any, timing: Timing) -> None:
        self._store, self._timing = store, timing

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._store, name)
        return self._timed(name, value) if callable(value) else value

    def _timed(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            with self._timing.clock(f"store_activations: {name}"):
                return method(*arguments, **named)

        return call


def _timed(hook: str, lazy: bool = False) -> Any:
    """Return a wrapper that times `hook`; a `lazy` one gives items, and the time inside their iteration counts."""

    @hookimpl(wrapper=True)
    def call(self: Timing) -> Generator[None, Any, Any]:
        with self.clock(hook):
            result = yield
        return self.iterate(hook, result) if lazy else result

    return call


class Timing:
    """Sums the seconds per stage and hook. encyclo creates a new instance for every run."""

    def __init__(self) -> None:
        self.begun = time.perf_counter()
        self.stage: int | None = None
        self.rows: dict[tuple[int | None, str], Row] = {}

    @contextmanager
    def clock(self, hook: str, calls: int = 1) -> Iterator[None]:
        """Add the block's time to `hook` in the run's current stage."""
        row = self.rows.setdefault((self.stage, hook), Row(self.stage, hook, 0, 0.0))
        row.calls += calls
        begun = time.perf_counter()
        try:
            yield
        finally:
            row.seconds += time.perf_counter() - begun

    def iterate(self, hook: str, items: Iterable[T]) -> Iterator[T]:
        """Yield the items; only the time inside their iteration counts."""
        with self.clock(hook, calls=0):
            iterator = iter(items)
        while True:
            with self.clock(hook, calls=0):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    load_concepts = _timed("load_concepts", lazy=True)
    load_model = _timed("load_model")  # the description; the weights load in the first hook that uses them
    check_capture = _timed("check_capture")
    capture_layers = _timed("capture_layers", lazy=True)
    train_interpreter = _timed("train_interpreter")
    score_confidence = _timed("score_confidence")

    @hookimpl(wrapper=True)
    def sample_prompts(self, stage: int) -> Generator[None, Iterable[Any], Iterable[Any]]:
        """Time the sampling, and set the run's current stage."""
        self.stage = stage
        with self.clock("sample_prompts"):
            prompts = yield
        return self.iterate("sample_prompts", prompts)

    @hookimpl(wrapper=True)
    def store_activations(self) -> Generator[None, Any, Any]:
        """Time the store's methods."""
        with self.clock("store_activations"):
            store = yield
        return TimedStore(store, self)

    @hookimpl
    def end_run(self, context: Context) -> str:
        """Write timing.json and return the table."""
        total = time.perf_counter() - self.begun
        rest = max(0.0, total - sum(row.seconds for row in self.rows.values()))
        rows = [*self.rows.values(), Row(None, REST, 1, rest)]
        write(context.folder, rows, total)
        return table(rows, total)


def write(folder: Path, rows: list[Row], total: float) -> None:
    """Write timing.json: the seconds of the process that finished the run."""
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / "timing.json", {"seconds": total, "rows": [asdict(row) for row in rows]})


def table(rows: list[Row], total: float) -> str:
    """Return the rows as an aligned text table, in their order."""
    width = max(len(row.hook) for row in rows)
    lines = [
        f"Where the time went: {total:,.1f} s in this process",
        f"Stage  {'Hook':{width}}  Calls   Seconds  Share",
    ]
    for row in rows:
        stage = "-" if row.stage is None else str(row.stage)
        share = row.seconds / total if total else 0.0
        lines.append(f"{stage:5}  {row.hook:{width}}  {row.calls:5,}  {row.seconds:8,.1f}  {share:5.0%}")
    return "\n".join(lines)
