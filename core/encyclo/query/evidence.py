"""How many readings the entries' confidences rest on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encyclo.errors import EncycloError
from encyclo.query.text_reader import TextReader
from encyclo.runs.metrics import read_metrics
from encyclo.schema import Columns


def held_out_families(splits: Mapping[str, Collection[str]]) -> frozenset[str]:
    """Return the prompt families that training never saw, of metrics.json's `splits`."""
    return frozenset(family for name in ("calibration", "test") for family in splits.get(name) or ())


def own_readings(columns: Columns, splits: Mapping[str, Collection[str]], concepts: int) -> NDArray[np.int64]:
    """Return int64 [C]: each concept's own held-out readings, the samples of held-out families that mention it."""
    held = held_out_families(splits)
    rows = np.fromiter((family in held for family in columns.family), bool, len(columns))
    rows &= columns.span[:, 0] >= 0
    return np.bincount(columns.concept[rows], minlength=concepts)


def recorded_readings(run: Path, columns: Columns, concepts: int) -> NDArray[np.int64] | None:
    """Return `own_readings` of a finished run; None if its metrics.json can't be read or has no held-out family."""
    with suppress(EncycloError):
        readings = own_readings(columns, read_metrics(run).splits, concepts)
        return readings if readings.any() else None
    return None


def readings_text(count: int) -> str:
    """Return `3 held-out readings of its own`."""
    return f"{count:,} held-out reading{'' if count == 1 else 's'} of its own"


def basis_text(readings: NDArray[np.int64]) -> str:
    """Return what the confidences of a book rest on: concepts, readings, readings of an entry."""
    total, count = int(readings.sum()), len(readings)
    return (
        f"among {count:,} concept{'' if count == 1 else 's'}, from {total:,} held-out readings, "
        f"{total / count:.1f} for an entry on average"
    )


def reader_basis(reader: TextReader) -> str:
    """Return what the confidences of a text's readings rest on: concepts and calibration readings."""
    among, calibrator = f"among {len(reader.names):,} concepts", reader.calibrator
    if calibrator is None:
        return f"{among}, not calibrated: the run had too few held-out readings"
    if reader.word_reader:
        return f"{among} and none of them, learned from {reader.word_reader.n:,} labelled mentions"
    kind = "natural sentences" if calibrator.fitted_on == "natural" else "held-out prompts"
    return f"{among}, calibrated on {calibrator.n:,} {kind}; words without an entry are not among them"
