"""The network: a sample's layers in, one embedding out."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LayerEncoder(nn.Module):
    """Embeds samples: float [n, L, H] -> float32 [n, L * width], of length 1.

    Each layer is projected on its linear discriminants (fixed, see discriminant.py) and becomes a token of
    length sqrt(width); attention blocks, pre-norm and residual, let the layers correct each other. The
    blocks start as the identity, so that an untrained encoder is the closed-form discriminant reader and
    training can only move away from it where that lowers the validation loss.
    """

    centre: Tensor
    project: Tensor

    def __init__(self, layers: int, hidden: int, width: int, heads: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("centre", torch.zeros(layers, hidden))
        self.register_buffer("project", torch.zeros(layers, hidden, width))
        self.layer_embedding = nn.Parameter(torch.randn(layers, width) * 0.02)
        self.layer_gain = nn.Parameter(torch.ones(layers, 1))
        self.log_scale = nn.Parameter(torch.tensor(3.0))
        block = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, depth, enable_nested_tensor=False)
        for layer in self.blocks.layers:
            nn.init.zeros_(layer.self_attn.out_proj.weight)
            nn.init.zeros_(layer.linear2.weight)
            nn.init.zeros_(layer.linear2.bias)

    def forward(self, values: Tensor) -> Tensor:
        """Return unit embeddings."""
        tokens = torch.einsum("nlh,lhw->nlw", values - self.centre, self.project)
        tokens = nn.functional.normalize(tokens, dim=-1) * self.width**0.5
        # The embedding tells the blocks which layer is which; it must not make all samples more alike.
        tokens = self.blocks(tokens + self.layer_embedding) - self.layer_embedding
        tokens = nn.functional.normalize(tokens, dim=-1) * self.layer_gain
        return nn.functional.normalize(tokens.flatten(1), dim=-1)

    def scale(self) -> Tensor:
        """Return what cosines are multiplied with to become logits (learnt, at most 100)."""
        return self.log_scale.exp().clamp(max=100.0)
