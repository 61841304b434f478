"""Estimate the disk that a run takes: write a few of its samples with its store and measure the files.

So the estimate is also right for a third party's store. It counts the encyclopedia, the commit records and the
parts, which stay after the run so that it can be continued.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from encyclo.errors import StoreError
from encyclo.pipeline.units import SAMPLES_PER_UNIT
from encyclo.runs.session import Session
from encyclo.schema import NO_SPAN, Attributes, Book, ConceptTable, Part, SignatureTable
from encyclo.storage.finalise import finalise
from encyclo.storage.ledger import Ledger, Unit
from encyclo.storage.sample_rows import BLOCK
from encyclo.types import Concept, Prompt

SAMPLES_TRIED = 2 * BLOCK
CONCEPTS_TRIED = 50


class DiskEstimate:
    """Estimates the disk that a run's samples take: `add` each stage's prompts, then `predict`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._some: list[Prompt] = []
        self._units = 0

    def add(self, sampled: Sequence[Prompt], count: int, wanted: int) -> None:
        """Add a sampler's `count` prompts, `wanted` of each concept, of which `sampled` are examples."""
        step = max(1, len(sampled) // SAMPLES_TRIED)
        self._some += sampled[::step][:SAMPLES_TRIED]
        unit = max(1, SAMPLES_PER_UNIT // wanted) * wanted
        self._units += math.ceil(count / unit)

    def predict(self, prompts: int) -> int:
        """Return the bytes of parts, commit records and encyclopedia for `prompts` samples in all.

        Sizes grow linearly from an offset: two sizes of part and three of encyclopedia give both.
        """
        if not self._some:
            return 0
        small, large = BLOCK, 2 * BLOCK
        self._some = [self._some[i * len(self._some) // large] for i in range(large)]
        part = {n: self._measure(n, 1)[0] for n in (small, large)}
        some = min(CONCEPTS_TRIED, len(self._session.concepts))
        whole = {key: self._measure(*key)[1] for key in ((small, 1), (large, 1), (small, 1 + some))}
        per_row = (part[large] - part[small]) / (large - small)
        per_unit = max(0.0, part[small] - small * per_row)
        row_again = (whole[large, 1] - whole[small, 1]) / (large - small)
        per_concept = (whole[small, 1 + some] - whole[small, 1]) / some
        once = max(0.0, whole[small, 1] - small * row_again - per_concept)
        concepts, schema = len(self._session.concepts), self._session.schema
        # The built-in stores pad their last chunk.
        filling = -prompts % BLOCK if prompts > BLOCK else 0
        once += filling * len(schema.layers) * schema.hidden_size * 2
        total = prompts * (per_row + row_again) + self._units * per_unit + concepts * per_concept + once
        return round(total)

    def _measure(self, rows: int, concepts: int) -> tuple[int, int]:
        """Write `rows` samples of `concepts` concepts as one unit; return bytes: (part, encyclopedia)."""
        session = self._session
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder)
            ledger = Ledger(run)
            ledger.create()
            store = session.open_store(run)
            try:
                with session.plugins.blame(session.config.store):
                    commit = ledger.store(store, Unit("0" * 32, 0, ()), self._part(rows), 1.5, 10_000, 10_000)
                    part = _size(run)
                    finalise(store, run, [commit], self._book(concepts))
            except OSError as error:
                raise StoreError(
                    f"Can't write to the temporary folder {folder}: {error}; free some space, or set TMPDIR to another "
                    "folder."
                ) from error
            return part, _size(run) - part

    def _part(self, rows: int) -> Part:
        schema, prompts = self._session.schema, self._some[:rows]
        return Part(
            activations=np.ones((rows, len(schema.layers), schema.hidden_size), np.float16),
            scale=np.ones((rows, len(schema.layers)), np.float32),
            concept=np.zeros(rows, np.int32),
            stage=np.zeros(rows, np.int8),
            family=[prompt.family for prompt in prompts],
            prompt=[prompt.text for prompt in prompts],
            span=np.array([prompt.span or NO_SPAN for prompt in prompts], np.int32).reshape(-1, 2),
        )

    def _book(self, count: int) -> Book:
        schema, known = self._session.schema, self._session.concepts
        concepts: list[Concept] = [known[i * len(known) // count % len(known)] for i in range(count)]
        shape = (count, len(schema.layers), schema.hidden_size)
        whole, zero = np.zeros(count, np.int32), np.zeros(count, np.float32)
        texts = [[getattr(c, name) for c in concepts] for name in ("id", "name", "definition", "category")]
        false = np.zeros(count, bool)
        table = ConceptTable(*texts, whole, whole, zero, zero, zero, false, false)  # type: ignore[arg-type, call-arg]
        attributes = Attributes(
            "model",
            "0" * 64,
            schema.layers,
            schema.layer_index,
            "span",
            schema.hidden_size,
            0,
            "run",
            "now",
            "0",
            "{}",
        )
        values = np.ones(shape, np.float32)
        return Book(attributes, table, SignatureTable(values, values, whole))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
