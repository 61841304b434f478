"""A transformers model: its description needs no weights; these load on first use."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from safetensors import SafetensorError

from encyclo.errors import ModelNotFoundError, UsageError
from encyclo.types import Progress
from encyclo_capture.cpu.fused_modules import fuse_modules
from encyclo_capture.forward.passes import find_blocks
from encyclo_capture.forward.support import follows_trees
from encyclo_capture.loading.devices import choose_device, choose_dtype
from encyclo_capture.loading.silence import quiet_transformers
from encyclo_capture.loading.weights import Weights, find_licence, find_weights


class LoadedModel:
    """Config, tokenizer, network, compute type and device; the language-model head loads only on request.

    With `fused`, bfloat16 blocks on a CPU use torch's private operations (see fused_modules.py).
    """

    def __init__(
        self,
        name: str,
        device: str = "auto",
        dtype: str = "auto",
        progress: Progress | None = None,
        fused: bool = True,
    ) -> None:
        from transformers import AutoConfig

        self.name = name
        self.weights: Weights = find_weights(name, progress)
        self.source = self.weights.source
        self.device = choose_device(device)
        self.dtype = choose_dtype(dtype, self.device)
        self.fused = fused
        try:
            with quiet_transformers():
                config = AutoConfig.from_pretrained(self.weights.folder)
        except (OSError, ValueError) as error:
            raise ModelNotFoundError(f"The model {name!r} can't be described: {_said(error)}.") from error
        self.config: Any = config.get_text_config()
        self.depth: int = self.config.num_hidden_layers
        self.hidden_size: int = self.config.hidden_size

    @property
    def weights_sha256(self) -> str:
        """Hash of the weight files."""
        return self.weights.sha256

    @property
    def model_sha256(self) -> str:
        """Hash of weights, configuration and tokenizer."""
        return self.weights.identity

    @property
    def licence(self) -> str | None:
        """The weights' terms of use, if known."""
        return find_licence(self.name, self.weights)

    @property
    def max_tokens(self) -> int | None:
        """The maximum number of tokens per text, if the model states one."""
        longest = getattr(self.config, "max_position_embeddings", None)
        return longest if isinstance(longest, int) and longest > 0 else None

    @cached_property
    def tokenizer(self) -> Any:
        """The model's fast tokenizer: finding mentions needs its offsets."""
        from transformers import AutoTokenizer

        try:
            with quiet_transformers():
                tokenizer = AutoTokenizer.from_pretrained(self.weights.folder)
        except (OSError, ValueError) as error:
            raise ModelNotFoundError(
                f"The tokenizer of the model {self.name!r} can't be loaded: {_said(error)}."
            ) from error
        if not tokenizer.is_fast:
            raise UsageError(
                f"The model {self.name!r} has no fast tokenizer (tokenizer.json), but finding mentions needs one."
            )
        return tokenizer

    @cached_property
    def network(self) -> Any:
        """The model without a head, in evaluation mode, on its device."""
        from transformers import AutoModel

        network = self._load(AutoModel)
        return fuse_modules(network, find_blocks(network)) if self.fused else network

    @cached_property
    def shares_prefixes(self) -> bool:
        """Whether the model is causal and can attend over a token tree (see support.py)."""
        return follows_trees(self.network, self.device, self.config.vocab_size)

    @cached_property
    def head(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The language-model head: weight [vocabulary, H], and bias or None.

        Raises ModelNotFoundError if the files contain no head. Most models use their embedding as the head.
        """
        if getattr(self.config, "tie_word_embeddings", False):
            return self.network.get_input_embeddings().weight.detach(), None
        from transformers import AutoModelForCausalLM

        linear = self._load(AutoModelForCausalLM).get_output_embeddings()
        return linear.weight.detach(), None if linear.bias is None else linear.bias.detach()

    def _load(self, kind: Any) -> Any:
        try:
            with quiet_transformers():
                network, report = kind.from_pretrained(
                    self.weights.folder,
                    dtype=getattr(torch, self.dtype),
                    use_safetensors=True,
                    output_loading_info=True,
                )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise ModelNotFoundError(
                f"The weights of the model {self.name!r} can't be loaded: {_said(error)}."
            ) from error
        # transformers fills missing weights with random numbers. Hidden layers never need the pooler.
        missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
        if missing:
            raise ModelNotFoundError(
                f"The weights of the model {self.name!r} are incomplete: {len(missing)} weights that config.json "
                f"requires are missing from the .safetensors files, such as {missing[0]}."
            )
        return network.to(self.device).eval()


def _said(error: Exception) -> str:
    """Return the first sentence of a message, without its full stop; transformers' messages have many lines."""
    return str(error).strip().partition("\n")[0].partition(". ")[0].rstrip(".:")
