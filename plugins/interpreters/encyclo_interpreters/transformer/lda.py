"""Linear discriminants in closed form: the directions that distinguish concepts.

At each layer, the variation of a concept over its prompts is noise. Fisher's linear discriminant (Fisher, 1936; Rao,
1948) whitens it and keeps the directions in which the concepts' means differ most. On gemma-3-270m the discriminants
alone read held-out templates better than a network trained from random weights.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from encyclo.types import SampleSet
from encyclo_interpreters.sample_statistics import blocks
from encyclo_interpreters.transformer.training_data import TrainingData

# Shrinkage of the within-concept correlations towards 0, against noise. Between 0.05 and 0.5 the accuracy on
# held-out templates changed by less than 0.1 points.
SHRINKAGE = 0.2


def fit_discriminants(data: TrainingData, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (centre float32 [L, H], projection float32 [L, H, width]) from the training rows.

    If there are fewer than `width` directions (few concepts, small models), the last columns are zero. If no concept
    has two samples, the scatter of the concepts' means replaces the within-concept scatter.
    """
    samples, rows, means, count = data.samples, data.rows, data.means, data.count
    seen = slice(None) if (count > 0).all() else count > 0  # a slice copies nothing
    centre = means[seen].mean(axis=0)
    repeated = rows[samples.named[rows] & (count[samples.concept[rows]] > 1)]
    layers, hidden = centre.shape
    projection = np.zeros((layers, hidden, width), np.float32)
    within = _within_scatter(samples, repeated, means) if len(repeated) else None
    for layer in range(layers):  # a layer at a time: no further array of the means' size
        between = _scatter((means[seen, layer] - centre[layer]).astype(np.float64))
        whiten = _whitening(between if within is None else within[layer])
        directions = _main_directions(whiten.T @ between @ whiten, min(width, hidden, len(means[seen])))
        projection[layer, :, : directions.shape[1]] = whiten @ directions
    return centre, projection


def _within_scatter(
    samples: SampleSet, rows: NDArray[np.int64], means: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return the mean outer product of samples minus their concept's mean: float64 [L, H, H]."""
    layers, hidden = means.shape[1:]
    total = np.zeros((layers, hidden, hidden))
    for block in blocks(rows):
        rest = samples.read(block) - means[samples.concept[block]]
        for layer in range(layers):
            total[layer] += _scatter(rest[:, layer]) * len(block)
    return total / len(rows)


def _scatter(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the mean outer product of vectors [n, H]: [H, H]."""
    result: NDArray[np.floating] = values.T @ values / len(values)
    return result


def _whitening(scatter: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the matrix [H, H] that whitens `scatter` after shrinking its correlations."""
    scale = np.sqrt(np.diag(scatter))
    scale = np.maximum(scale, max(float(scale.max()) * 1e-4, 1e-12))  # keeps dead dimensions bounded
    correlation = scatter / scale[:, None] / scale
    correlation = (1 - SHRINKAGE) * correlation + SHRINKAGE * np.eye(len(scatter))
    values, vectors = np.linalg.eigh(correlation)
    result: NDArray[np.float64] = vectors / np.sqrt(values) / scale[:, None]
    return result


def _main_directions(scatter: NDArray[np.floating], width: int) -> NDArray[np.floating]:
    """Return the directions of highest variance, [H, at most width], with fixed signs for reproducibility."""
    _, vectors = np.linalg.eigh(scatter)
    directions = vectors[:, ::-1][:, :width]
    signs = np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(width)])
    result: NDArray[np.floating] = directions * signs
    return result
