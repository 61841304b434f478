"""The two cross-entropies of training: one to train with, one to compare epochs."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy


def symmetric_cross_entropy(logits: torch.Tensor) -> torch.Tensor:
    """Return the mean of two losses: finding each sample's signature, and each signature's sample.

    logits [n, m], m >= n: row i is a sample, column i its concept's signature; columns from n on belong to
    other concepts.
    """
    count = len(logits)
    target = torch.arange(count, device=logits.device)
    return (cross_entropy(logits, target) + cross_entropy(logits[:, :count].T, target)) / 2


def summed_cross_entropy(logits: torch.Tensor, concepts: NDArray[np.int32]) -> float:
    """Return the cross-entropy of `concepts` int32 [n] in `logits` [n, C], summed over samples."""
    target = torch.from_numpy(concepts.astype(np.int64)).to(logits.device)
    return float(cross_entropy(logits, target, reduction="sum"))
