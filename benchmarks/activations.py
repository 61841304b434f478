"""Activations that several benchmarks need, captured once: a folder of shards, found by the prompt's text."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo import half_precision
from encyclo.config import RunConfig
from encyclo.runs.session import Session, prepare
from encyclo.terminal import ConsoleProgress
from encyclo.types import Prompt

SHARD = 4096
Key = tuple[str, tuple[int, int] | None]


class ActivationCache:
    """Captured prompts on disk, in half precision. Several processes may read; one writes."""

    def __init__(self, folder: Path, config: RunConfig | None = None) -> None:
        self.folder = folder
        self.config = config or RunConfig(concepts="core")
        self._session: Session | None = None
        self._place: dict[Key, tuple[int, int]] = {}
        self._open: dict[int, tuple[Any, Any]] = {}
        self._shards = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.refresh()

    def refresh(self) -> None:
        """Load the shards that were written since the last call."""
        while (self.folder / f"{self._shards:05d}.json").exists():
            for row, (text, span) in enumerate(json.loads(self._file(self._shards, "json").read_text())):
                self._place[text, tuple(span) if span else None] = self._shards, row
            self._shards += 1

    @property
    def session(self) -> Session:
        """The session whose plugins capture; its weights are loaded by the first prompt."""
        if self._session is None:
            self._session = prepare(self.config, ConsoleProgress(quiet=True))
        return self._session

    def capture(self, prompts: Iterable[Prompt]) -> None:
        """Capture the prompts that are not in the cache yet."""
        missing: dict[Key, Prompt] = {}
        for prompt in prompts:
            if (prompt.text, prompt.span) not in self._place:
                missing.setdefault((prompt.text, prompt.span), prompt)
        waiting = list(missing.values())
        for start in range(0, len(waiting), SHARD):
            self._write(waiting[start : start + SHARD])
            print(f"  captured {min(start + SHARD, len(waiting)):,} of {len(waiting):,}", flush=True)

    def holds(self, prompt: Prompt) -> bool:
        """Return whether the prompt is captured."""
        return (prompt.text, prompt.span) in self._place

    def table(self, prompts: Sequence[Prompt]) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
        """Return (float16 [n, L, H], scale float32 [n, L]) for the prompts; `half_precision.decode` joins them."""
        places = np.array([self._place[p.text, p.span] for p in prompts])
        first = self._shard(int(places[0, 0]))
        halves = np.empty((len(prompts), *first[0].shape[1:]), np.float16)
        scales = np.empty((len(prompts), first[1].shape[1]), np.float32)
        for shard in np.unique(places[:, 0]):
            rows = np.flatnonzero(places[:, 0] == shard)
            activations, scale = self._shard(int(shard))
            halves[rows], scales[rows] = activations[places[rows, 1]], scale[places[rows, 1]]
        return halves, scales

    def _shard(self, number: int) -> tuple[Any, Any]:
        if number not in self._open:
            self._open[number] = (
                np.load(self.folder / f"{number:05d}.values.npy", mmap_mode="r"),
                np.load(self.folder / f"{number:05d}.scale.npy"),
            )
        return self._open[number]

    def _write(self, prompts: Sequence[Prompt]) -> None:
        session = self.session
        shape = (len(prompts), len(session.schema.layers), session.schema.hidden_size)
        values = np.empty(shape, np.float32)
        context = session.context("transformers", self.folder)
        for batch in session.plugins.call(
            "capture_layers",
            "transformers",
            prompts=prompts,
            layers=session.schema.layer_index,
            pooling=session.config.pooling,
            context=context,
        ):
            values[batch.positions] = batch.activations
        halves, scale = half_precision.encode(values)
        np.save(self._file(self._shards, "values.npy"), halves)
        np.save(self._file(self._shards, "scale.npy"), scale)
        listed = json.dumps([(prompt.text, prompt.span) for prompt in prompts])
        fresh = self._file(self._shards, "new")
        fresh.write_text(listed)
        os.replace(fresh, self._file(self._shards, "json"))  # the list is last: a shard that has it is whole
        self.refresh()

    def _file(self, number: int, ending: str) -> Path:
        return self.folder / f"{number:05d}.{ending}"
