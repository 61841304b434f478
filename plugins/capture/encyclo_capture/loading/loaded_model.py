"""A transformers model: its description needs no weights; these load on first use."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Any

import torch

from encyclo.errors import ModelNotFoundError, UsageError
from encyclo.types import Progress
from encyclo_capture.cpu.fused_modules import fuse_modules
from encyclo_capture.forward.passes import find_blocks
from encyclo_capture.forward.support import follows_trees
from encyclo_capture.loading.devices import choose_device, choose_dtype
from encyclo_capture.loading.model_files import read_settings
from encyclo_capture.loading.refusals import refusing
from encyclo_capture.loading.silence import quiet_transformers
from encyclo_capture.loading.stored_tensors import (
    check_loaded,
    check_room,
    check_settings,
    read_tensors,
)
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
        self.name = name
        self.weights: Weights = find_weights(name, progress)
        self.source = self.weights.source
        self.device = choose_device(device)
        self.dtype = choose_dtype(dtype, self.device)
        self.fused = fused
        settings = read_settings(self.weights.folder / "config.json")
        self._tensors = read_tensors(self.weights.folder, settings)
        check_settings(name, settings, self._tensors)
        self._whole_config = self._read_config()
        self.config: Any = self._whole_config.get_text_config()

    def _read_config(self) -> Any:
        """Return transformers' configuration. Raises ModelNotFoundError if it describes no model with layers."""
        from transformers import AutoConfig

        what, advice = f"The model {self.name!r} can't be described", "; check its config.json"
        with refusing(what, advice=advice), quiet_transformers():
            config = AutoConfig.from_pretrained(self.weights.folder, trust_remote_code=False)
            config._attn_implementation = None  # a file could name code on the hub
            text = config.get_text_config()
            for part in (config, text):
                if getattr(part, "tie_last_hidden_states", None) is False:
                    raise ModelNotFoundError(
                        f"The config.json of the model {self.name!r} sets tie_last_hidden_states to false, so that the "
                        "last layer comes before the final norm, but encyclo's comes after it; remove this setting."
                    )
                part.tie_last_hidden_states = part.return_dict = True
            self.depth: int = text.num_hidden_layers
            self.hidden_size: int = text.hidden_size
            self.vocab_size: int = text.vocab_size
            if not all(isinstance(n, int) for n in (self.depth, self.hidden_size, self.vocab_size)):
                raise ValueError("num_hidden_layers, hidden_size and vocab_size must be whole numbers")
        return config

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

        what = f"The tokenizer of the model {self.name!r} can't be loaded"
        with (
            refusing(what, advice="; check its tokenizer.json and tokenizer_config.json"),
            quiet_transformers(),
        ):
            tokenizer = AutoTokenizer.from_pretrained(self.weights.folder, trust_remote_code=False)
        if not tokenizer.is_fast:
            raise UsageError(
                f"The model {self.name!r} has no fast tokenizer (tokenizer.json), but finding mentions needs one; add "
                "it, or use another --model."
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
        return follows_trees(self.network, self.device, self.vocab_size)

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
        what, advice = f"The weights of the model {self.name!r} can't be loaded", "; check its files"
        packed = getattr(self._whole_config, "quantization_config", None)
        if packed is not None:
            method = packed.get("quant_method", "unknown") if isinstance(packed, dict) else "unknown"
            what = f"The quantised weights (method {method}) of the model {self.name!r} can't be loaded"
            advice = "; install what is missing, or use the model's unquantised weights"
        with refusing(what, advice=advice), quiet_transformers():
            given = {"dtype": getattr(torch, self.dtype), "trust_remote_code": False}
            with torch.device("meta"):
                empty = kind.from_config(copy.deepcopy(self._whole_config), **given)
            check_room(self.name, empty, self._tensors, packed is not None)
            network, report = kind.from_pretrained(
                self.weights.folder,
                config=self._whole_config,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # check_loaded refuses them by name
                **given,
            )
            network = network.to(self.device).eval()
        blocks = find_blocks(network)
        prefix = next(name for name, module in network.named_modules() if module is blocks)
        check_loaded(self.name, network, prefix, report, self._tensors)
        return network
