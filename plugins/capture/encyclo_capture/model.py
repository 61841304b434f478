"""A transformers model as encyclo uses it: hidden states, tokens and generated texts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from encyclo.types import Opening
from encyclo_capture.cpu.workers import Replicas
from encyclo_capture.generation.continuation import continue_texts
from encyclo_capture.loading.loaded_model import LoadedModel
from encyclo_capture.tokenization import encode


class TransformersModel(LoadedModel):
    """A model loaded by transformers (see `encyclo.types.Model`)."""

    @cached_property
    def replicas(self) -> Replicas:
        """Replicas of the network that share its weights, to compute batches in parallel."""
        return Replicas(self.network)

    def forward(self, texts: Sequence[str], layers: Sequence[int]) -> list[NDArray[np.float32]]:
        """Return each text's hidden states at every token, special ones included: float32 [tokens, L, H]."""
        states = []
        for text in texts:
            ids = torch.tensor(encode(self, [text])["input_ids"], device=self.device)
            with torch.inference_mode():
                hidden = self.network(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
            states.append(torch.stack([hidden[layer][0] for layer in layers], dim=1).float().cpu().numpy())
        return states

    def tokens(self, text: str) -> list[tuple[int, int]]:
        """Return the character range of each token of `forward`; (0, 0) for special tokens."""
        encoded = encode(self, [text], return_offsets_mapping=True, return_special_tokens_mask=True)
        columns = zip(encoded["offset_mapping"][0], encoded["special_tokens_mask"][0], strict=True)
        return [(0, 0) if special else (int(a), int(b)) for (a, b), special in columns]

    def generate(
        self, prefix: str, openings: Sequence[Opening], max_new_tokens: int, stop: str | None = None
    ) -> list[str]:
        """Continue `prefix` + each opening; return the continuations alone (see `encyclo.types.TextGenerator`)."""
        if not openings:
            return []
        return continue_texts(self, prefix, openings, max_new_tokens, stop)
