"""The language-model head, cut down to the tokens that may be generated.

The head is most of a small model's work. It is computed for frequent tokens of English text, and for the tokens of
a row's own opening, which may be rare.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from encyclo.errors import UsageError
from encyclo_capture.loading.loaded_model import LoadedModel

WAY_OUT = "switch generation off with -o diverse.generated=0"
FREQUENT = 2**15
"""Token ids below this may be generated: tokenizers number what they learnt in falling frequency."""
# A blank and a word, the rest of a word, digits, or punctuation as prose has it; no code, no other scripts.
TEXT = re.compile(r"[ ]?[A-Za-z][a-z]*|[ ]?[A-Z]{2,4}|[ ]?[0-9]+|[ ]?[.,;:!?'\"()\-]+|'[a-z]+|\n+|[ ]")


class ScoringHead:
    """The network's way from a hidden state to the scores of the tokens that may come next.

    Raises UsageError where the model is not causal, or its attention can't be followed.
    """

    def __init__(self, model: LoadedModel) -> None:
        if not model.shares_prefixes:
            raise UsageError(
                f"The model {model.name!r} can't generate: it is no causal model whose attention transformers lets "
                f"encyclo follow; {WAY_OUT}."
            )
        self.weight, self.bias = model.head
        config = model.config
        self.cap = getattr(config, "final_logit_softcapping", None)
        self.scale = float(getattr(config, "logit_scale", None) or 1.0)
        self.scale /= float(getattr(config, "logits_scaling", None) or 1.0)
        self.pieces = _pieces(model.tokenizer)
        special = set(model.tokenizer.all_special_ids)
        self.end = model.tokenizer.eos_token_id
        ids = [
            i
            for i, piece in enumerate(self.pieces[: self.weight.shape[0]])
            # SentencePiece puts single characters last.
            if (i < FREQUENT or len(piece) == 1) and i not in special and TEXT.fullmatch(piece)
        ]
        ids += [self.end] if self.end is not None else []
        self.ids = torch.tensor(sorted(ids), device=self.weight.device)
        self.allowed = frozenset(ids)
        self.frequent = self.weight[self.ids]
        ends = [n for n, i in enumerate(sorted(ids)) if i == self.end or set(".!?\n") & set(self.pieces[i])]
        self.ends = torch.tensor(ends, device=self.weight.device)
        self._tokenizer = model.tokenizer
        self.full_stop = self.first_token(".", blank="")

    def first_token(self, word: str, blank: str = " ") -> int:
        """Return the first token of a word inside a sentence."""
        ids = self._tokenizer(blank + word, add_special_tokens=False)["input_ids"]
        return int(ids[0]) if ids else -1

    def score(self, hidden: Tensor, rare: Tensor) -> tuple[Tensor, Tensor]:
        """Score hidden [n, H] against the frequent tokens and `rare` int64 [n, k] (-1: none): [n, F], [n, k]."""
        often = torch.nn.functional.linear(hidden, self.frequent, self._own(self.ids))
        seldom = torch.matmul(self.weight[rare.clamp_min(0)], hidden[:, :, None])[..., 0]
        if self.bias is not None:
            seldom = seldom + self.bias[rare.clamp_min(0)]
        often, seldom = (self._bend(x) for x in (often, seldom))
        return often, seldom.masked_fill(rare < 0, float("-inf"))

    def _own(self, ids: Tensor) -> Tensor | None:
        return None if self.bias is None else self.bias[ids]

    def _bend(self, scores: Tensor) -> Tensor:
        if self.scale != 1.0:
            scores = scores * self.scale
        return scores if self.cap is None else torch.tanh(scores / self.cap) * self.cap


def _pieces(tokenizer: Any) -> list[str]:
    """Return every token's text; SentencePiece marks blanks by ▁, byte-level BPE by Ġ and line ends by Ċ."""
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return [(token or "").replace("▁", " ").replace("Ġ", " ").replace("Ċ", "\n") for token in tokens]
