"""The network: a sample's layers in, one embedding out.

    sample [L, H] ─┬─ its layers' tokens ─── LayerEncoder.words: attention across the layers           → L * width
                   └─ canonical coordinates ─ SharedSpace: what mentions and descriptions have in common → meaning

The middle column is fixed before training (see projections.py), the right one is trained.

A sample that names its concept is embedded by both. A description is embedded by the shared space alone, since it
doesn't contain the word. A closed-form gate decides whether a sample names or describes.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from encyclo_interpreters.sample_statistics import blocks
from encyclo_interpreters.transformer.cca import DESCRIBED, NAMED, CanonicalSpace
from encyclo_interpreters.transformer.projections import Projected

BATCH = 1024
"""Samples embedded at once."""


class LayerEncoder(nn.Module):
    """Embeds samples: float [n, L, H] -> float32 [n, L * width + meaning]; mentions have length 1.

    Each layer is projected on its linear discriminants (fixed, see lda.py) and scaled to a token of length
    sqrt(width). Attention blocks, pre-norm and residual, combine the layers. The blocks start as the identity, so
    that an untrained encoder is the closed-form discriminant reader, and training changes it only if the validation
    loss falls. `meaning` is the size of the shared space; 0 leaves it out, for training data without descriptions.
    """

    centre: Tensor
    project: Tensor

    def __init__(
        self,
        layers: int,
        hidden: int,
        width: int,
        heads: int,
        depth: int,
        dropout: float,
        meaning: int = 0,
        expand: int = 0,
        meaning_dropout: float = 0.0,
    ) -> None:
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
        self.shared_space = SharedSpace(layers, hidden, meaning, expand, meaning_dropout) if meaning else None

    @property
    def device(self) -> torch.device:
        """Return the device of the encoder's weights."""
        return self.centre.device

    def forward(self, values: Tensor, named: Tensor | None = None) -> Tensor:
        """Return embeddings. `named` bool [n] says which samples name their concept; for None the gate decides."""
        if named is None and self.shared_space is not None:
            named = ~self.shared_space.describes(values)
        elif named is None:
            named = torch.ones(len(values), dtype=torch.bool, device=values.device)
        return self.embed(self.projected(values, named), named)

    def projected(self, values: Tensor, named: Tensor) -> Projected:
        """Return the samples' fixed projections: the input of the trained part, `embed`."""
        tokens = torch.einsum("nlh,lhw->nlw", values - self.centre, self.project)
        space = self.shared_space
        return Projected(tokens, None if space is None else space.canonical(values, named))

    def embed(self, given: Projected, named: Tensor) -> Tensor:
        """Return the embeddings of projected samples."""
        words = self.words(given.tokens)
        if self.shared_space is None or given.canonical is None:
            return words
        return self.shared_space.join(words, given.canonical, named)

    def embed_means(self, means: Projected) -> Tensor:
        """Return the prototypes of projected signatures: float32 [C, L * width + meaning]."""
        return torch.cat(
            [
                self.embed(block, torch.ones(len(block), dtype=torch.bool, device=self.device))
                for block in means.blocks(BATCH)
            ]
        )

    def words(self, tokens: Tensor) -> Tensor:
        """Return the unit embeddings of the mentioned words: float32 [n, L, width] -> [n, L * width]."""
        tokens = nn.functional.normalize(tokens, dim=-1) * self.width**0.5
        # The layer embedding identifies the layers for the blocks; subtracted, it doesn't make samples more alike.
        tokens = self.blocks(tokens + self.layer_embedding) - self.layer_embedding
        tokens = nn.functional.normalize(tokens, dim=-1) * self.layer_gain
        return nn.functional.normalize(tokens.flatten(1), dim=-1)

    def scale(self) -> Tensor:
        """Return the factor that turns cosines into logits (learnt, at most 100)."""
        return self.log_scale.exp().clamp(max=100.0)


