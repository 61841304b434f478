"""details.json: what report.html and `encyclo show` say of entries beside the book, measured once at the run's end.

It comes from the interpreter, the samples and all signatures, so that none of these is read again for one entry or one
page. A run without the file, or whose interpreter or samples are no longer those that it was made from, is measured
again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.runs.interpreter_folder import FOLDER, SUMS
from encyclo.storage import run_files, safe_read
from encyclo.storage.checksums import Seal

FILE = "details.json"
ADVICE = "run `encyclo report` to write it again"
KEPT = 5
"""The most concepts that a confusion names."""
NEAREST = 8
"""The most neighbours of an entry."""
MOST_CONCEPTS = 200_000
"""A larger run keeps no details: reading them would take longer than it saves."""
Near = list[tuple[int, float]]
"""Rows of the concept table with cosines, the nearest first."""


@dataclass(frozen=True)
class Confusion:
    """Which other concepts the interpreter reads in all samples of an entry. Rows are rows of the concept table.

    likeliest: (row, times read instead), the most frequent first, then those that score highest
    margins: (row, mean margin of the entry's own score), the smallest first
    """

    samples: int
    misread: int
    likeliest: list[tuple[int, int]]
    margins: list[tuple[int, float]]


@dataclass(frozen=True)
class Detail:
    """One entry. Rows are rows of the concept table.

    nearest: (row, cosine); confused: (row, times read instead, mean margin of the entry's own score)
    held: whether the samples read are of prompt families that training never saw
    prompts: (text, family); raw, centred: the difference of halves of 1, 2, 4 … samples, averaged over layers
    """

    nearest: Near = field(default_factory=list)
    confused: list[tuple[int, int, float]] = field(default_factory=list)
    readings: int = 0
    right: int = 0
    held: bool = False
    prompts: list[tuple[str, str]] = field(default_factory=list)
    samples: int = 0
    raw: list[float] = field(default_factory=list)
    centred: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Details:
    """The details of entries, and the most frequent misreadings.

    pairs: (truth, read instead, times), the most frequent first, of `readings` samples: those that training
    never saw if there are any (held_out), else all
    curve: (samples in a half, entries, raw, centred), means over entries
    own: held-out readings of each entry, int64 [C]; None if not known
    confusions: of these entries, and in a small run of the others
    """

    entries: dict[int, Detail]
    pairs: list[tuple[int, int, int]]
    readings: int
    held_out: bool
    curve: list[tuple[int, int, float, float]]
    own: NDArray[np.int64] | None = None
    confusions: dict[int, Confusion] = field(default_factory=dict)


@dataclass(frozen=True)
class Atlas:
    """rows: int64 [k], rows of the concept table; places: int64 [k, 2], 0 to SIDE; the method that found them."""

    rows: NDArray[np.int64]
    places: NDArray[np.int64]
    method: str
    left_out: int


@dataclass(frozen=True)
class SignatureFigures:
    """What the page says of signatures.

    nearest: the neighbours of the entries that have details, and of the most and the least trusted
    carried: each entry's share carried by each layer, in thousandths; None where unknown
    centre, scale: float32 [L, H], the mean and the standard deviation over concepts
    """

    nearest: dict[int, Near]
    carried: list[list[int | None]]
    atlas: Atlas | None
    centre: NDArray[np.float32]
    scale: NDArray[np.float32]


class StoredDetails:
    """The content of details.json; what is asked for is checked. Every method raises DamagedError."""

    def __init__(self, path: Path, content: Mapping[str, Any], concepts: int) -> None:
        self._path, self._content, self._concepts = path, content, concepts

    def fit(self, held_out: Collection[str]) -> bool:
        """Return whether the details are those for these held-out families."""
        return bool(self._content.get("held_out") == sorted(held_out))

    def confusion(self, row: int) -> Confusion | None:
        """Return which other concepts are read in an entry's samples; None if it is not kept."""
        with safe_read.refused(self._path, ADVICE):
            found = self._content["confusions"].get(str(row))
            return None if found is None else self._confusion(found)

    def nearest(self, row: int) -> Near | None:
        """Return an entry's neighbours; None if they are not kept."""
        with safe_read.refused(self._path, ADVICE):
            found = self._content["nearest"].get(str(row))
            return None if found is None else self._pairs(found)

    def centre_and_scale(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the signatures' mean and standard deviation over concepts, float32 [L, H] each."""
        with safe_read.refused(self._path, ADVICE):
            shape = tuple(int(length) for length in self._content["shape"])
            centre, scale = (
                np.frombuffer(base64.b64decode(self._content[name]), "<f4").reshape(shape)
                for name in ("centre", "scale")
            )
            if not (np.isfinite(centre).all() and np.isfinite(scale).all() and (scale > 0).all()):
                raise ValueError("its centre or scale has a number that can't be")
            return centre, scale

    def own(self) -> NDArray[np.int64] | None:
        """Return each entry's own held-out readings, int64 [C]; None if not known."""
        with safe_read.refused(self._path, ADVICE):
            found = self._content["own"]
            return None if found is None else _numbers(found, (self._concepts,))

    def whole(self) -> tuple[Details, SignatureFigures]:
        """Return everything."""
        with safe_read.refused(self._path, ADVICE):
            given = self._content
            details = Details(
                {int(row): self._detail(int(row), one) for row, one in given["entries"].items()},
                [(self._row(a), self._row(b), int(times)) for a, b, times in given["pairs"]],
                int(given["readings"]),
                bool(given["any_held_out"]),
                [
                    (int(n), int(entries), _float(raw), _float(cent))
                    for n, entries, raw, cent in given["curve"]
                ],
                self.own(),
                {int(row): self._confusion(one) for row, one in given["confusions"].items()},
            )
            carried = [[None if c is None else int(c) for c in row] for row in given["carried"]]
            if len(carried) != self._concepts:
                raise ValueError(f"it has the layers of {len(carried)} entries, not of {self._concepts}")
            nearest = {int(row): self._pairs(pairs) for row, pairs in given["nearest"].items()}
            return details, SignatureFigures(
                nearest, carried, self._atlas(given["map"]), *self.centre_and_scale()
            )

    def _detail(self, row: int, given: Mapping[str, Any]) -> Detail:
        families = self._content["families"]
        return Detail(
            self._pairs(self._content["nearest"].get(str(row), ())),
            [(self._row(a), int(times), float(margin)) for a, times, margin in given["confused"]],
            int(given["readings"]),
            int(given["right"]),
            bool(given["held"]),
            [(str(text), str(families[family])) for text, family in given["prompts"]],
            int(given["samples"]),
            [_float(value) for value in given["raw"]],
            [_float(value) for value in given["centred"]],
        )

    def _confusion(self, given: Mapping[str, Any]) -> Confusion:
        return Confusion(
            int(given["samples"]),
            int(given["misread"]),
            [(self._row(a), int(times)) for a, times in given["likeliest"]],
            self._pairs(given["margins"]),
        )

    def _atlas(self, given: Mapping[str, Any] | None) -> Atlas | None:
        if given is None:
            return None
        rows = _numbers(given["rows"], (len(given["rows"]),))
        for row in rows.tolist():
            self._row(row)
        return Atlas(
            rows, _numbers(given["places"], (len(rows), 2)), str(given["method"]), int(given["left_out"])
        )

    def _pairs(self, given: Iterable[tuple[int, float]]) -> Near:
        return [(self._row(row), float(value)) for row, value in given]

    def _row(self, given: int) -> int:
        if not 0 <= (row := int(given)) < self._concepts:
            raise ValueError(f"it names the entry {row}, and the run has {self._concepts}")
        return row


def save_details(
    run: Path, seal: Seal | None, held_out: Collection[str], details: Details, signatures: SignatureFigures
) -> None:
    """Write details.json for the run with this seal; nothing for a run that can't keep it.

    Only for the holder of the run's lock.
    """
    of = None if seal is None else _made_from(run, seal)
    if of is None or len(signatures.carried) > MOST_CONCEPTS:
        return
    families: dict[str, int] = {}
    entries = {str(row): _as_json(detail, families) for row, detail in details.entries.items()}
    atlas = signatures.atlas
    content = {
        "of": of,
        "held_out": sorted(held_out),
        "entries": entries,
        "families": list(families),
        "confusions": {
            str(row): vars(one)
            for row, one in details.confusions.items()
            if all(math.isfinite(margin) for _, margin in one.margins)
        },
        "pairs": details.pairs,
        "readings": details.readings,
        "any_held_out": details.held_out,
        "curve": [[size, count, _finite(raw), _finite(cent)] for size, count, raw, cent in details.curve],
        "own": None if details.own is None else details.own.tolist(),
        "nearest": {str(row): near for row, near in signatures.nearest.items()},
        "carried": signatures.carried,
        "shape": signatures.centre.shape,
        "centre": base64.b64encode(signatures.centre.astype("<f4").tobytes()).decode(),
        "scale": base64.b64encode(signatures.scale.astype("<f4").tobytes()).decode(),
        "map": None if atlas is None else {
            "rows": atlas.rows.tolist(), "places": atlas.places.tolist(), "method": atlas.method,
            "left_out": atlas.left_out,
        },
    }  # fmt: skip
    # Without indents: they would be most of the file.
    run_files.write_text(run, FILE, json.dumps(content, separators=(",", ":"), allow_nan=False))


def load_details(run: Path, seal: Seal | None, concepts: int) -> StoredDetails | None:
    """Read a finished run's details; None if it has none, or those of another interpreter or of other samples.

    Raises DamagedError if the file was changed or is another run's.
    """
    if seal is None or seal.run_files is None or not (run / FILE).exists():
        return None
    content = run_files.read_json(run, FILE, at_most=safe_read.DETAILS_JSON, advice=ADVICE, seal=seal)
    with safe_read.refused(run / FILE, ADVICE):
        if content["of"] != _made_from(run, seal):
            return None
    return StoredDetails(run / FILE, content, concepts)


def _made_from(run: Path, seal: Seal) -> str | None:
    """Return a sha256 over what details are made from: samples and interpreter; None if the seal doesn't say.

    It is the same in every store.
    """
    samples = seal.samples
    if seal.run_files is None or samples.prompts is None:
        return None
    name = f"{FOLDER}/{SUMS}"
    sums = safe_read.read_bytes(run / name, at_most=safe_read.INTERPRETER_JSON, within=run)
    run_files.check(run, name, sums, seal)
    digest = hashlib.sha256(np.ascontiguousarray(samples.crc, "<u4").data)
    digest.update(np.ascontiguousarray(samples.prompts, "<u4").data)
    digest.update(f"{samples.crc.shape} {samples.columns} {hashlib.sha256(sums).hexdigest()}".encode())
    return digest.hexdigest()


def _as_json(detail: Detail, families: dict[str, int]) -> dict[str, Any]:
    """Return an entry's details in JSON's types, figures to as many digits as the page has."""
    return {
        "confused": [
            [row, times, round(margin, 1)]
            for row, times, margin in detail.confused
            if math.isfinite(margin)
        ],
        "readings": detail.readings,
        "right": detail.right,
        "held": detail.held,
        "prompts": [[text, families.setdefault(family, len(families))] for text, family in detail.prompts],
        "samples": detail.samples,
        "raw": [_finite(value, 3) for value in detail.raw],
        "centred": [_finite(value, 3) for value in detail.centred],
    }  # fmt: skip


def _finite(value: float, digits: int | None = None) -> float | None:
    if not math.isfinite(value):
        return None
    return value if digits is None else round(value * 10**digits) / 10**digits


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _numbers(given: Any, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return whole numbers. Raises ValueError or TypeError for others, or for another shape."""
    found = np.array(given, np.int64) if given else np.empty(shape, np.int64)
    if found.shape != shape:
        raise ValueError(f"it has numbers of the shape {found.shape}, not {shape}")
    return found
