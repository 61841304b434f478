"""The two cross-entropies that training uses: one to learn from, one to compare epochs by."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy


def symmetric_cross_entropy(logits: torch.Tensor) -> torch.Tensor:
    """Return the mean loss of finding sample i's signature and signature i's sample.

    logits [n, m], m >= n: row i is a sample, column i its concept's signature; columns from n on belong to
    other concepts.
    """
    count = len(logits)
    target = torch.arange(count, device=logits.device)
    return (cross_entropy(logits, target) + cross_entropy(logits[:, :count].T, target)) / 2


def summed_cross_entropy(logits: torch.Tensor, concepts: NDArray[np.int32]) -> float:
    """Return the sum over samples of the loss of finding their concepts, int32 [n], in logits [n, C]."""
    target = torch.from_numpy(concepts.astype(np.int64)).to(logits.device)
    return float(cross_entropy(logits, target, reduction="sum"))
