"""Concepts that are near to every description: what is taken off their scores.

In a space of many dimensions some points are among the nearest of far too many others (hubs). A concept's crowding
is its mean cosine with the descriptions, among those that trained, that lie nearest to it. A description's
similarity to a concept counts less a part of that concept's crowding: the local scaling of Conneau et al., "Word
Translation Without Parallel Data" (2018), whose part is one half. Here the part is the one that the watched
descriptions, whose concepts' descriptions never trained, lose least with; none of it may be the best.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from encyclo_interpreters.sample_statistics import blocks
from encyclo_interpreters.transformer.cca import DESCRIBED
from encyclo_interpreters.transformer.description_training import meanings_of
from encyclo_interpreters.transformer.network import LayerEncoder, Meaning
from encyclo_interpreters.transformer.training_data import Material

NEIGHBOURS = 10
MOST = 16_384
"""Descriptions that crowding is measured with; of more, so many are drawn."""
PARTS = (0.0, 0.25, 0.5, 0.75, 1.0)
_AT_ONCE = 512


@dataclass(frozen=True)
class Crowding:
    """bank: float32 [N, K], the unit meanings of descriptions that trained; owner int64 [N]: of which concept.

    part: how much of a concept's crowding is taken off its cosine.
    """

    bank: torch.Tensor
    owner: torch.Tensor
    part: float

    def of(self, meanings: torch.Tensor, first: int) -> torch.Tensor:
        """Return the crowding of concepts number first, first + 1, … by their unit meanings [n, K]: [n].

        A concept's own descriptions are left out: they should be near.
        """
        found = []
        for start in range(0, len(meanings), _AT_ONCE):
            cosine = meanings[start : start + _AT_ONCE] @ self.bank.T
            own = torch.arange(first + start, first + start + len(cosine), device=cosine.device)
            cosine.masked_fill_(own[:, None] == self.owner, -torch.inf)
            nearest = cosine.topk(min(NEIGHBOURS, len(self.bank)), dim=1).values
            some = torch.isfinite(nearest)  # all but the own ones may be too few
            found.append(torch.where(some, nearest, 0.0).sum(1) / some.sum(1).clamp(min=1))
        return torch.cat(found) if found else meanings.new_empty(0)


def fit_crowding(
    encoder: LayerEncoder, meaning: Meaning, material: Material, generator: np.random.Generator
) -> Crowding:
    """Draw the bank from the descriptions that trained, and choose the part."""
    samples = material.samples
    rows, watched = (some[~samples.named[some]] for some in (material.rows, material.watched))
    if len(rows) > MOST:
        rows = np.sort(generator.choice(rows, MOST, replace=False))
    encoder.eval()
    with torch.inference_mode():
        bank = _told(meaning, material, rows)
        owner = torch.from_numpy(samples.concept[rows].astype(np.int64)).to(bank.device)
        crowding = Crowding(bank, owner, PARTS[0])
        if len(watched):
            crowding = Crowding(bank, owner, _best_part(encoder, meaning, material, watched, crowding))
    return crowding


def _best_part(
    encoder: LayerEncoder,
    meaning: Meaning,
    material: Material,
    watched: NDArray[np.int64],
    crowding: Crowding,
) -> float:
    """Return the part with which the watched descriptions lose least (the first of equals)."""
    prototypes = meanings_of(meaning, material.means)
    crowded = crowding.of(prototypes, first=0)
    loss = np.zeros(len(PARTS))
    for some in blocks(watched, _AT_ONCE):
        cosine = _told(meaning, material, some) @ prototypes.T
        target = torch.from_numpy(material.samples.concept[some].astype(np.int64)).to(cosine.device)
        for place, part in enumerate(PARTS):
            logits = (cosine - part * crowded) * meaning.describing * encoder.scale()
            loss[place] += float(torch.nn.functional.cross_entropy(logits, target, reduction="sum"))
    return PARTS[int(loss.argmin())]


def _told(meaning: Meaning, material: Material, rows: NDArray[np.int64]) -> torch.Tensor:
    """Return the unit meanings of descriptions, float32 [n, K]."""
    device = meaning.stretch.device
    read = (torch.from_numpy(material.samples.read(some)).to(device) for some in blocks(rows))
    return torch.cat([meaning.embed(values, DESCRIBED).float() for values in read])
