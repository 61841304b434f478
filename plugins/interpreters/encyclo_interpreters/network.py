"""The network: layers in, one embedding out."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LayerEncoder(nn.Module):
    """Embeds samples: float [n, L, H] -> float [n, width], of length 1.

    Each layer is standardised per dimension and projected by a matrix of its own into a token; attention
    blocks (pre-norm, residual) let the layers inform each other; the tokens' mean is the embedding.
    """

    def __init__(self, layers: int, hidden: int, width: int, heads: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(layers, hidden))
        self.register_buffer("std", torch.ones(layers, hidden))
        self.project = nn.Parameter(torch.randn(layers, hidden, width) / hidden**0.5)
        self.layer_embedding = nn.Parameter(torch.randn(layers, width) * 0.02)
        block = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.log_scale = nn.Parameter(torch.tensor(3.0))

    mean: Tensor
    std: Tensor

    def forward(self, values: Tensor) -> Tensor:
        """Return unit embeddings, float32 [n, width]."""
        standard = (values - self.mean) / self.std
        tokens = torch.einsum("nlh,lhw->nlw", standard, self.project) + self.layer_embedding
        embedding = self.norm(self.blocks(tokens).mean(dim=1))
        return nn.functional.normalize(embedding.float(), dim=-1)

    def scale(self) -> Tensor:
        """Return what cosines are multiplied with to become logits (learnt, at most 100)."""
        return self.log_scale.exp().clamp(max=100.0)
