"""Similarity of signatures: the cosine after centring and scaling.

A signature is centred (minus the mean over concepts), each dimension is divided by its standard deviation over
concepts, and each layer is scaled to length 1; see docs/glossary.md. A concept without a sample that mentions it
has no signature: it counts in neither mean nor standard deviation, and is not a neighbour of any concept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.schema import SignatureTable

TINY = 1e-12
NEAR = 0.005
"""The smallest cosine of a neighbour: less is shown as 0.00, as of concepts that have nothing in common."""
ROWS = 2048
"""The number of concepts whose signatures are worked on at once: 26 MB for five layers of 640."""
BLOCK = 256
"""The number of concepts whose neighbours are looked up at once: memory is BLOCK x C."""


def centre_and_scale(mean: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the mean and the standard deviation over concepts of `mean` [C, L, H]: float32 [L, H] each.

    Summed in float64, since the mean is much larger than the differences between signatures. The standard deviation
    is at least TINY, so that it can be divided by. Without concepts they are 0 and 1.
    """
    shape = mean.shape[1:]
    if len(mean) == 0:
        return np.zeros(shape, np.float32), np.ones(shape, np.float32)
    blocks = range(0, len(mean), ROWS)  # no second array of this size
    centre = sum(mean[at : at + ROWS].sum(axis=0, dtype=np.float64) for at in blocks) / len(mean)
    squares = sum(((mean[at : at + ROWS] - centre) ** 2).sum(axis=0) for at in blocks)
    scale = np.maximum(np.sqrt(squares / len(mean)), TINY)
    return centre.astype(np.float32), scale.astype(np.float32)


@dataclass(frozen=True)
class Similarity:
    """Every concept's direction, and the centre and scale that make a vector comparable.

    centre, scale: float32 [L, H]; units: float32 [C, L, H], of length 1 at each layer (0 without a signature);
    seen: bool [C], whether the concept has a signature
    """

    centre: NDArray[np.float32]
    scale: NDArray[np.float32]
    units: NDArray[np.float32]
    seen: NDArray[np.bool_]

    @classmethod
    def of(cls, signatures: SignatureTable) -> Similarity:
        """Return the directions of signatures."""
        mean, seen = signatures.mean, signatures.count > 0
        centre, scale = centre_and_scale(mean if seen.all() else mean[seen])
        units = np.empty(mean.shape, np.float32)
        for at in range(0, len(mean), ROWS):  # no second array of this size
            units[at : at + ROWS] = _unit((mean[at : at + ROWS] - centre) / scale)
        units[~seen] = 0
        return cls(centre, scale, units, seen)

    def cosines(
        self, vector: NDArray[np.floating], layer: int | None = None, difference: bool = False
    ) -> NDArray[np.float32]:
        """Return each concept's cosine with a vector, float32 [C]; -inf for one without a signature.

        `vector` is [L, H] (cosines are averaged over layers), or [H] at the layer with index `layer`. A
        `difference` of activations is scaled but not centred: the centre cancels in it.
        """
        chosen = slice(None) if layer is None else slice(layer, layer + 1)
        values = np.asarray(vector, np.float32).reshape(-1, self.centre.shape[-1])
        centred = values if difference else values - self.centre[chosen]
        unit = _unit(centred / self.scale[chosen])
        found: NDArray[np.float32] = np.einsum("clh,lh->c", self.units[:, chosen], unit) / len(unit)
        found[~self.seen] = -np.inf
        return found

    def nearest(self, rows: NDArray[np.int64], count: int) -> dict[int, list[tuple[int, float]]]:
        """Return at most `count` neighbours (row, cosine) of each of `rows`, the nearest first.

        The cosine is averaged over layers and at least `NEAR`. Ties are in the concepts' order.
        """
        found: dict[int, list[tuple[int, float]]] = {int(row): [] for row in rows}
        asked = np.asarray(rows)[self.seen[rows]]
        for start in range(0, len(asked), BLOCK):
            block = asked[start : start + BLOCK]
            cosine = np.zeros((len(block), len(self.units)), np.float32)
            for layer in range(self.units.shape[1]):
                cosine += self.units[block, layer] @ self.units[:, layer].T
            cosine /= self.units.shape[1]
            cosine[:, ~self.seen] = -np.inf
            cosine[np.arange(len(block)), block] = -np.inf
            for row, values in zip(block.tolist(), cosine, strict=True):
                found[row] = [(other, cosine) for other, cosine in likeliest(values, count) if cosine >= NEAR]
        return found


def nearest_to(
    signatures: SignatureTable,
    row: int,
    count: int,
    known: tuple[NDArray[np.float32], NDArray[np.float32]] | None,
) -> list[tuple[int, float]]:
    """Return what `Similarity.nearest` does of one row, reading a block of means after another: memory does not grow.

    `known` are centre and scale; without them the means are gone through three times.
    """
    seen = signatures.count > 0
    if not seen[row]:
        return []
    centre, scale = known or _centre_and_scale_of(signatures, seen)
    own = _unit((signatures.mean_of(row) - centre) / scale)
    cosine = np.empty(len(seen), np.float32)
    for place, mean in enumerate(signatures.means(ROWS)):
        units = _unit((mean - centre) / scale)
        cosine[place * ROWS : place * ROWS + len(mean)] = np.einsum("clh,lh->c", units, own) / len(own)
    cosine[~seen] = -np.inf
    cosine[row] = -np.inf
    return [(other, cosine) for other, cosine in likeliest(cosine, count) if cosine >= NEAR]


def _centre_and_scale_of(
    signatures: SignatureTable, seen: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return `centre_and_scale` of the concepts with a signature, at least one."""
    ends = range(ROWS, len(seen) + ROWS, ROWS)

    def blocks() -> Iterator[NDArray[np.float32]]:
        for end, mean in zip(ends, signatures.means(ROWS), strict=True):
            yield mean[seen[end - ROWS : end]]

    total = int(seen.sum())
    centre = sum(mean.sum(axis=0, dtype=np.float64) for mean in blocks()) / total
    squares = sum(((mean - centre) ** 2).sum(axis=0) for mean in blocks())
    scale = np.maximum(np.sqrt(squares / total), TINY)
    return centre.astype(np.float32), scale.astype(np.float32)


def likeliest(cosines: NDArray[np.float32], count: int) -> list[tuple[int, float]]:
    """Return the `count` largest of `cosines` [C] as (row, cosine), the largest first; -inf is left out."""
    rows = smallest(-cosines, count)
    order = rows[np.argsort(-cosines[rows], kind="stable")[: max(count, 0)]]
    return [(int(row), float(cosines[row])) for row in order if np.isfinite(cosines[row])]


def smallest(values: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Return the rows of the `count` smallest of `values` [C] and of those that tie with them, ascending.

    Sorting only these rows takes a tenth of the time of sorting all of a large run's concepts.
    """
    if count < 1:
        return np.empty(0, np.int64)
    if count >= len(values):
        return np.arange(len(values))
    return np.flatnonzero(values <= np.partition(values, count - 1)[count - 1])


def _unit(values: NDArray[np.floating]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(values, axis=-1, keepdims=True)
    result: NDArray[np.float32] = (values / np.maximum(lengths, TINY)).astype(np.float32)
    return result
