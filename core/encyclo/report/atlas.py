"""The map: a point in two dimensions for each concept, near those with similar signatures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from encyclo.runs.details_file import Atlas
from encyclo.statistics.similarity import Similarity

MOST = 3000
"""The most concepts on a map, evenly spaced if there are more."""
FEWEST = 3
TSNE_FROM = 20
"""Fewer concepts than this have too few neighbours for t-SNE: their first two principal components are drawn."""
SIDE = 1000


def draw_atlas(similarity: Similarity) -> Atlas | None:
    """Return the concepts' places; None if fewer than three have a signature, or all signatures are equal.

    t-SNE (van der Maaten and Hinton, 2008) of the centred, scaled signatures' directions at all layers, with a
    fixed seed and one thread: the same signatures give the same map.
    """
    seen = np.flatnonzero(similarity.seen)
    rows = seen[:: -(-len(seen) // MOST)] if len(seen) > MOST else seen
    if len(rows) < FEWEST:
        return None
    features = similarity.units[rows].reshape(len(rows), -1).astype(np.float64)
    if not features.std(axis=0).max() > 1e-9:
        return None
    places, method = _embed(features)
    low, high = places.min(axis=0), places.max(axis=0)
    scaled = (places - low) / np.maximum(high - low, 1e-12) * SIDE
    return Atlas(rows, scaled.round().astype(np.int64), method, len(seen) - len(rows))


def _embed(features: NDArray[np.float64]) -> tuple[NDArray[np.float64], str]:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    count = len(features)
    parts = 2 if count < TSNE_FROM else min(50, count - 1, features.shape[1])
    with threadpool_limits(1):
        reduced = PCA(parts, svd_solver="randomized", random_state=0).fit_transform(features)
        if count < TSNE_FROM:
            return reduced, "first two principal components"
        found = TSNE(
            perplexity=min(30.0, (count - 1) / 3), max_iter=400, init="pca", random_state=0, n_jobs=1
        ).fit_transform(reduced)
    return np.asarray(found, np.float64), "t-SNE"
