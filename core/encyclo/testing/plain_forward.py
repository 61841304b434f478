"""The reference for captures: one prompt at a time through transformers alone, pooled by hand.

Uses nothing of a capture plugin: eager attention, output_hidden_states, and the tokenizer's own offsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.types import Prompt

TEXT = (
    "a the of is in at to and small old city house dog cat river word nobody had ever seen such thing democracy "
    "concept café ice cream mother child water says looks about with from she he they it was"
)
"""What the tiny model's tokenizer is trained on: the words of the contract's prompts, and others."""


class PlainModel:
    """A model folder, read one text at a time, in float32."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.network: Any = AutoModel.from_pretrained(folder, attn_implementation="eager").float().eval()

    def states(self, text: str) -> NDArray[np.float64]:
        """Return all hidden states of one text: float64 [layers + 1, tokens, hidden]."""
        import torch

        with torch.no_grad():
            ids = torch.tensor([self.tokenizer(text)["input_ids"]])
            hidden = self.network(ids, output_hidden_states=True).hidden_states
        states: NDArray[np.float64] = np.stack([layer[0].double().numpy() for layer in hidden])
        return states

    def pooled_tokens(self, prompt: Prompt, pooling: str) -> list[int]:
        """Return the places of the tokens that a pooling takes the mean of."""
        encoded = self.tokenizer(prompt.text, return_offsets_mapping=True)
        ids = encoded["input_ids"]
        special = self.tokenizer.get_special_tokens_mask(ids, already_has_special_tokens=True)
        own = [place for place, flag in enumerate(special) if not flag]
        if pooling == "mean-all":
            return list(range(len(ids)))
        if pooling == "mean":
            return own
        if pooling == "last" or prompt.span is None:
            return own[-1:]
        mention = set(range(*prompt.span))
        return [place for place in own if mention & set(range(*encoded["offset_mapping"][place]))]

    def read(self, prompt: Prompt, layers: Sequence[int], pooling: str) -> NDArray[np.float64]:
        """Return one prompt's pooled layers: float64 [L, H]."""
        states, tokens = self.states(prompt.text), self.pooled_tokens(prompt, pooling)
        return np.stack([states[layer][tokens].mean(axis=0) for layer in layers])


def write_tiny_model(folder: Path, broken: bool = False) -> Path:
    """Write a random Gemma 3 of 4 layers (hidden size 32) and a tokenizer into `folder`; return the folder.

    A `broken` one has an infinite weight in its third block.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    specials = ["<pad>", "<eos>", "<bos>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator([TEXT] * 3, trainer)
    core.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    names = {f"{name}_token": f"<{name}>" for name in ("pad", "eos", "bos", "unk")}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, padding_side="left", **names)
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, intermediate_size=64, max_position_embeddings=256, sliding_window=8,
        layer_types=["sliding_attention", "full_attention"] * 2, bos_token_id=2, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Gemma3ForCausalLM(config)
        for parameter in network.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.25)
    if broken:
        with torch.no_grad():
            network.model.layers[2].mlp.down_proj.weight[3, 5] = torch.inf
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
