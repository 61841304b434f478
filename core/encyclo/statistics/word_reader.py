"""Which of a word's entries a mention means, or none of them: learned from mentions in running text.

A word that several entries share, or that has meanings without an entry, is read by comparing the activation with
the mean activation of each meaning's mentions. A meaning is one of the word's entries, or "none of them".

    direction   the activation, standardised, along the linear discriminants of the meanings, scaled to length 1
    features    of each meaning: how often it was meant (by the samples, by the concept list), the cosine-like product
                of the direction with the meaning's mean direction, and how many mentions this mean rests on
    logit       a small network of the features; "none" adds a network of the direction itself, which
                knows what mentions without an entry look like
    confidence  the softmax of the logits / temperature over the word's meanings

`encyclo.statistics.word_training` fits it. n mentions, D = L x H, k discriminants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encyclo.entry_words import NONE, NamedWord

WordMeaning = tuple[str, int]
"""A word, not inflected, and the row of an entry that it may mean, or NONE."""
FEATURES = 6
PRIOR = 0.5
"""How many mentions the concept list's shares count for."""
SCALE = 16.0
"""Directions have length 1; the network for "none" reads them at about unit variance per dimension."""

Floats = NDArray[np.float32]
Layers = tuple[tuple[Floats, Floats], ...]
"""A network: (weights [in, out], bias [out]) of each layer; between them a GELU."""


@dataclass(frozen=True)
class Means:
    """What the mentions of each meaning look like: m meanings."""

    place: Mapping[WordMeaning, int]
    """A meaning's row in the arrays."""
    mean: Floats
    """The mean of the mentions' directions: float32 [m, k]."""
    count: NDArray[np.int32]
    """The number of mentions: int32 [m]."""


@dataclass(frozen=True)
class WordReader:
    """Reads mentions; made by `word_training.fit`, kept in calibration.json."""

    projection: Floats
    offset: Floats
    """[D, k] and [k]: discriminants = activations @ projection - offset."""
    means: Means
    feature_centre: Floats
    feature_scale: Floats
    ranker: Layers
    outsider: Layers
    """The network of the direction for "none"."""
    temperature: float
    n: int
    """The number of mentions that it was fitted on."""

    def directions(self, activations: Floats) -> Floats:
        """Return unit vectors, float32 [n, k], of activations [n, L, H]."""
        return unit(activations.reshape(len(activations), -1) @ self.projection - self.offset)

    def confidences(self, activations: Floats, words: Sequence[NamedWord]) -> list[dict[int, float]]:
        """Return the probability of each of a word's entries, {row: probability}, for each activation [n, L, H].

        They sum to at most 1: the rest is "none of them". Of a word without entries: {}.
        """
        found: list[dict[int, float]] = [{} for _ in words]
        chosen = [place for place, word in enumerate(words) if word]
        if not chosen:
            return found
        named = [word for word in words if word]
        directions = self.directions(activations[chosen])
        outside = forward(self.outsider, directions * SCALE)[:, 0]
        features = (self.features(directions, named) - self.feature_centre) / self.feature_scale
        scores = forward(self.ranker, features)[:, 0]
        start = 0
        for place, word, none in zip(chosen, named, outside, strict=True):
            pairs = word.meanings()
            logits = scores[start : start + len(pairs)].astype(np.float64)
            start += len(pairs)
            logits[-1] += none
            weights = np.exp((logits - logits.max()) / self.temperature)
            weights /= weights.sum()
            found[place] = {row: float(w) for (row, _), w in zip(pairs[:-1], weights[:-1], strict=True)}
        return found

    def features(self, directions: Floats, words: Sequence[NamedWord]) -> Floats:
        """Return the features of all meanings, mention by mention: float32 [sum of meanings, FEATURES]."""
        rows = []
        for direction, named in zip(directions, words, strict=True):
            places = [
                (row, share, self.means.place.get((named.word, row), -1)) for row, share in named.meanings()
            ]
            counts = [int(self.means.count[place]) if place >= 0 else 0 for _, _, place in places]
            total = sum(counts)
            for (row, share, place), count in zip(places, counts, strict=True):
                alike = float(direction @ self.means.mean[place]) if count else 0.0
                rows.append(feature_row(row, share, count, total, alike))
        return np.array(rows, np.float32).reshape(-1, FEATURES)


def feature_row(row: int, share: float, count: int, total: int, alike: float) -> tuple[float, ...]:
    """Return one meaning's features; `total` is the number of the word's mentions: see the module."""
    return (
        float(np.log((count + PRIOR * share + 1e-3) / (total + PRIOR + 1e-2))),
        float(np.log(share + 1e-3)),
        alike,
        float(np.log1p(count)),
        float(count > 0),
        float(row == NONE),
    )


def unit(values: Floats) -> Floats:
    """Return the rows scaled to length 1."""
    length = np.linalg.norm(values, axis=1, keepdims=True)
    result: Floats = (values / np.maximum(length, 1e-12)).astype(np.float32)
    return result


def forward(layers: Layers, values: Floats) -> Floats:
    """Return a network's output; GELU by its tanh approximation (Hendrycks and Gimpel, 2016)."""
    for place, (weights, bias) in enumerate(layers):
        values = values @ weights + bias
        if place + 1 < len(layers):
            values = 0.5 * values * (1 + np.tanh(np.sqrt(2 / np.pi) * (values + 0.044715 * values**3)))
    return values
