"""Hubness: concepts that are near to every description, and what is taken off their scores for it.

In a space of many dimensions some points are among the nearest of far too many others (hubs). A concept's hubness
is its mean cosine with the descriptions, among those that trained, that lie nearest to it. A description's
similarity to a concept counts less a part of that concept's hubness: the local scaling of Conneau et al., "Word
Translation Without Parallel Data" (2018), whose part is one half. Here the part is the one that the watched
descriptions, whose concepts' descriptions never trained, lose least with; none of it may be the best.
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
"""Descriptions that hubness is measured with, at most; of more, this many are drawn."""
PARTS = (0.0, 0.25, 0.5, 0.75, 1.0)
_AT_ONCE = 512


@dataclass(frozen=True)
class Hubness:
    """bank: float32 [N, K], unit embeddings of descriptions that trained; owner int64 [N]: of which concept.

    part: how much of a concept's hubness is taken off its cosine.
    """

    bank: torch.Tensor
    owner: torch.Tensor
    part: float

    def of(self, prototypes: torch.Tensor, first: int) -> torch.Tensor:
        """Return the hubness of concepts number first, first + 1, … by their unit embeddings [n, K]: [n].

        A concept's own descriptions are left out: they should be near.
        """
        found = []
        for start in range(0, len(prototypes), _AT_ONCE):
            cosine = prototypes[start : start + _AT_ONCE] @ self.bank.T
            own = torch.arange(first + start, first + start + len(cosine), device=cosine.device)
            cosine.masked_fill_(own[:, None] == self.owner, -torch.inf)
            nearest = cosine.topk(min(NEIGHBOURS, len(self.bank)), dim=1).values
            some = torch.isfinite(nearest)  # all but the own ones may be too few
            found.append(torch.where(some, nearest, 0.0).sum(1) / some.sum(1).clamp(min=1))
        return torch.cat(found) if found else prototypes.new_empty(0)


def fit_hubness(
    encoder: LayerEncoder, space: SharedSpace, data: TrainingData, generator: np.random.Generator
) -> Hubness:
    """Draw the bank from the descriptions that trained, and choose the part."""
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
    """Return the part with which the watched descriptions lose least (the first of equals)."""
    prototypes = space.embed_signatures(data.means)
    taken_off = hubness.of(prototypes, first=0)
    loss = np.zeros(len(PARTS))
    for some in blocks(data.described_watched, _AT_ONCE):
        cosine = _embedded(space, data, some) @ prototypes.T
        for place, part in enumerate(PARTS):
            logits = (cosine - part * taken_off) * space.description_scale * encoder.scale()
            loss[place] += summed_cross_entropy(logits, data.samples.concept[some])
    return PARTS[int(loss.argmin())]


def _embedded(space: SharedSpace, data: TrainingData, rows: NDArray[np.int64]) -> torch.Tensor:
    """Return the unit embeddings of descriptions, float32 [n, K]."""
    return torch.cat([space.embed_array(data.samples.read(some), DESCRIBED) for some in blocks(rows)])
