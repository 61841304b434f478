"""What each round of refinement was asked to do and what it found, kept so that nothing is decided twice.

    rounds/0/plan.json        stage, concepts, samples wanted of each: written before anything is sampled
    rounds/0/interpreter/     the interpreter as it was after the round
    rounds/0/result.json      what was found; written last

A round is one visit to one stage. A resumed run reads back what it decided; it never decides again from
figures that another machine might round otherwise.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.errors import DamagedError
from encyclo.storage import checksums, files
from encyclo.types import Scores


@dataclass(frozen=True)
class Plan:
    """One visit to a stage: which concepts (indices) get how many new samples."""

    stage: int
    effort: int
    """How often targets or budget had been raised."""
    concepts: tuple[int, ...]
    wanted: tuple[int, ...]
    done: tuple[int, ...]
    """Samples of this stage that each concept has already."""


@dataclass(frozen=True)
class Result:
    """What a round found, as far as it can't be had from the samples again."""

    row: dict[str, Any]
    """The round's row of metrics.json's `stages`."""
    scores: Scores
    accuracy: dict[str, Any] | None
    natural: dict[str, Any] | None
    converged: NDArray[np.bool_]
    settled: NDArray[np.bool_]


class Rounds:
    """The rounds of one run directory."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "rounds"

    def plan(self, index: int) -> Plan | None:
        """Return the plan of a round that was begun. Raises DamagedError."""
        content = self._read(index, "plan.json")
        if content is None:
            return None
        columns = (tuple(content[name]) for name in ("concepts", "wanted", "done"))
        return Plan(content["stage"], content["effort"], *columns)

    def begin(self, index: int, plan: Plan) -> None:
        """Record a plan."""
        folder = self.folder / str(index)
        files.make_folder(folder)
        files.create_json(folder / "plan.json", checksums.sealed(asdict(plan)))

    def interpreter(self, index: int) -> Path:
        """Return the folder of the round's interpreter."""
        return self.folder / str(index) / "interpreter"

    def result(self, index: int) -> Result | None:
        """Return what a finished round found. Raises DamagedError."""
        content = self._read(index, "result.json")
        if content is None:
            return None
        found = content["scores"]
        return Result(
            row=content["row"],
            scores=Scores(
                _numbers(found["confidence"]),
                _numbers(found["low"]),
                _numbers(found["high"]),
                found["calibration"],
            ),
            accuracy=content["accuracy"],
            natural=content["natural"],
            converged=np.array(content["converged"], bool),
            settled=np.array(content["settled"], bool),
        )

    def end(self, index: int, result: Result) -> None:
        """Record a result; its interpreter must be in place."""
        scores = result.scores
        content = {
            "row": result.row,
            "accuracy": result.accuracy,
            "natural": result.natural,
            "scores": {
                "confidence": _nulls(scores.confidence),
                "low": _nulls(scores.low),
                "high": _nulls(scores.high),
                "calibration": dict(scores.calibration),
            },
            "converged": result.converged.astype(int).tolist(),
            "settled": result.settled.astype(int).tolist(),
        }
        files.create_json(self.folder / str(index) / "result.json", checksums.sealed(content))

    def _read(self, index: int, name: str) -> dict[str, Any] | None:
        path = self.folder / str(index) / name
        if not path.exists():
            return None
        try:
            content = checksums.read_sealed(path)
        except ValueError as error:
            raise DamagedError(
                f"{path} can't be read ({error}); delete the folder {self.folder} and run the same command "
                "again: samples are kept, and what to do next is decided anew."
            ) from error
        return content


def _nulls(values: NDArray[np.float32]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def _numbers(values: list[float | None]) -> NDArray[np.float32]:
    return np.array([np.nan if value is None else value for value in values], np.float32)
