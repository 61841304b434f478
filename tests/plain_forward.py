"""The reference for captures: one prompt at a time through transformers alone, pooled by hand.

Uses nothing of encyclo: eager attention, output_hidden_states, and the tokenizer's own offsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


class PlainModel:
    """A model folder, read one text at a time; remembers each text's hidden states."""

    def __init__(self, folder: Path, dtype: str = "float32", attention: str = "eager") -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.network: Any = AutoModel.from_pretrained(
            folder, dtype=getattr(torch, dtype), attn_implementation=attention
        ).eval()
        self._states: dict[str, Any] = {}

    def encoded(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The text's ids and character ranges. A BOS that the text begins with stands for the tokenizer's own."""
        encoded = self.tokenizer(text, return_offsets_mapping=True)
        ids, ranges = list(encoded["input_ids"]), list(encoded["offset_mapping"])
        bos = self.tokenizer.bos_token_id
        if ids[:2] == [bos, bos] and tuple(ranges[0]) == (0, 0):
            ids, ranges = ids[1:], ranges[1:]
        if ids[:1] == [bos]:
            ranges[0] = (0, 0)
        return ids, ranges

    def ids(self, text: str) -> list[int]:
        return self.encoded(text)[0]

    def states(self, text: str) -> Any:
        """All hidden states of one text: float64 [layers + 1, tokens, hidden]."""
        import torch

        if text not in self._states:
            with torch.no_grad():
                output = self.network(torch.tensor([self.ids(text)]), output_hidden_states=True)
            self._states[text] = np.stack([h[0].double().numpy() for h in output.hidden_states])
        return self._states[text]

    def pooled_tokens(self, text: str, span: tuple[int, int] | None, pooling: str) -> list[int]:
        _, ranges = self.encoded(text)
        # The tokens that the tokenizer adds are not in the text; a "<bos>" inside a text is part of it.
        own = [i for i, (start, end) in enumerate(ranges) if end > start]
        if pooling == "mean-all":
            return list(range(len(ranges)))
        if pooling == "mean":
            return own
        if pooling == "last" or span is None:
            return own[-1:]
        # A character at a time, not by comparing ends: whichever token holds one of the mention's.
        mention = set(range(*span))
        return [i for i in own if mention & set(range(*ranges[i]))]

    def read(self, prompt: Any, layers: Sequence[int], pooling: str) -> Any:
        """One prompt's pooled layers, float64 [L, H]; layers as transformers counts them, negative too."""
        states, tokens = (
            self.states(prompt.text),
            self.pooled_tokens(prompt.text, prompt.span, pooling),
        )
        return np.stack([states[layer][tokens].mean(axis=0) for layer in layers])


def relative_error(found: Any, wanted: Any) -> Any:
    """|found - wanted| / |wanted| over the last axis."""
    return np.linalg.norm(found - wanted, axis=-1) / np.linalg.norm(wanted, axis=-1)
