"""The plan and the result of each round of refinement, recorded so that nothing is decided twice.

    rounds/0/plan.json        stage, concepts, samples wanted of each: written before sampling
    rounds/0/interpreter/     the interpreter after the round
    rounds/0/result.json      the round's figures: written last

A round is one sampler's visit to its stage. A resumed run reads its decisions back; it never repeats them, since
another machine might round the figures differently.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pydantic.dataclasses
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from encyclo.errors import DamagedError
from encyclo.runs import round_files
from encyclo.runs.metrics import StageFigures
from encyclo.statistics.figures import Accuracy
from encyclo.storage import files, safe_read
from encyclo.types import Scores

T = TypeVar("T")


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Plan:
    """One sampler's visit to its stage, as in plan.json: concepts (indices) and how many new samples each gets."""

    stage: int
    effort: int
    """How often targets or budget have been raised."""
    concepts: tuple[int, ...]
    wanted: tuple[int, ...]
    done: tuple[int, ...]
    """Samples of this sampler that each concept has already."""
    sampler: str = ""
    """The sampler, if several share the stage."""


@dataclass(frozen=True)
class Result:
    """A round's results that can't be computed from the samples again. converged, settled: bool [C]."""

    row: StageFigures
    """The round's row of metrics.json's `stages`."""
    scores: Scores
    accuracy: Accuracy | None
    natural: Accuracy | None
    converged: NDArray[np.bool_]
    settled: NDArray[np.bool_]


class ScoresRecord(BaseModel):
    """Scores as in result.json; null where a confidence could not be measured."""

    model_config = ConfigDict(extra="forbid")

    confidence: list[float | None]
    low: list[float | None]
    high: list[float | None]
    calibration: dict[str, Any]


class ResultRecord(BaseModel):
    """result.json: a `Result` in JSON's types, booleans as 0 and 1."""

    model_config = ConfigDict(extra="forbid")

    row: StageFigures
    accuracy: Accuracy | None
    natural: Accuracy | None
    scores: ScoresRecord
    converged: list[int]
    settled: list[int]

    @classmethod
    def of(cls, result: Result) -> ResultRecord:
        """Return the record of a result."""
        scores = result.scores
        columns = (_nulls(column) for column in (scores.confidence, scores.low, scores.high))
        low_to_high = dict(zip(("confidence", "low", "high"), columns, strict=True))
        return cls(
            row=result.row,
            accuracy=result.accuracy,
            natural=result.natural,
            scores=ScoresRecord(**low_to_high, calibration=dict(scores.calibration)),
            converged=result.converged.astype(int).tolist(),
            settled=result.settled.astype(int).tolist(),
        )

    def result(self) -> Result:
        """Return the result that was recorded."""
        scores = self.scores
        return Result(
            row=self.row,
            scores=Scores(
                _numbers(scores.confidence), _numbers(scores.low), _numbers(scores.high), scores.calibration
            ),
            accuracy=self.accuracy,
            natural=self.natural,
            converged=np.array(self.converged, bool),
            settled=np.array(self.settled, bool),
        )


class Rounds:
    """The rounds of the run `run_id` in the directory `run`."""

    def __init__(self, run: Path, run_id: str) -> None:
        self.run, self.run_id = run, run_id
        self.folder = run / "rounds"

    def plan(self, index: int) -> Plan | None:
        """Return the plan of a round, None if the round was not begun. Raises DamagedError."""
        return self._read(index, "plan.json", TypeAdapter(Plan))

    def begin(self, index: int, plan: Plan) -> None:
        """Record a plan."""
        folder = self.folder / str(index)
        files.make_folder(folder)
        content = asdict(plan)
        if not plan.sampler:
            del content["sampler"]
        round_files.write(folder / "plan.json", self.run_id, content)

    def interpreter(self, index: int) -> Path:
        """Return the folder of the round's interpreter."""
        return self.folder / str(index) / "interpreter"

    def saved_interpreter(self, index: int) -> Path:
        """Return the folder of the interpreter of a finished round. Raises DamagedError if it isn't the round's."""
        return round_files.interpreter(self.run, self.folder / str(index))

    def result(self, index: int) -> Result | None:
        """Return the result of a round, None if the round is not finished. Raises DamagedError."""
        record = self._read(index, "result.json", TypeAdapter(ResultRecord))
        return record.result() if record else None

    def end(self, index: int, result: Result) -> None:
        """Record a result; its interpreter must be in place."""
        content = ResultRecord.of(result).model_dump(mode="json", exclude_unset=True)
        round_files.write(self.folder / str(index) / "result.json", self.run_id, content)

    def _read(self, index: int, name: str, kind: TypeAdapter[T]) -> T | None:
        path = self.folder / str(index) / name
        if not path.exists():
            return None
        content = round_files.read(self.run, path, self.run_id)
        try:
            return kind.validate_python(content)
        except ValidationError as error:
            advice = round_files.advice(self.run)
            raise safe_read.refusal(path, safe_read.invalid(error), advice, DamagedError) from error


def _nulls(values: NDArray[np.float32]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def _numbers(values: list[float | None]) -> NDArray[np.float32]:
    return np.array([np.nan if value is None else value for value in values], np.float32)
