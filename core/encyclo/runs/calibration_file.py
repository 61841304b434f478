"""calibration.json: the calibrator, which turns the interpreter's scores into confidences, and the entries' words."""

from __future__ import annotations

import base64
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.entry_words import EntryWords
from encyclo.errors import DamagedError
from encyclo.statistics.confidence import Calibrator, TrainingDistribution
from encyclo.storage import checksums, run_files, safe_read

FILE = "calibration.json"
ADVICE = "run `encyclo evaluate` on the run to write it again"


def save_calibrator(run: Path, calibrator: Calibrator, words: EntryWords | None = None) -> None:
    """Write the calibrator and the entries' words as JSON with its own sha256; the file is replaced atomically."""
    figures = asdict(calibrator)
    del figures["fitted_on"], figures["distribution"]
    known = calibrator.distribution
    content = {
        "fitted_on": calibrator.fitted_on,
        "calibrator": {**figures, "conformal": _finite(calibrator.conformal)},
        "shape": list(known.mean.shape),
        "mean": _packed(known.mean),
        "std": _packed(known.std),
        "words": None if words is None else words.as_json(),
    }
    run_files.write_json(run, FILE, checksums.sealed(content))


def load_calibrator(
    run: Path, seal: checksums.Seal | None = None, entries: int | None = None
) -> tuple[Calibrator | None, EntryWords | None]:
    """Read what `save_calibrator` wrote: no calibrator if the run could not calibrate, no words if it has none.

    `seal` and `entries`, the number of entries, are the run's if they are known. Raises DamagedError if the file was
    changed or is another run's.
    """
    try:
        if not (run / FILE).exists():
            run_files.check(run, FILE, None, seal)
            return None, None
        known = run_files.read_json(run, FILE, at_most=safe_read.CALIBRATION_JSON, advice=ADVICE, seal=seal)
        content = checksums.unsealed(known)
        words = content.get("words")
        values: dict[str, Any] = content["calibrator"]
        values["conformal"] = np.inf if values["conformal"] is None else values["conformal"]
        shape = tuple(content["shape"])
        distribution = TrainingDistribution(
            _unpacked(content["mean"], shape), _unpacked(content["std"], shape)
        )
        calibrator = Calibrator(**values, fitted_on=content["fitted_on"], distribution=distribution)
        return calibrator, None if words is None else EntryWords.from_json(words, entries)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise safe_read.refusal(run / FILE, str(error), ADVICE, DamagedError) from error


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _packed(values: NDArray[np.float32]) -> str:
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()


def _unpacked(text: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(shape).astype(np.float32)
