"""calibration.json: what `encyclo read` reads with, beside the interpreter.

The calibrator turns the interpreter's scores into confidences; the entries' words say where an entry can stand; a word
reader, if `encyclo learn` fitted one, says which of a word's entries is meant.
"""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.entry_words import EntryWords
from encyclo.errors import DamagedError
from encyclo.statistics.confidence import Calibrator, TrainingDistribution
from encyclo.statistics.word_reader import Layers, Means, WordReader
from encyclo.storage import checksums, run_files, safe_read

FILE = "calibration.json"
ADVICE = "run `encyclo evaluate` on the run to write it again"


@dataclass(frozen=True)
class ReadingModel:
    """The content of calibration.json; None for what the run doesn't have."""

    calibrator: Calibrator | None = None
    words: EntryWords | None = None
    word_reader: WordReader | None = None


def save_calibration(run: Path, given: ReadingModel) -> None:
    """Write a calibration with a calibrator as JSON with its own sha256; the file is replaced atomically."""
    calibrator = given.calibrator
    assert calibrator is not None
    figures = asdict(calibrator)
    del figures["fitted_on"], figures["distribution"]
    known = calibrator.distribution
    content = {
        "fitted_on": calibrator.fitted_on,
        "calibrator": {**figures, "conformal": _finite(calibrator.conformal)},
        "shape": list(known.mean.shape),
        "mean": _packed(known.mean),
        "std": _packed(known.std),
        "words": None if given.words is None else given.words.as_json(),
        **({"word_reader": _reader_json(given.word_reader)} if given.word_reader else {}),
    }
    run_files.write_json(run, FILE, checksums.sealed(content))


def load_calibration(
    run: Path, seal: checksums.Seal | None = None, entries: int | None = None
) -> ReadingModel:
    """Read what `save_calibration` wrote; an empty one if the run could not calibrate.

    `seal` and `entries`, the number of entries, are the run's if they are known. Raises DamagedError if the file was
    changed or is another run's.
    """
    try:
        if not (run / FILE).exists():
            run_files.check(run, FILE, None, seal)
            return ReadingModel()
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
        reader = content.get("word_reader")
        return ReadingModel(
            calibrator,
            None if words is None else EntryWords.from_json(words, entries),
            None if reader is None else _reader_from(reader),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise safe_read.refusal(run / FILE, str(error), ADVICE, DamagedError) from error


def _reader_json(reader: WordReader) -> dict[str, Any]:
    """Return a word reader in JSON's types. Its large arrays are in half precision."""
    return {
        "n": reader.n,
        "temperature": reader.temperature,
        "projection": _array(reader.projection / (scale := _scale(reader.projection)), "<f2"),
        "scale": _array(scale),
        "offset": _array(reader.offset),
        "meanings": [[word, row] for word, row in reader.means.place],
        "mean": _array(reader.means.mean, "<f2"),
        "count": reader.means.count.tolist(),
        "feature_centre": _array(reader.feature_centre),
        "feature_scale": _array(reader.feature_scale),
        "ranker": [[_array(values) for values in layer] for layer in reader.ranker],
        "outsider": [[_array(values) for values in layer] for layer in reader.outsider],
    }


def _scale(projection: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return each row's largest absolute value, float32 [D, 1], so that half precision loses nothing to range."""
    largest: NDArray[np.float32] = np.abs(projection).max(axis=1, keepdims=True)
    return np.maximum(largest, np.float32(1e-30))


def _reader_from(content: dict[str, Any]) -> WordReader:
    places = {(str(word), int(row)): place for place, (word, row) in enumerate(content["meanings"])}
    mean, count = _from_array(content["mean"], "<f2"), np.array(content["count"], np.int32)
    if not len(places) == len(mean) == len(count):
        raise ValueError("the word reader's meanings, means and counts differ in number")
    return WordReader(
        projection=_from_array(content["projection"], "<f2") * _from_array(content["scale"]),
        offset=_from_array(content["offset"]),
        means=Means(places, mean, count),
        feature_centre=_from_array(content["feature_centre"]),
        feature_scale=_from_array(content["feature_scale"]),
        ranker=_layers(content["ranker"]),
        outsider=_layers(content["outsider"]),
        temperature=float(content["temperature"]),
        n=int(content["n"]),
    )


def _layers(content: list[list[dict[str, Any]]]) -> Layers:
    return tuple((_from_array(weights), _from_array(bias)) for weights, bias in content)


def _array(values: NDArray[np.float32], kind: str = "<f4") -> dict[str, Any]:
    return {"shape": list(values.shape), "data": _packed(values, kind)}


def _from_array(content: dict[str, Any], kind: str = "<f4") -> NDArray[np.float32]:
    return _unpacked(content["data"], tuple(content["shape"]), kind)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _packed(values: NDArray[np.float32], kind: str = "<f4") -> str:
    return base64.b64encode(np.ascontiguousarray(values, kind).tobytes()).decode()


def _unpacked(text: str, shape: tuple[int, ...], kind: str = "<f4") -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), kind).reshape(shape).astype(np.float32)
