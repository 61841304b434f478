"""Similarity of signatures: the cosine after centring and scaling.

A signature is centred (minus the mean over concepts), each dimension is divided by its standard deviation over
concepts, and each layer is scaled to length 1; see docs/glossary.md. A concept without a sample that mentions it
has no signature: it counts in neither mean nor standard deviation, and is not a neighbour of any concept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encyclo.schema import SignatureTable

TINY = 1e-12
NEAR = 0.005
"""The smallest cosine of a neighbour: less is shown as 0.00, as of concepts that have nothing in common."""
BLOCK = 256
"""The number of concepts whose neighbours are looked up at once: memory is BLOCK x C."""


def centre_and_scale(mean: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the mean and the standard deviation over concepts of `mean` [C, L, H]: float32 [L, H] each.

    Summed in float64, since the mean is much larger than the differences between signatures. The standard deviation
    is at least TINY, so that it can be divided by. Without concepts they are 0 and 1.
    """
    shape = mean.shape[1:]
    centre, scale = np.zeros(shape, np.float32), np.ones(shape, np.float32)
    for layer in range(shape[0] if len(mean) else 0):  # a layer at a time: no second array of this size
        centre[layer] = mean[:, layer].mean(axis=0, dtype=np.float64)
        scale[layer] = np.maximum(mean[:, layer].std(axis=0, dtype=np.float64), TINY)
    return centre, scale


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
        centre, scale = centre_and_scale(mean[seen])
        units = np.zeros(mean.shape, np.float32)
        for layer in range(mean.shape[1]):  # a layer at a time: no second array of this size
            units[seen, layer] = _unit((mean[seen, layer] - centre[layer]) / scale[layer])
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


def likeliest(cosines: NDArray[np.float32], count: int) -> list[tuple[int, float]]:
    """Return the `count` largest of `cosines` [C] as (row, cosine), the largest first; -inf is left out."""
    order = np.argsort(-cosines, kind="stable")[: max(count, 0)]
    return [(int(row), float(cosines[row])) for row in order if np.isfinite(cosines[row])]


def _unit(values: NDArray[np.floating]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(values, axis=-1, keepdims=True)
    result: NDArray[np.float32] = (values / np.maximum(lengths, TINY)).astype(np.float32)
    return result