class SharedSpace(nn.Module):
    """Embeds mentions and descriptions in one space: fixed canonical coordinates and a learnt correction per kind."""

    gate_weight: Tensor
    gate_offset: Tensor
    scale: Tensor
    centre: Tensor
    project: Tensor
    stretch: Tensor

    def __init__(self, layers: int, hidden: int, width: int, expand: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("gate_weight", torch.zeros(layers * hidden))
        self.register_buffer("gate_offset", torch.zeros(()))
        self.register_buffer("scale", torch.ones(2, layers, hidden))
        self.register_buffer("centre", torch.zeros(2, layers, hidden))
        self.register_buffer("project", torch.zeros(2, layers * hidden, width))
        self.register_buffer("stretch", torch.ones(width))
        self.correct = nn.ModuleList(_correction(width, expand, dropout) for _ in (NAMED, DESCRIBED))
        self.share = nn.Parameter(torch.tensor(-2.0))
        self.description_scale = nn.Parameter(torch.tensor(1.0))

    def set_canonical(self, space: CanonicalSpace) -> None:
        """Copy the closed-form fit into the buffers."""
        self.gate_weight.copy_(torch.from_numpy(space.gate))
        self.gate_offset.fill_(space.offset)
        self.scale.copy_(torch.from_numpy(space.scale))
        self.centre.copy_(torch.from_numpy(space.centre))
        self.project.copy_(torch.from_numpy(space.project))
        self.stretch.copy_(torch.from_numpy(space.correlation).sqrt())

    def describes(self, values: Tensor) -> Tensor:
        """Return which samples describe a concept without naming it: bool [n]."""
        return values.flatten(1) @ self.gate_weight + self.gate_offset > 0

    def canonical(self, values: Tensor, named: Tensor) -> Tensor:
        """Return the canonical coordinates of samples: float32 [n, L, H] -> [n, width]."""
        found = torch.empty(len(values), self.stretch.shape[0], device=values.device)
        for kind, chosen in ((NAMED, named), (DESCRIBED, ~named)):
            found[chosen] = self._canonical(values[chosen], kind).float()
        return found

    def join(self, words: Tensor, canonical: Tensor, named: Tensor) -> Tensor:
        """Concatenate word and shared embedding; a description has a word embedding of 0 and its own scale."""
        shared = torch.empty_like(canonical)
        for kind, chosen in ((NAMED, named), (DESCRIBED, ~named)):
            shared[chosen] = self.corrected(canonical[chosen], kind).float()
        share = torch.sigmoid(self.share)
        word_weight = torch.where(named, (1 - share).sqrt(), 0.0)
        shared_weight = torch.where(named, share.sqrt(), self.description_scale / share.sqrt())
        return torch.cat([words * word_weight[:, None], shared * shared_weight[:, None]], dim=1)

    def corrected(self, canonical: Tensor, kind: int) -> Tensor:
        """Return the unit embeddings of samples of one kind, from their canonical coordinates [n, width]."""
        corrected: Tensor = canonical * self.stretch + self.correct[kind](canonical)
        return nn.functional.normalize(corrected, dim=-1)

    def _canonical(self, values: Tensor, kind: int) -> Tensor:
        flat = ((values - self.centre[kind]) / self.scale[kind]).flatten(1)
        return flat @ self.project[kind]

    def embed_array(self, values: NDArray[np.float32], kind: int) -> Tensor:
        """Return the unit embeddings of samples in memory, float32 [n, L, H] -> [n, width]."""
        given = torch.from_numpy(values).to(self.stretch.device)
        return self.corrected(self._canonical(given, kind), kind).float()

    def embed_signatures(self, signatures: NDArray[np.float32]) -> Tensor:
        """Return the unit embeddings of signatures, float32 [C, L, H] -> [C, width]."""
        return torch.cat([self.embed_array(block, NAMED) for block in blocks(signatures)])


def _correction(width: int, expand: int, dropout: float) -> nn.Sequential:
    """Return a network with one hidden layer and a linear shortcut, whose output starts at zero."""
    last = nn.Linear(width + expand, width)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Dropout(dropout), _WithHidden(width, expand), nn.Dropout(dropout), last)


class _WithHidden(nn.Module):
    """Appends a hidden layer's output to its input."""

    def __init__(self, width: int, expand: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, expand)

    def forward(self, values: Tensor) -> Tensor:
        return torch.cat([values, nn.functional.gelu(self.hidden(values))], dim=-1)
