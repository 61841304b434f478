"""How sure a reading is: a temperature for the doubt between concepts, familiarity for what none of them is.

    confidence = softmax(scores / temperature) x familiarity

The first factor is calibrated on readings of concepts that are in the encyclopedia. It must always choose one
of them, so that noise, another model's activation or a concept without an entry could look certain. The second
factor is 1 where the best score and the activation's distance from the training samples are what known readings
have, and falls to 0 towards what readings have whose own concept is taken away from the candidates.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.errors import DamagedError
from encyclo.statistics import calibration
from encyclo.statistics.accuracy import read_in_batches, true_ranks
from encyclo.storage import files
from encyclo.types import Interpreter, SampleSet, Split

KEPT = 1024
"""Scores kept of a reading, the best: what lies behind has no share in the softmax."""
LEVEL = 0.9
"""How often a conformal set holds the truth."""
UNFAMILIAR_SHARE = 0.02
"""The share of known readings that may lose confidence for looking unfamiliar."""
FEWEST = 20
"""Fewer readings than this calibrate nothing."""
_STATISTICS_FROM = 4096  # training samples that the distance is measured from


@dataclass(frozen=True)
class Readings:
    """What calibration needs of n readings, without their full scores.

    truth, best: int32 [n]; rank: int64 [n]; top: float32 [n, K] descending; own, rival: float32 [n], the score
    of the truth and the best of the others; distance: float32 [n], see `Surroundings`.
    """

    truth: NDArray[np.int32]
    best: NDArray[np.int32]
    rank: NDArray[np.int64]
    top: NDArray[np.float32]
    own: NDArray[np.float32]
    rival: NDArray[np.float32]
    distance: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, chosen: NDArray[Any]) -> Readings:
        """Return the chosen readings (a mask or row numbers)."""
        return Readings(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each truth was read first: bool [n]."""
        first: NDArray[np.bool_] = self.rank == 1
        return first


