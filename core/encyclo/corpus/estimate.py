"""Estimates what a capture takes: its first texts are tokenised, a few windows captured; the rest is in proportion."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from encyclo.corpus.blocks import Block
from encyclo.corpus.capture import read_block
from encyclo.corpus.job import CaptureJob
from encyclo.corpus.text_files import SourceText

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
    seconds: float
    tokens_per_second: float
    disk_bytes: int
    extrapolated: bool


def estimate(job: CaptureJob) -> CaptureEstimate:
    """Estimate a capture; write nothing. Raises UsageError for a file that holds no texts."""
    cutter, begun, read = job.cutter(), time.perf_counter(), 0

    def advance(count: int) -> None:
        nonlocal read
        read += count

    stopped = False

    def texts() -> Iterator[SourceText]:
        nonlocal stopped
        for source in job.texts(advance):
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
    share = job.bytes / read if stopped and read else 1.0
    rate = _rate(job, first) if first else float("nan")
    layers, hidden = len(job.schema.layers), job.schema.hidden_size
    disk = kept * (layers * (2 * hidden + 4) + TOKEN_BYTES) + characters
    return CaptureEstimate(
        texts=round(cutter.texts * share),
        tokens=round(tokens * share),
        kept=round(kept * share),
        seconds=tokens * share / rate if first else 0.0,
        tokens_per_second=rate if first else 0.0,
        disk_bytes=round(disk * share),
        extrapolated=stopped,
    )


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
