"""The confidence of a reading: a temperature-scaled softmax times a factor for unfamiliar activations.

    confidence = softmax(scores / temperature) x in-distribution score

The first factor is calibrated on readings of the encyclopedia's concepts. It must choose one of them, so noise,
another model's activation or a concept without an entry could look certain. The second factor is 1 if the best
score and the activation's distance from the training samples are as usual for known readings. It falls to 0 as
they approach those of readings whose own concept is removed from the candidates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.statistics import calibration
from encyclo.statistics.accuracy import read_batches, true_ranks
from encyclo.statistics.figures import Calibration, Conformal
from encyclo.types import Interpreter, SampleSet, Split

KEPT = 1024
"""The number of best scores kept of a reading; the softmax ignores the others."""
LEVEL = 0.9
"""The probability with which a conformal set contains the truth."""
UNFAMILIAR_SHARE = 0.02
"""The share of known readings that may lose confidence because they look unfamiliar."""
FEWEST = 20
"""The fewest readings for a calibration."""
ENOUGH_SENTENCES = 200
"""With at least this many natural sentences, readings are calibrated on them: they resemble real texts most."""
MOST_READINGS = 50_000
"""The most readings that a calibrator is fitted on, evenly spaced: 200 MB of scores. More would change no figure."""
_AT_ONCE = 1024  # readings whose scores are in float64 at once
_STATISTICS_FROM = 4096  # training samples that the distance is measured from


@dataclass(frozen=True)
class Readings:
    """The figures of n readings that calibration needs, without their full scores.

    truth, best: int32 [n]; rank: int64 [n]; top: float32 [n, K] descending; own, rival: float32 [n], the score
    of the truth and the best other score; distance: float32 [n], see `TrainingDistribution`.
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
        """Return the readings chosen by a mask or by row numbers."""
        return Readings(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each truth was read first: bool [n]."""
        first: NDArray[np.bool_] = self.rank == 1
        return first


@dataclass(frozen=True)
class TrainingDistribution:
    """The distribution of training samples: mean and standard deviation float32 [L, H]."""

    mean: NDArray[np.float32]
    std: NDArray[np.float32]

    def distance(self, activations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return each sample's distance, float32 [n]: the log mean squared deviation at its farthest layer."""
        deviation = (activations - self.mean) / self.std
        result: NDArray[np.float32] = np.log((deviation**2).mean(axis=-1) + 1e-9).max(axis=-1)
        return result


def training_distribution(samples: SampleSet) -> TrainingDistribution:
    """Return the distribution of the training samples that mention their concept."""
    rows = samples.named_rows(Split.TRAIN)
    step = max(1, len(rows) // _STATISTICS_FROM)
    values = samples.read(rows[::step])
    std = values.std(axis=0)
    return TrainingDistribution(values.mean(axis=0), np.maximum(std, max(float(std.mean()) * 1e-3, 1e-12)))


def collect_readings(
    interpreter: Interpreter, samples: SampleSet, rows: NDArray[np.int64], distribution: TrainingDistribution
) -> Readings:
    """Read `rows` in batches; memory does not grow with the number of candidates, but by 4 kB with each row."""
    whole, real = np.empty(0, np.int32), np.empty(0, np.float32)
    found = Readings(whole, whole, np.empty(0, np.int64), np.empty((0, 1), np.float32), real, real, real)
    start = 0
    for piece in _read_pieces(interpreter, samples, rows, distribution):
        if start == 0:  # filled in place: batches and their concatenation would take twice the memory
            columns = vars(piece).values()
            found = Readings(*(np.empty((len(rows), *column.shape[1:]), column.dtype) for column in columns))
        for name, column in vars(piece).items():
            getattr(found, name)[start : start + len(piece)] = column
        start += len(piece)
    return found


def _read_pieces(
    interpreter: Interpreter, samples: SampleSet, rows: NDArray[np.int64], distribution: TrainingDistribution
) -> Iterator[Readings]:
    for some, activations, scores in read_batches(interpreter, samples, rows):
        truth, line = samples.concept[some], np.arange(len(some))
        own, top = scores[line, truth], highest_scores(scores)
        distance = distribution.distance(activations)
        ranks, best = true_ranks(scores, truth), scores.argmax(axis=1).astype(np.int32)
        if scores.shape[1] > 1:  # the best other score is the second if the truth has the first
            rival = np.where(own >= top[:, 0], top[:, 1], top[:, 0])
        else:
            rival = np.full(len(some), own.min() - 1, np.float32)
        yield Readings(truth, best, ranks, top, own, rival, distance)


def few_enough(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return at most `MOST_READINGS` of `rows`, evenly spaced."""
    if len(rows) <= MOST_READINGS:
        return rows
    chosen: NDArray[np.int64] = rows[np.linspace(0, len(rows) - 1, MOST_READINGS).round().astype(int)]
    return chosen


def highest_scores(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return each row's `KEPT` best scores, descending; without their columns, a third of `best_scores`' work."""
    ascending = -scores
    if scores.shape[1] > KEPT:
        ascending.partition(KEPT - 1, axis=1)
        ascending = ascending[:, :KEPT].copy()
    ascending.sort(axis=1)
    return np.negative(ascending, out=ascending)


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
    """Turns scores into confidences; fitted by `fit`, returned by the scorer, used for all readings."""

    temperature: float
    score_strange: float
    """A best score at or below this is out of distribution (0) ..."""
    score_known: float
    """... and from this on in distribution (1)."""
    distance_known: float
    distance_strange: float
    conformal: float
    """The largest nonconformity score in a conformal set."""
    level: float
    n: int
    """The number of readings that it was fitted on."""
    fitted_on: str
    """The rung of these readings."""
    distribution: TrainingDistribution

    def in_distribution(self, top: NDArray[np.float32], distance: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return 1 for a familiar reading, 0 for an unfamiliar one: best scores [n, K], distances [n] -> [n]."""
        score = (top[:, 0].astype(np.float64) - self.score_strange) / (self.score_known - self.score_strange)
        far = (distance.astype(np.float64) - self.distance_known) / (
            self.distance_strange - self.distance_known
        )
        result: NDArray[np.float64] = np.clip(score, 0, 1) * np.clip(1 - far, 0, 1)
        return np.nan_to_num(result)

    def confidences(self, top: NDArray[np.float32], distance: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the confidences of the best candidates, float64 [n, K]; a row sums to at most 1."""
        shares = calibration.softmax(top, self.temperature)
        return shares * self.in_distribution(top, distance)[:, None]

    def best_confidences(
        self, top: NDArray[np.float32], distance: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Return the confidence of each best candidate alone, float64 [n], in blocks of readings."""
        found = np.empty(len(top))
        for rows in _blocks(len(top)):
            found[rows] = self.confidences(top[rows], distance[rows])[:, 0]
        return found

    def nonconformity(self, top: NDArray[np.float32], scores: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return -log of the softmax of `scores` [n, m] among the best scores [n, K]: float64 [n, m]."""
        from scipy.special import logsumexp

        result = np.empty(scores.shape)
        for rows in _blocks(len(top)):
            whole = logsumexp(top[rows].astype(np.float64) / self.temperature, axis=1, keepdims=True)
            result[rows] = whole - scores[rows].astype(np.float64) / self.temperature
        return result

    def set_sizes(self, top: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return how many of the best scores [n, K] are in each conformal set: int64 [n]."""
        found = np.empty(len(top), np.int64)
        for rows in _blocks(len(top)):
            found[rows] = (self.nonconformity(top[rows], top[rows]) <= self.conformal).sum(axis=1)
        return found


def _blocks(count: int) -> Iterator[slice]:
    """Yield slices of readings that are worked on in float64 at once: at most 8 MB of scores."""
    for start in range(0, count, _AT_ONCE):
        yield slice(start, start + _AT_ONCE)


def fit(
    readings: Readings,
    distribution: TrainingDistribution,
    fitted_on: str = "heldout_prompts",
    level: float = LEVEL,
) -> Calibrator:
    """Fit on at least one reading whose truth is known and that training never saw."""
    temperature = _fit_temperature(readings)
    best = readings.top[:, 0].astype(np.float64)
    spread = max(float(best.std()), 1e-6 * max(1.0, float(np.abs(best).max())))
    known = float(np.quantile(best, UNFAMILIAR_SHARE))
    strange = float(np.median(readings.rival))
    # If a wrong concept scores as high as the right one, scores can't show that a concept is absent.
    strange = strange if strange < known - 0.1 * spread else known - spread
    far = float(np.quantile(readings.distance, 1 - UNFAMILIAR_SHARE / 4))
    reach = 5 * max(float(readings.distance.std()), 0.05)
    draft = Calibrator(
        temperature, strange, known, far, far + reach, np.inf, level, len(readings), fitted_on, distribution
    )
    own = draft.nonconformity(readings.top, readings.own[:, None])[:, 0]
    return replace(draft, conformal=calibration.conformal_threshold(own, level))


def _fit_temperature(readings: Readings) -> float:
    """Fit on the best scores and the score of the truth, which counts once."""
    inside = readings.rank <= readings.top.shape[1]
    return calibration.fit_temperature_of_best(readings.top, readings.own, inside)


def cross_fit(
    readings: Readings,
    groups: NDArray[np.integer],
    distribution: TrainingDistribution,
    folds: int = 5,
    seed: int = 0,
    by_kind: bool = False,
) -> Calibration | None:
    """Measure calibration by cross-fitting, with each of `groups` [n] on one side as a whole.

    `by_kind` is for readings of another kind than mentions, which are often wrong: see `confidences_by_kind`.

    Returns metrics.json's calibration object with `coverage` (accuracy if only the readings of highest confidence are
    answered) and `conformal` (measured coverage and mean size of the sets); None if there are too few readings.
    """
    parts = list(cross_fitted(readings, groups, distribution, folds, seed))
    if not parts:
        return None
    confidence = np.zeros(len(readings))
    held, size = np.zeros(len(readings), bool), np.zeros(len(readings))
    for judged, calibrator in parts:
        some = readings.take(judged)
        if by_kind:
            confidence[judged] = confidences_by_kind(readings.take(~judged), some, calibrator.temperature)
        else:
            confidence[judged] = calibrator.best_confidences(some.top, some.distance)
        own = calibrator.nonconformity(some.top, some.own[:, None])[:, 0]
        held[judged] = own <= calibrator.conformal
        size[judged] = calibrator.set_sizes(some.top)
    sets = Conformal(
        level=LEVEL,
        coverage=float(held.mean()),
        size=float(size.mean()),
        empty=float((size == 0).mean()),
        n=len(readings),
    )
    answered = calibration.accuracy_by_coverage(confidence, readings.right)
    more = {"ece_by_chance": calibration.error_by_chance(confidence), "coverage": answered, "conformal": sets}
    return report(confidence, readings.right).model_copy(update=more)


def confidences_by_kind(known: Readings, judged: Readings, temperature: float) -> NDArray[np.float64]:
    """Return the confidences of `judged`, float64 [n], learnt from `known` readings of the same kind.

    The product of the two factors takes for granted that a familiar reading is right as often as its softmax says. That
    holds for mentions, which nearly always are. Of definitions it does not: the temperature fits the probability of
    all candidates, and the best one may still be wrong far more often than its softmax says. So a logistic regression
    (Platt, "Probabilistic Outputs for Support Vector Machines", 1999) says how often: on the softmax's logit and on
    the best score.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    right = known.right
    if right.all() or not right.any():
        return np.full(len(judged), float(right.mean()))
    model = make_pipeline(StandardScaler(), LogisticRegression())
    model.fit(_evidence(known, temperature), right)
    found: NDArray[np.float64] = model.predict_proba(_evidence(judged, temperature))[:, 1]
    return found


def _evidence(readings: Readings, temperature: float) -> NDArray[np.float64]:
    """Return the logit of each best candidate's softmax, and its score: float64 [n, 2]."""
    share = np.clip(calibration.softmax(readings.top, temperature)[:, 0], 1e-6, 1 - 1e-6)
    return np.stack([np.log(share / (1 - share)), readings.top[:, 0].astype(np.float64)], axis=1)


def cross_fitted(
    readings: Readings,
    groups: NDArray[np.integer],
    distribution: TrainingDistribution,
    folds: int = 5,
    seed: int = 0,
) -> Iterator[tuple[NDArray[np.bool_], Calibrator]]:
    """Yield for each fold (bool [n], its readings; the calibrator fitted on the others); `groups` stay whole.

    Yields nothing if there are fewer than two groups or too few readings.
    """
    names = np.unique(groups)
    if len(names) < 2 or len(readings) < FEWEST:
        return
    names = np.random.default_rng(seed).permutation(names)
    side = {int(name): place % min(folds, len(names)) for place, name in enumerate(names)}
    fold = np.array([side[int(g)] for g in groups])
    for number in range(int(fold.max()) + 1):
        judged = fold == number
        yield judged, fit(readings.take(~judged), distribution)


def report(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], temperature: float | None = None
) -> Calibration:
    """Return calibration error, Brier score, bins and n, and the temperature if one is given."""
    bins = calibration.reliability_bins(confidence, right)
    found = Calibration(
        ece=calibration.expected_calibration_error(bins),
        brier=calibration.brier_score(confidence, right),
        n=len(right),
        bins=[[b.confidence, b.accuracy, b.count] for b in bins],
    )
    return found if temperature is None else found.model_copy(update={"temperature": temperature})
