"""What the page says of signatures: neighbours, what each layer carries, the map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from encyclo.report.atlas import draw_atlas
from encyclo.report.entries import most_and_least
from encyclo.report.wording import thousandths
from encyclo.runs.details_file import NEAREST, SignatureFigures
from encyclo.schema import Book, SignatureTable
from encyclo.statistics.similarity import Similarity


def signature_figures(book: Book, similarity: Similarity, rows: NDArray[np.int64]) -> SignatureFigures:
    """Return what the page says of signatures, with the neighbours of `rows` and of the most and least trusted."""
    rows = np.union1d(rows, np.concatenate(most_and_least(book))).astype(np.int64)
    carried = carried_by_layer(book.signatures, similarity)
    return SignatureFigures(
        similarity.nearest(rows, NEAREST),
        [[thousandths(share) for share in layers] for layers in carried],
        draw_atlas(similarity),
        similarity.centre,
        similarity.scale,
    )


def carried_by_layer(signatures: SignatureTable, similarity: Similarity) -> NDArray[np.float64]:
    """Return float64 [C, L]: the share of a sample's variation that comes from its concept; NaN where unknown.

    The signature's squared length over a centred, scaled sample's, both minus what the mean of few samples has by
    chance: an intraclass correlation, 0 for a layer without information on the concept (Shrout and Fleiss,
    "Intraclass Correlations", 1979, case 1).
    """
    count = signatures.count.astype(np.float64)[:, None]
    centre, scale = similarity.centre, similarity.scale
    length, spread = np.empty((2, *signatures.mean.shape[:2]))
    for layer in range(len(centre)):  # a layer at a time: no further array of the signatures' size
        standard = (signatures.mean[:, layer] - centre[layer]) / scale[layer]
        length[:, layer] = (standard**2).sum(axis=-1, dtype=np.float64)
        spread[:, layer] = (signatures.variance[:, layer] / scale[layer] ** 2).sum(axis=-1, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.maximum(length - spread / (count - 1), 0)
        share = own / (own + spread * count / (count - 1))
    result: NDArray[np.float64] = np.where(count < 2, np.nan, share)
    return result
