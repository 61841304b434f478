"""Hubness: lowers the scores of concepts that are near every description.

In a space of many dimensions some points, called hubs, are among the nearest neighbours of far too many others. A
concept's hubness is its mean cosine with the nearest training descriptions. A part of it is subtracted from the
similarity of a description and the concept. This is the local scaling of Conneau et al., "Word Translation Without
Parallel Data" (2018), with a part of one half. Here the part, which may be 0, is the one with the lowest loss on the
watched descriptions; no description of their concepts was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from encyclo_interpreters.sample_statistics import blocks
from encyclo_interpreters.transformer.cca import DESCRIBED
from encyclo_interpreters.transformer.losses import summed_cross_entropy
from encyclo_interpreters.transformer.network import LayerEncoder, SharedSpace
from encyclo_interpreters.transformer.training_data import TrainingData

NEIGHBOURS = 10
MOST = 16_384
"""Hubness is measured with at most this many descriptions, drawn at random."""
PARTS = (0.0, 0.25, 0.5, 0.75, 1.0)
_AT_ONCE = 512


@dataclass(frozen=True)
class Hubness:
    """What hubness is measured with, and how much of it counts.

    bank:  float32 [N, K], unit embeddings of training descriptions
    owner: int64 [N], the concept of each description
    part:  the multiple of a concept's hubness that is subtracted from its cosine
    """

    bank: torch.Tensor
    owner: torch.Tensor
    part: float

    def of(self, prototypes: torch.Tensor, first: int) -> torch.Tensor:
        """Return the hubness [n] of the concepts numbered from `first` on, from their unit embeddings [n, K].

        A concept's own descriptions are left out, since they should be near.
        """
        hubness = []
        for start in range(0, len(prototypes), _AT_ONCE):
            cosine = prototypes[start : start + _AT_ONCE] @ self.bank.T
            own = torch.arange(first + start, first + start + len(cosine), device=cosine.device)
            cosine.masked_fill_(own[:, None] == self.owner, -torch.inf)
            nearest = cosine.topk(min(NEIGHBOURS, len(self.bank)), dim=1).values
            foreign = torch.isfinite(nearest)  # other concepts may have fewer than NEIGHBOURS descriptions
            hubness.append(torch.where(foreign, nearest, 0.0).sum(1) / foreign.sum(1).clamp(min=1))
        return torch.cat(hubness) if hubness else prototypes.new_empty(0)


def fit_hubness(
    encoder: LayerEncoder, space: SharedSpace, data: TrainingData, generator: np.random.Generator
) -> Hubness:
    """Draw the bank from the training descriptions, and choose the part."""
    rows = data.described_rows
    if len(rows) > MOST:
        rows = np.sort(generator.choice(rows, MOST, replace=False))
    encoder.eval()
    with torch.inference_mode():
        bank = _embedded(space, data, rows)
        owner = torch.from_numpy(data.samples.concept[rows].astype(np.int64)).to(bank.device)
        hubness = Hubness(bank, owner, PARTS[0])
        if len(data.described_watched):
            hubness = replace(hubness, part=_best_part(encoder, space, data, hubness))
    return hubness


def _best_part(encoder: LayerEncoder, space: SharedSpace, data: TrainingData, hubness: Hubness) -> float:
    """Return the part with the lowest loss on the watched descriptions (the smallest if several are equal)."""
    prototypes = space.embed_signatures(data.means)
    concept_hubness = hubness.of(prototypes, first=0)
    loss = np.zeros(len(PARTS))
    for block in blocks(data.described_watched, _AT_ONCE):
        cosine = _embedded(space, data, block) @ prototypes.T
        for place, part in enumerate(PARTS):
            logits = (cosine - part * concept_hubness) * space.description_scale * encoder.scale()
            loss[place] += summed_cross_entropy(logits, data.samples.concept[block])
    return PARTS[int(loss.argmin())]


def _embedded(space: SharedSpace, data: TrainingData, rows: NDArray[np.int64]) -> torch.Tensor:
    """Return the unit embeddings of descriptions, float32 [n, K]."""
    return torch.cat([space.embed_array(data.samples.read(block), DESCRIBED) for block in blocks(rows)])