@dataclass(frozen=True)
class Surroundings:
    """Where training samples lie: mean and standard deviation float32 [L, H]."""

    mean: NDArray[np.float32]
    std: NDArray[np.float32]

    def distance(self, activations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return how far each sample lies, float32 [n]: log mean squared deviation at its strangest layer."""
        deviation = (activations - self.mean) / self.std
        result: NDArray[np.float32] = np.log((deviation**2).mean(axis=-1) + 1e-9).max(axis=-1)
        return result


def survey(samples: SampleSet) -> Surroundings:
    """Return where the training samples that mention their concept lie."""
    rows = samples.rows(Split.TRAIN)
    rows = rows[samples.named[rows]]
    step = max(1, len(rows) // _STATISTICS_FROM)
    values = samples.read(rows[::step])
    std = values.std(axis=0)
    return Surroundings(values.mean(axis=0), np.maximum(std, max(float(std.mean()) * 1e-3, 1e-12)))


def collect_readings(
    interpreter: Interpreter, samples: SampleSet, rows: NDArray[np.int64], near: Surroundings
) -> Readings:
    """Read `rows` in batches and keep what calibration needs of each; memory is flat in the candidates."""
    pieces = list(_read_pieces(interpreter, samples, rows, near))
    if not pieces:
        whole, real = np.empty(0, np.int32), np.empty(0, np.float32)
        return Readings(whole, whole, np.empty(0, np.int64), np.empty((0, 1), np.float32), real, real, real)
    columns = zip(*(vars(piece).values() for piece in pieces), strict=True)
    return Readings(*(np.concatenate(column) for column in columns))


def _read_pieces(
    interpreter: Interpreter, samples: SampleSet, rows: NDArray[np.int64], near: Surroundings
) -> Iterator[Readings]:
    for some, scores in read_in_batches(interpreter, samples, rows):
        truth, line = samples.concept[some], np.arange(len(some))
        own = scores[line, truth]
        others = scores.copy()
        others[line, truth] = -np.inf
        distance = near.distance(samples.read(some))
        rival = others.max(axis=1) if scores.shape[1] > 1 else np.full(len(some), own.min() - 1, np.float32)
        ranks, best = true_ranks(scores, truth), scores.argmax(axis=1).astype(np.int32)
        yield Readings(truth, best, ranks, best_scores(scores)[0], own, rival, distance)


def best_scores(scores: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return each row's `KEPT` best scores, descending, and their columns."""
    if scores.shape[1] > KEPT:
        columns = np.argpartition(-scores, KEPT - 1, axis=1)[:, :KEPT]
    else:
        columns = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    kept = np.take_along_axis(scores, columns, axis=1)
    order = np.argsort(-kept, axis=1, kind="stable")
    return np.take_along_axis(kept, order, axis=1), np.take_along_axis(columns, order, axis=1)


@dataclass(frozen=True)
class Calibrator:
    """Turns scores into confidences; fitted by `fit`."""

    temperature: float
    score_strange: float
    """A best score at or below this is unfamiliar (0) ..."""
    score_known: float
    """... and from this on familiar (1)."""
    distance_known: float
    distance_strange: float
    conformal: float
    """The largest -log probability that a candidate in a conformal set may have."""
    level: float
    n: int
    """Readings that it was fitted on."""

    def familiarity(self, top: NDArray[np.float32], distance: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return 1 for a known look, 0 for a strange one: best scores [n, K], distances [n] -> [n]."""
        score = (top[:, 0].astype(np.float64) - self.score_strange) / (self.score_known - self.score_strange)
        far = (distance.astype(np.float64) - self.distance_known) / (
            self.distance_strange - self.distance_known
        )
        result: NDArray[np.float64] = np.clip(score, 0, 1) * np.clip(1 - far, 0, 1)
        return np.nan_to_num(result)

    def confidences(self, top: NDArray[np.float32], distance: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the confidence of each of the best candidates, float64 [n, K]; a row sums to at most 1."""
        shares = calibration.softmax(top, self.temperature)
        return shares * self.familiarity(top, distance)[:, None]

    def strangeness(self, top: NDArray[np.float32], scores: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return -log of the softmax of `scores` [n, m] among the best scores [n, K]: float64 [n, m]."""
        from scipy.special import logsumexp

        whole = logsumexp(top.astype(np.float64) / self.temperature, axis=1, keepdims=True)
        result: NDArray[np.float64] = whole - scores.astype(np.float64) / self.temperature
        return result


def fit(readings: Readings, level: float = LEVEL) -> Calibrator:
    """Fit on readings whose truth is known and that training never saw; at least one."""
    temperature = _fit_temperature(readings)
    best = readings.top[:, 0].astype(np.float64)
    spread = max(float(best.std()), 1e-6 * max(1.0, float(np.abs(best).max())))
    known = float(np.quantile(best, UNFAMILIAR_SHARE))
    strange = float(np.median(readings.rival))
    # An interpreter that scores a wrong concept as high as the right one can't tell absence by its scores.
    strange = strange if strange < known - 0.1 * spread else known - spread
    far = float(np.quantile(readings.distance, 1 - UNFAMILIAR_SHARE / 4))
    reach = 5 * max(float(readings.distance.std()), 0.05)
    draft = Calibrator(temperature, strange, known, far, far + reach, np.inf, level, len(readings))
    own = draft.strangeness(readings.top, readings.own[:, None])[:, 0]
    return Calibrator(**{**asdict(draft), "conformal": calibration.conformal_threshold(own, level)})


def _fit_temperature(readings: Readings) -> float:
    """Fit among the best scores and the truth's own, which counts once."""
    others = readings.top.copy()
    inside = np.flatnonzero(readings.rank <= others.shape[1])
    others[inside, readings.rank[inside] - 1] = -np.inf
    scores = np.concatenate([readings.own[:, None], others], axis=1)
    return calibration.fit_temperature(scores, np.zeros(len(readings), np.int64))


def cross_fit(
    readings: Readings, groups: NDArray[np.integer], folds: int = 5, seed: int = 0
) -> dict[str, Any] | None:
    """Judge calibration on readings that the calibrator did not see: whole `groups` [n] change sides.

    Returns metrics.json's calibration object with `coverage` (accuracy where only the surest are answered) and
    `conformal` (measured coverage and mean size of the sets); None where there is too little to judge by.
    """
    names = np.unique(groups)
    if len(names) < 2 or len(readings) < FEWEST:
        return None
    names = np.random.default_rng(seed).permutation(names)
    side = {int(name): place % min(folds, len(names)) for place, name in enumerate(names)}
    fold = np.array([side[int(g)] for g in groups])
    confidence = np.zeros(len(readings))
    held, size = np.zeros(len(readings), bool), np.zeros(len(readings))
    for number in range(int(fold.max()) + 1):
        judged = fold == number
        calibrator, some = fit(readings.take(~judged)), readings.take(judged)
        confidence[judged] = calibrator.confidences(some.top, some.distance)[:, 0]
        own = calibrator.strangeness(some.top, some.own[:, None])[:, 0]
        held[judged] = own <= calibrator.conformal
        size[judged] = (calibrator.strangeness(some.top, some.top) <= calibrator.conformal).sum(axis=1)
    return report(confidence, readings.right) | {
        "coverage": calibration.accuracy_by_coverage(confidence, readings.right),
        "conformal": {
            "level": LEVEL,
            "coverage": float(held.mean()),
            "size": float(size.mean()),
            "empty": float((size == 0).mean()),
            "n": len(readings),
        },
    }


def report(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> dict[str, Any]:
    """Return calibration error, Brier score, bins and n, as metrics.json has them."""
    bins = calibration.reliability_bins(confidence, right)
    return {
        "ece": calibration.expected_calibration_error(bins),
        "brier": calibration.brier_score(confidence, right),
        "n": len(right),
        "bins": [[b.confidence, b.accuracy, b.count] for b in bins],
    }


def save(path: Path, calibrator: Calibrator, near: Surroundings, fitted_on: str) -> None:
    """Write what `encyclo read` needs into one JSON file that holds its own sha256; replaced atomically."""
    content = {
        "fitted_on": fitted_on,
        "calibrator": {**asdict(calibrator), "conformal": _finite(calibrator.conformal)},
        "shape": list(near.mean.shape),
        "mean": _packed(near.mean),
        "std": _packed(near.std),
    }
    files.write_json(path, {**content, "sha256": _seal(content)})


def load(path: Path) -> tuple[Calibrator, Surroundings]:
    """Read what `save` wrote. Raises DamagedError if it is not that."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("sha256") != _seal(content):
            raise ValueError("its sha256 is another")
        values = content["calibrator"]
        values["conformal"] = np.inf if values["conformal"] is None else values["conformal"]
        shape = tuple(content["shape"])
        near = Surroundings(_unpacked(content["mean"], shape), _unpacked(content["std"], shape))
        return Calibrator(**values), near
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(
            f"{path} is not what the run wrote ({error}); `encyclo evaluate` on its directory writes it anew."
        ) from error


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _seal(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _packed(values: NDArray[np.float32]) -> str:
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()


def _unpacked(text: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(shape).astype(np.float32)
