"""Which way signatures point once what all concepts share is taken away: what nearness is measured by.

A signature is centred (less the mean over concepts), each dimension divided by its standard deviation over
concepts, and brought to length 1 at each layer; see docs/glossary.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TINY = 1e-12


@dataclass(frozen=True)
class Directions:
    """Every concept's direction, and how to bring a vector to the same terms.

    centre, scale: float32 [L, H]; units: float32 [C, L, H], of length 1 at each layer
    """

    centre: NDArray[np.float32]
    scale: NDArray[np.float32]
    units: NDArray[np.float32]

    @classmethod
    def of(cls, mean: NDArray[np.float32]) -> Directions:
        """Return the directions of signatures, float32 [C, L, H]."""
        centre = mean.mean(axis=0)
        scale = np.maximum((mean - centre).std(axis=0), TINY)
        return cls(centre, scale, _unit((mean - centre) / scale))

    def cosines(
        self, vector: NDArray[np.floating], layer: int | None = None, difference: bool = False
    ) -> NDArray[np.float32]:
        """Return each concept's cosine with a vector, float32 [C].

        `vector` is [L, H] (cosines are averaged over layers), or [H] at the place `layer` among the layers. A
        `difference` of activations is scaled but not centred: the centre has fallen out of it already.
        """
        chosen = slice(None) if layer is None else slice(layer, layer + 1)
        values = np.asarray(vector, np.float32).reshape(-1, self.centre.shape[-1])
        centred = values if difference else values - self.centre[chosen]
        unit = _unit(centred / self.scale[chosen])
        found: NDArray[np.float32] = np.einsum("clh,lh->c", self.units[:, chosen], unit) / len(unit)
        return found


def _unit(values: NDArray[np.floating]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(values, axis=-1, keepdims=True)
    result: NDArray[np.float32] = (values / np.maximum(lengths, TINY)).astype(np.float32)
    return result
