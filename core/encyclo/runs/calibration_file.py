"""calibration.json: the calibrator, which turns the interpreter's scores into confidences."""

from __future__ import annotations

import base64
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.errors import DamagedError
from encyclo.statistics.confidence import Calibrator, TrainingDistribution
from encyclo.storage import checksums, files, safe_read

FILE = "calibration.json"
ADVICE = "run `encyclo evaluate` on the run to write it again"


def save_calibrator(path: Path, calibrator: Calibrator) -> None:
    """Write the calibrator as JSON with its own sha256; the file is replaced atomically."""
    figures = asdict(calibrator)
    del figures["fitted_on"], figures["distribution"]
    known = calibrator.distribution
    content = {
        "fitted_on": calibrator.fitted_on,
        "calibrator": {**figures, "conformal": _finite(calibrator.conformal)},
        "shape": list(known.mean.shape),
        "mean": _packed(known.mean),
        "std": _packed(known.std),
    }
    files.write_json(path, checksums.sealed(content))


def load_calibrator(path: Path) -> Calibrator:
    """Read a calibrator that `save_calibrator` wrote. Raises DamagedError if the file was changed."""
    try:
        content = checksums.read_sealed(
            path, at_most=safe_read.CALIBRATION_JSON, within=path.parent, advice=ADVICE
        )
        values: dict[str, Any] = content["calibrator"]
        values["conformal"] = np.inf if values["conformal"] is None else values["conformal"]
        shape = tuple(content["shape"])
        known = TrainingDistribution(_unpacked(content["mean"], shape), _unpacked(content["std"], shape))
        return Calibrator(**values, fitted_on=content["fitted_on"], distribution=known)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise safe_read.refusal(path, str(error), ADVICE, DamagedError) from error


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _packed(values: NDArray[np.float32]) -> str:
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()


def _unpacked(text: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(shape).astype(np.float32)
