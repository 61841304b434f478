"""Estimates what a capture takes: its first texts are tokenised, a few windows captured; the rest is in proportion.

Of a capture that was interrupted, what is stored is subtracted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from encyclo.corpus.blocks import Block
from encyclo.corpus.capture import read_block
from encyclo.corpus.directory import (
    AGAIN,
    check_same,
    committed_units,
    has_work,
    read_manifest,
)
from encyclo.corpus.job import CaptureJob
from encyclo.corpus.text_files import ByteCount, SourceText
from encyclo.storage.ledger import Ledger

SECONDS = 5.0
"""How long texts are tokenised."""
TIMED_TOKENS = 4096
"""About how many tokens are captured to measure the time."""
TOKEN_BYTES = 20
"""A token's text, position, id and span."""


@dataclass(frozen=True)
class CaptureEstimate:
    """What a capture takes. `tokens` are those of all windows; `extrapolated`: only some texts were tokenised."""

    texts: int
    tokens: int
    kept: int
    stored: int
    """The kept tokens that are stored already; `seconds` and `disk_bytes` are what the others take."""
    seconds: float
    tokens_per_second: float
    """0 if nothing was timed, since nothing is left to capture."""
    disk_bytes: int
    extrapolated: bool


@dataclass(frozen=True)
class StoredTokens:
    """The committed parts of a capture: their kept tokens, and the tokens of their windows."""

    kept: int = 0
    tokens: int = 0


def estimate(job: CaptureJob, out: Path) -> CaptureEstimate:
    """Estimate what is left of the capture `out`; write nothing.

    Raises UsageError for a file that holds no texts, RunDirectoryError if `out` is a capture of another configuration.
    """
    stored = StoredTokens()
    if has_work(out):
        check_same(out, job.record)
        stored = stored_tokens(out)
        if manifest := read_manifest(out):
            return CaptureEstimate(
                manifest.texts,
                stored.tokens,
                manifest.tokens,
                manifest.tokens,
                0.0,
                0.0,
                0,
                extrapolated=False,
            )
    cutter, begun, read = job.cutter(), time.perf_counter(), ByteCount()
    stopped = False

    def texts() -> Iterator[SourceText]:
        nonlocal stopped
        for source in job.texts(read.add):
            yield source
            if time.perf_counter() - begun > SECONDS:
                stopped = True
                return

    tokens = kept = characters = 0
    first: Block | None = None
    for block in cutter.blocks(texts()):
        first = first or block
        tokens, kept = tokens + block.size, kept + block.rows
        characters += sum(end - start for _, _, start, end in block.texts)
    share = job.bytes / read.bytes if stopped and read.bytes else 1.0
    left = max(0.0, 1 - stored.tokens / (tokens * share)) if tokens else 0.0
    rate = _rate(job, first) if first and left else 0.0
    layers, hidden = len(job.schema.layers), job.schema.hidden_size
    disk = kept * (layers * (2 * hidden + 4) + TOKEN_BYTES) + characters
    return CaptureEstimate(
        texts=round(cutter.texts * share),
        tokens=round(tokens * share),
        kept=round(kept * share),
        stored=stored.kept,
        seconds=tokens * share * left / rate if rate else 0.0,
        tokens_per_second=rate,
        disk_bytes=round(disk * share * left),
        extrapolated=stopped,
    )


def stored_tokens(out: Path) -> StoredTokens:
    """Count the tokens of a capture's committed parts. Raises DamagedError for a record that can't be read."""
    ledger, kept, tokens = Ledger(out, AGAIN), 0, 0
    for unit in committed_units(out):  # one at a time: their checksums take gigabytes
        commit = ledger.read(unit)
        kept, tokens = kept + commit.rows, tokens + commit.tokens
    return StoredTokens(kept, tokens)


def _rate(job: CaptureJob, block: Block) -> float:
    """Capture a few windows twice, to warm up and to time; return the tokens of a second."""
    few, size = Block(), 0
    for place, window in enumerate(block.windows):
        if few.windows and size + len(window.ids) > TIMED_TOKENS:
            break
        few.windows.append(window)
        for name in ("text", "position", "token", "span"):
            getattr(few, name).append(getattr(block, name)[place])
        few.rows += len(window.kept)
        size += len(window.ids)
    read_block(job, few)
    begun = time.perf_counter()
    read_block(job, few)
    return size / (time.perf_counter() - begun)
