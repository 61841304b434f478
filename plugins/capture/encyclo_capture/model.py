"""A transformers model as encyclo's handle: described without its weights, loaded on first use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from encyclo.errors import ModelNotFoundError, UsageError
from encyclo.types import Opening, Progress
from encyclo_capture.crew import Twins
from encyclo_capture.prepared import prepare
from encyclo_capture.quiet import quiet_transformers
from encyclo_capture.weights import Weights, find_licence, find_weights

if TYPE_CHECKING:
    from encyclo_capture.generation import Head


class TransformersModel:
    """A model that transformers loads; without its language-model head unless it generates."""

    def __init__(
        self, name: str, device: str = "auto", dtype: str = "auto", progress: Progress | None = None
    ) -> None:
        from transformers import AutoConfig

        self.name = name
        self.weights: Weights = find_weights(name, progress)
        self.source = self.weights.source
        self.device = choose_device(device)
        self.dtype = choose_dtype(dtype, self.device)
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
    def licence(self) -> str | None:
        """The weights' terms of use, where they are known."""
        return find_licence(self.name, self.weights)

    @property
    def max_tokens(self) -> int | None:
        """The most tokens a text may have, where the model says so."""
        longest = getattr(self.config, "max_position_embeddings", None)
        return longest if isinstance(longest, int) and longest > 0 else None

    @cached_property
    def tokenizer(self) -> Any:
        """The model's fast tokenizer (offsets are needed to find mentions)."""
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
                f"The model {self.name!r} has no fast tokenizer (tokenizer.json), which is needed to find mentions."
            )
        return tokenizer

    @cached_property
    def network(self) -> Any:
        """The model without a head, in evaluation mode, on its device, made ready (see prepared.py)."""
        from transformers import AutoModel

        from encyclo_capture.forward import find_blocks

        network = self._load(AutoModel)
        return prepare(network, find_blocks(network))

    @cached_property
    def twins(self) -> Twins:
        """Copies of the network that share its weights, for batches that are computed side by side."""
        return Twins(self.network)

    @cached_property
    def shares_prefixes(self) -> bool:
        """Whether the model is causal and its attention can follow a token tree (see probe.py)."""
        from encyclo_capture.probe import follows_trees

        return follows_trees(self.network, self.device, self.config.vocab_size)

    @cached_property
    def head(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The language-model head: weight [vocabulary, H], and bias where it has one.

        Raises ModelNotFoundError where the files hold none. Most models use their embedding as the head.
        """
        if getattr(self.config, "tie_word_embeddings", False):
            return self.network.get_input_embeddings().weight.detach(), None
        from transformers import AutoModelForCausalLM

        linear = self._load(AutoModelForCausalLM).get_output_embeddings()
        return linear.weight.detach(), None if linear.bias is None else linear.bias.detach()

    @cached_property
    def scoring_head(self) -> Head:
        """The head, cut down to the tokens that may be generated."""
        from encyclo_capture.generation import Head

        return Head(self)

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
        # transformers draws weights that the files lack at random. Hidden layers never need the pooler.
        lacking = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
        if lacking:
            raise ModelNotFoundError(
                f"The weights of the model {self.name!r} are incomplete: {len(lacking)} that its config.json "
                f"calls for are in no .safetensors file, {lacking[0]} among them."
            )
        return network.to(self.device).eval()

    def forward(self, texts: Sequence[str], layers: Sequence[int]) -> list[NDArray[np.float32]]:
        """Return each text's hidden states at every token, special ones included: float32 [tokens, L, H]."""
        states = []
        for text in texts:
            ids = torch.tensor([self.tokenizer(text)["input_ids"]], device=self.device)
            with torch.inference_mode():
                hidden = self.network(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
            states.append(torch.stack([hidden[layer][0] for layer in layers], dim=1).float().cpu().numpy())
        return states

    def tokens(self, text: str) -> list[tuple[int, int]]:
        """Return the character range of each token that `forward` gives states for; (0, 0) for special ones."""
        encoded = self.tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
        columns = zip(encoded["offset_mapping"], encoded["special_tokens_mask"], strict=True)
        return [(0, 0) if special else (int(a), int(b)) for (a, b), special in columns]

    def generate(
        self,
        prefix: str,
        openings: Sequence[Opening],
        max_new_tokens: int,
        stop: Callable[[str], int | None] | None = None,
        more: Callable[[int, str], Sequence[Opening]] | None = None,
    ) -> list[str]:
        """Continue `prefix` + each opening; return the continuations alone (see `encyclo.types.Model`)."""
        from encyclo_capture.generation import continue_texts

        return continue_texts(self, prefix, openings, max_new_tokens, stop, more)


def _said(error: Exception) -> str:
    """The first sentence of a message, without its full stop: transformers' own run over many lines."""
    return str(error).strip().partition("\n")[0].partition(". ")[0].rstrip(".:")


def choose_device(device: str) -> str:
    """Return the device to use; auto takes CUDA where there is one. Raises UsageError."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        asked = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"--device {device} is no device; use auto, cpu or cuda.") from error
    if asked.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {device} is not supported; use auto, cpu or cuda.")
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked.type == "cuda" and (asked.index or 0) >= there:
        seen = f"only {there} CUDA device{'s' * (there > 1)}" if there else "no CUDA device"
        raise UsageError(f"--device {device} was asked for, but torch sees {seen}; use cpu or auto.")
    return device


def choose_dtype(dtype: str, device: str) -> str:
    """Return the compute type: for auto, bfloat16 where the processor computes it fast, else float32."""
    if dtype != "auto":
        return dtype
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if fast else "float32"
