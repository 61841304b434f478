"""`encyclo capture`: texts become windows, windows blocks, and each block a committed part.

capture ── Cutter.blocks       texts → windows → blocks; committed ones are skipped
        ├─ read_block          the model's states of the kept tokens, in half precision
        └─ Ledger.store        the part, then its commit record
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from encyclo import half_precision
from encyclo.corpus.blocks import Block
from encyclo.corpus.directory import (
    AGAIN,
    Listed,
    Manifest,
    claimed,
    committed_units,
    has_work,
    is_capture,
    read_manifest,
    write_manifest,
    write_record,
)
from encyclo.corpus.job import CaptureJob
from encyclo.corpus.text_files import ByteCount, check_text
from encyclo.errors import CaptureError, UsageError
from encyclo.runs.directory import check_usable
from encyclo.storage import files, safe_read
from encyclo.storage.ledger import Commit, Ledger, Unit
from encyclo.token_parts import TokenPart
from encyclo.types import Store


@dataclass(frozen=True)
class CaptureOutcome:
    """A complete capture; `captured` tokens are this command's, the others were there."""

    out: Path
    manifest: Manifest
    captured: int
    seconds: float


def capture(job: CaptureJob, out: Path) -> CaptureOutcome:
    """Write the capture of the job's texts into `out`; go on if an earlier process stopped.

    Raises RunDirectoryError if `out` holds something else, UsageError for a file that holds no texts, CaptureError.
    """
    begun = time.perf_counter()
    if not has_work(out):
        check_texts(job)
    with claimed(out, job.record, job.provenance, job.packages) as record:
        if manifest := read_manifest(out):
            return CaptureOutcome(out, manifest, 0, time.perf_counter() - begun)
        cutter, read, work = job.cutter(), ByteCount(), Work()
        units: list[Listed] = []
        total, shown = job.bytes, 0
        with job.progress.track("Capturing", total, "bytes", work.rate) as advance:
            show = partial(advance, 0)
            for commit in _units(job, out, record, cutter.blocks(job.texts(read.add)), work, show):
                units.append((commit.unit, commit.rows, commit.checksum))
                # The last byte counts when everything is stored: a text is read before its windows are computed.
                done = min(read.bytes, total - 1)
                advance(done - shown)
                shown = done
            advance(total - shown)
        if not units:
            raise UsageError(
                f"The files hold no token to keep, so {out} gets none; check --tokens and the files."
            )
        for stranger in committed_units(out) - {unit for unit, _, _ in units}:
            files.remove(out / "commits" / f"{stranger}.json")  # the next command removes its part
        job.check_unchanged()
        manifest = Manifest(cutter.texts, cutter.skipped, tuple(units))
        write_manifest(out, manifest)
    return CaptureOutcome(out, manifest, work.kept, time.perf_counter() - begun)


def check_texts(job: CaptureJob) -> None:
    """Read all texts once, so that a fault in the last line is found before hours of work, not after them."""
    with job.progress.track("Checking the texts", job.bytes, "bytes") as advance:
        for source in job.texts(advance):
            check_text(source, job.settings.skip_empty)


@dataclass
class Work:
    """What this command has captured: windows, their tokens, and the kept ones among these."""

    windows: int = 0
    tokens: int = 0
    kept: int = 0
    begun: float | None = None
    """When the first of them was begun."""

    def rate(self) -> str:
        """Say the windows, and the tokens a second; special and repeated tokens count, as in the estimate."""
        seconds = time.perf_counter() - self.begun if self.begun is not None else 0.0
        return f"{self.windows:,} windows, {self.tokens / max(seconds, 1e-9):,.0f} tokens/s"


def _units(
    job: CaptureJob,
    out: Path,
    record: dict[str, Any],
    blocks: Iterable[Block],
    work: Work,
    show: Callable[[], None],
) -> Iterator[Commit]:
    """Yield each block's commit; call `show` after each batch. The model checks itself before the first new block."""
    ledger, store = Ledger(out, AGAIN), job.open_store(out)
    there = committed_units(out)

    def count(tokens: int) -> None:
        work.tokens += tokens
        show()

    for number, block in enumerate(blocks):
        unit = Unit(f"{number:08d}-{block.identity(job.recipe)}", 0, ())
        if unit.id in there:
            yield ledger.read(unit.id)
            continue
        if work.begun is None:
            record["self_test"] = job.reader.check_windows(block.windows, job.schema.layer_index)
            write_record(out, record)
            work.begun = time.perf_counter()
        commit = _store(job, ledger, store, unit, block, count)
        work.windows, work.kept = work.windows + len(block.windows), work.kept + commit.rows
        yield commit


def _store(
    job: CaptureJob, ledger: Ledger, store: Store, unit: Unit, block: Block, count: Callable[[int], None]
) -> Commit:
    begun = time.perf_counter()
    part, tokens, computed = read_block(job, block, count)
    seconds = time.perf_counter() - begun
    with job.plugins.blame(job.config.store):
        return ledger.store(store, unit, part, seconds, tokens, computed)


def read_block(
    job: CaptureJob, block: Block, count: Callable[[int], None] = lambda _: None
) -> tuple[TokenPart, int, int]:
    """Return a block as a part, and the tokens of its windows: how many there are, how many were computed.

    `count` gets each batch's tokens when they are read.
    """
    shape = (block.rows, len(job.schema.layers), job.schema.hidden_size)
    activations, scale = np.empty(shape, np.float16), np.empty(shape[:2], np.float32)
    filled, tokens, computed = np.zeros(block.rows, bool), 0, 0
    with job.plugins.blame(job.config.capture):
        for batch in job.reader.read_windows(block.windows, job.schema.layer_index):
            # In half precision at once: a block's float32 states would take twice the memory.
            activations[batch.positions], scale[batch.positions] = half_precision.encode(batch.activations)
            filled[batch.positions] = True
            tokens, computed = tokens + batch.tokens, computed + batch.tokens_computed
            count(batch.tokens)
    if not filled.all():
        raise CaptureError(
            f"The capture {job.config.capture!r} gave no states for {int((~filled).sum())} tokens; use another "
            "--capture."
        )
    texts = block.texts
    part = TokenPart(
        scale=scale,
        text=np.concatenate(block.text),
        position=np.concatenate(block.position),
        token=np.concatenate(block.token),
        span=np.concatenate(block.span),
        number=np.array([number for number, _, _, _ in texts], np.int64),
        file=[source.file for _, source, _, _ in texts],
        line=np.array([source.line for _, source, _, _ in texts], np.int64),
        start=np.array([start for _, _, start, _ in texts], np.int64),
        content=[source.text[start:end] for _, source, start, end in texts],
        activations=activations,
    )
    return part, tokens, computed


def check_out(out: Path) -> None:
    """Raise UsageError if `out` can't hold a capture: it is a URL, say, or holds other files."""
    if "://" in str(out) or ":/" in str(out):
        raise UsageError(f"A capture of texts can't be on an object store ({out}); give --out a folder.")
    if (out / "run.json").exists() and not is_capture(out):
        raise UsageError(f"--out {out} is the run of an encyclopedia; choose another --out.")
    check_usable(out, safe_read.TEXTS_RECORD)
