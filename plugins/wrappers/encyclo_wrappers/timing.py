"""Wrapper `timing`: where a run's time went, stage by stage and hook by hook.

`--with timing` prints a table after the run and leaves it in the run as plugins/timing/timing.json. Samplers
and captures are generators: what counts is the time inside their iteration, not what the core does with an
item before it asks for the next. A store's methods count under `store_activations`.
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
    """What one hook took in one stage; None is what comes before the first stage."""

    stage: int | None
    hook: str
    calls: int
    seconds: float


class TimedStore:
    """A store whose methods are timed; what else the store has is handed on."""

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


class Timing:
    """Adds up seconds a stage and hook; one for each run, since encyclo makes a class anew for every run."""

    def __init__(self) -> None:
        self.begun = time.perf_counter()
        self.stage: int | None = None
        self.rows: dict[tuple[int | None, str], Row] = {}

    @contextmanager
    def clock(self, hook: str, calls: int = 1) -> Iterator[None]:
        """Count the block's time for `hook` in the stage that the run is in."""
        row = self.rows.setdefault((self.stage, hook), Row(self.stage, hook, 0, 0.0))
        row.calls += calls
        begun = time.perf_counter()
        try:
            yield
        finally:
            row.seconds += time.perf_counter() - begun

    def iterate(self, hook: str, items: Iterable[T]) -> Iterator[T]:
        """Hand the items on; only the time inside their iteration counts."""
        with self.clock(hook, calls=0):
            iterator = iter(items)
        while True:
            with self.clock(hook, calls=0):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    @hookimpl(wrapper=True)
    def load_concepts(self) -> Generator[None, Iterable[Any], Iterable[Any]]:
        """Time the concepts' loading."""
        with self.clock("load_concepts"):
            concepts = yield
        return self.iterate("load_concepts", concepts)

    @hookimpl(wrapper=True)
    def sample_prompts(self, stage: int) -> Generator[None, Iterable[Any], Iterable[Any]]:
        """Time the sampling; from here on the run is in `stage`."""
        self.stage = stage
        with self.clock("sample_prompts"):
            prompts = yield
        return self.iterate("sample_prompts", prompts)

    @hookimpl(wrapper=True)
    def load_model(self) -> Generator[None, Any, Any]:
        """Time the model's description; its weights load on first use, within the hook that uses them."""
        with self.clock("load_model"):
            return (yield)

    @hookimpl(wrapper=True)
    def check_capture(self) -> Generator[None, Any, Any]:
        """Time the self-test, which loads the weights."""
        with self.clock("check_capture"):
            return (yield)

    @hookimpl(wrapper=True)
    def capture_layers(self) -> Generator[None, Iterable[Any], Iterable[Any]]:
        """Time the capture."""
        with self.clock("capture_layers"):
            batches = yield
        return self.iterate("capture_layers", batches)

    @hookimpl(wrapper=True)
    def store_activations(self) -> Generator[None, Any, Any]:
        """Time the store's methods."""
        with self.clock("store_activations"):
            store = yield
        return TimedStore(store, self)

    @hookimpl(wrapper=True)
    def train_interpreter(self) -> Generator[None, Any, Any]:
        """Time the training."""
        with self.clock("train_interpreter"):
            return (yield)

    @hookimpl(wrapper=True)
    def score_confidence(self) -> Generator[None, Any, Any]:
        """Time the scoring."""
        with self.clock("score_confidence"):
            return (yield)

    @hookimpl
    def end_run(self, context: Context) -> str:
        """Write timing.json and return the table."""
        total = time.perf_counter() - self.begun
        rest = max(0.0, total - sum(row.seconds for row in self.rows.values()))
        rows = [*self.rows.values(), Row(None, REST, 1, rest)]
        write(context.folder, rows, total)
        return table(rows, total)


def write(folder: Path, rows: list[Row], total: float) -> None:
    """Write timing.json: the process that finished the run, in seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / "timing.json", {"seconds": total, "rows": [asdict(row) for row in rows]})


def table(rows: list[Row], total: float) -> str:
    """Return the rows as aligned text, in the order of stages and first calls."""
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
