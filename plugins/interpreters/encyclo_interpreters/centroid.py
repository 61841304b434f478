"""Baseline `centroid`: nearest centroid by cosine.

Activations are standardised per layer and dimension. A concept's score is the cosine between the sample and the
concept's standardised mean, averaged over layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from encyclo import hookimpl
from encyclo.types import Concept, Context, SampleSet, Split
from encyclo_interpreters.provenance import check_shape, trained_on
from encyclo_interpreters.sample_statistics import blocks, layer_statistics, standardised, training_means
from encyclo_interpreters.saved_model import load_model, save_model


class Options(BaseModel):
    """The interpreter `centroid` takes no options."""

    model_config = ConfigDict(extra="forbid")


class CentroidInterpreter:
    """Nearest centroid; the module's docstring defines the score."""

    def __init__(
        self,
        concepts: list[str],
        mean: NDArray[np.float32],
        std: NDArray[np.float32],
        centroids: NDArray[np.float32],
        origin: dict[str, object],
    ) -> None:
        self.concepts = concepts
        self.mean, self.std = mean, std
        self.centroids = centroids
        """Standardised means, scaled to length 1 at each layer: float32 [C, L, H]."""
        self.origin = origin

    def read(self, activations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score every concept: float32 [n, L, H] -> float32 [n, C], from -1 to 1."""
        check_shape(activations, self.mean.shape, self.origin)
        read = directions(activations, self.mean, self.std)
        layers = read.shape[1]
        flat = read.reshape(len(read), -1) @ self.centroids.reshape(len(self.centroids), -1).T
        scores: NDArray[np.float32] = flat / layers
        return scores

    def add_concepts(self, ids: Sequence[str], signatures: NDArray[np.float32]) -> None:
        """Add concepts by their signatures, float32 [k, L, H]."""
        self.concepts = [*self.concepts, *ids]
        self.centroids = np.concatenate([self.centroids, directions(signatures, self.mean, self.std)])

    def save(self, folder: Path) -> None:
        """Write model.safetensors and config.json."""
        arrays = {"mean": self.mean, "std": self.std, "centroids": self.centroids}
        config = {"interpreter": "centroid", "trained_on": self.origin, "concepts": self.concepts}
        save_model(folder, arrays, config)


def directions(
    values: NDArray[np.float32], mean: NDArray[np.float32], std: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return vectors standardised and scaled to length 1 at each layer: float32 [n, L, H]."""
    standard = standardised(values, mean, std)
    lengths = np.linalg.norm(standard, axis=-1, keepdims=True)
    return (standard / np.maximum(lengths, 1e-12)).astype(np.float32)


@hookimpl
def train_interpreter(
    samples: SampleSet, concepts: Sequence[Concept], context: Context
) -> CentroidInterpreter:
    """Average each concept's training samples."""
    rows = samples.rows(Split.TRAIN)
    mean, std = layer_statistics(samples, rows)
    means, _ = training_means(samples, rows, len(concepts))
    for block in blocks(means):  # in place: a large run's means take most of a gigabyte
        block[:] = directions(block, mean, std)
    ids = [concept.id for concept in concepts]
    return CentroidInterpreter(ids, mean, std, means, trained_on(samples, context))


@hookimpl
def load_interpreter(folder: Path) -> CentroidInterpreter:
    """Load what `CentroidInterpreter.save` wrote."""
    arrays, config = load_model(folder)
    return CentroidInterpreter(config["concepts"], origin=config["trained_on"], **arrays)
