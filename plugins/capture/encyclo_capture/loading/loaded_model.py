"""A transformers model: its description needs no weights; these load on first use."""

from __future__ import annotations

import copy
import gc
from functools import cached_property
from typing import Any

import torch

from encyclo.errors import ModelNotFoundError, UsageError
from encyclo.types import RESIDUAL, Progress
from encyclo_capture.cpu.fused_modules import can_fuse, fuse_modules
from encyclo_capture.cpu.workers import Replicas
from encyclo_capture.forward.passes import find_blocks
from encyclo_capture.forward.sites import BlockSites, find_sites
from encyclo_capture.forward.support import Support, find_support
from encyclo_capture.forward.text_part import text_config, text_part
from encyclo_capture.loading.devices import choose_device, choose_dtype
from encyclo_capture.loading.model_files import read_settings
from encyclo_capture.loading.quantisation import (
    ADVICE,
    cast_plain_weights,
    find_quantisation,
    own_class,
)
from encyclo_capture.loading.refusals import refusing
from encyclo_capture.loading.silence import quiet_transformers
from encyclo_capture.loading.stored_tensors import (
    check_loaded,
    check_room,
    check_settings,
    read_tensors,
)
from encyclo_capture.loading.tokenizers import load_tokenizer
from encyclo_capture.loading.weights import Weights, find_licence, find_weights

SIZES = ("num_hidden_layers", "hidden_size", "vocab_size")

AFTER_PADDING = frozenset(
    [
        "camembert",
        "data2vec-text",
        "esm",
        "ibert",
        "lilt",
        "longformer",
        "luke",
        "markuplm",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    ]
)
"""The model types whose positions begin after that of padding, so that fewer tokens fit than they have positions."""


class LoadedModel:
    """Config, tokenizer, network, compute type and device; the language-model head loads only on request.

    With `fused`, bfloat16 blocks on a CPU use torch's private operations (see fused_modules.py). `site` is where layers
    are read: "resid", or what "attn" or "mlp" adds to it (see sites.py).
    """

    def __init__(
        self,
        name: str,
        device: str = "auto",
        dtype: str = "auto",
        progress: Progress | None = None,
        fused: bool = True,
        site: str = RESIDUAL,
    ) -> None:
        self.name, self.site = name, site
        self.weights: Weights = find_weights(name, progress)
        self.source = self.weights.source
        self.device = choose_device(device)
        self.dtype = choose_dtype(dtype, self.device)
        self.fused, self._replaced = fused, False
        settings = read_settings(self.weights.folder / "config.json")
        self.depth: int
        self.hidden_size: int
        self.vocab_size: int
        self._tensors = read_tensors(self.weights.folder, settings)
        check_settings(name, settings, self._tensors)
        self._whole_config = self._read_config()
        self.config: Any = text_config(self._whole_config)
        self._quantised = find_quantisation(name, self._whole_config, self.device, self._tensors)

    def _read_config(self) -> Any:
        """Return transformers' configuration. Raises ModelNotFoundError if it describes no model with layers."""
        from transformers import AutoConfig

        what, advice = f"The model {self.name!r} can't be described", "; check its config.json"
        with refusing(what, advice=advice), quiet_transformers():
            config = AutoConfig.from_pretrained(self.weights.folder, trust_remote_code=False)
            config._attn_implementation = None  # a file could name code on the hub
            text = text_config(config)
            for part in (config, text):
                if getattr(part, "tie_last_hidden_states", None) is False:
                    raise ModelNotFoundError(
                        f"The config.json of the model {self.name!r} sets tie_last_hidden_states to false, so that the "
                        "last layer comes before the final norm, but encyclo's comes after it; remove this setting."
                    )
                part.tie_last_hidden_states = part.return_dict = True
            sizes = [getattr(text, name, None) for name in SIZES]
            for size, value in zip(SIZES, sizes, strict=True):
                if not isinstance(value, int):
                    raise ModelNotFoundError(
                        f"The model {self.name!r} is of the type {config.model_type}, whose configuration gives "
                        f"{size} = {value!r} instead of a number, so that its layers can't be read; "
                        "use another --model."
                    )
            self.depth, self.hidden_size, self.vocab_size = map(int, sizes)  # type: ignore[arg-type]
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
    def quantisation(self) -> str | None:
        """How the weights are quantised: the method, the bits per weight, and whether they are dequantised."""
        return self._quantised.text if self._quantised else self.weights.quantisation

    @property
    def licence(self) -> str | None:
        """The weights' terms of use, if known."""
        return find_licence(self.name, self.weights)

    @property
    def max_tokens(self) -> int | None:
        """The maximum number of tokens per text, if the model states one."""
        longest = getattr(self.config, "max_position_embeddings", None)
        if not isinstance(longest, int):
            return None
        if self.config.model_type in AFTER_PADDING:
            longest -= (getattr(self.config, "pad_token_id", None) or 0) + 1
        return longest if longest > 0 else None

    @cached_property
    def tokenizer(self) -> Any:
        """The model's fast tokenizer: finding mentions needs its offsets."""
        what = f"The tokenizer of the model {self.name!r} can't be loaded"
        with (
            refusing(what, advice="; check its tokenizer.json and tokenizer_config.json"),
            quiet_transformers(),
        ):
            tokenizer = load_tokenizer(self.weights.folder)
        if not tokenizer.is_fast:
            raise UsageError(
                f"The model {self.name!r} has no fast tokenizer (tokenizer.json), but finding mentions needs one; add "
                "it, or use another --model."
            )
        return tokenizer

    @property
    def original(self) -> Any:
        """The part of the model that reads text, in evaluation mode, on its device, with transformers' own modules.

        Once `network` has replaced some of them, it is loaded again each time it is asked for.
        """
        return self._load_original() if self._replaced else self._original

    @cached_property
    def _original(self) -> Any:
        return self._load_original()

    def _load_original(self) -> Any:
        from transformers import AutoModel

        return self._load(AutoModel)

    @cached_property
    def support(self) -> Support:
        """How the network is read (see support.py). Raises CaptureError for a model that can't be read."""
        return find_support(self.original, self.name, self.device)

    @cached_property
    def sites(self) -> tuple[BlockSites, ...] | None:
        """Each block's sites; None if the residual stream is read. Raises CaptureError if they can't be proven."""
        if self.site == RESIDUAL:
            return None
        return find_sites(self.original, self.name, self.device, self.support, self.site)

    @property
    def places(self) -> list[str] | None:
        """The module of each block that is read; None if the residual stream is."""
        return None if self.sites is None else [getattr(sites, self.site) for sites in self.sites]

    @cached_property
    def network(self) -> Any:
        """The part of the model that reads text, with modules replaced for speed."""
        network, _, _ = self._original, self.support, self.sites
        if self.fused and can_fuse(network) and (blocks := find_blocks(network)) is not None:
            self._replaced = True
            del self._original
            fuse_modules(network, blocks)
        return network

    @cached_property
    def replicas(self) -> Replicas:
        """Replicas of the network that share its weights, to compute batches in parallel."""
        return Replicas(self.network)

    def release(self) -> None:
        """Free the weights; they are loaded again when they are next needed."""
        held = {"_original", "network", "replicas", "head"} & self.__dict__.keys()
        for name in held:
            del self.__dict__[name]
        self._replaced = False
        if held:
            gc.collect()  # a network whose forward pass was exchanged refers to itself

    @cached_property
    def shares_prefixes(self) -> bool:
        """Whether the model is causal and can attend over a token tree."""
        return self.support.trees

    @cached_property
    def head(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The language-model head: weight [vocabulary, H], and bias or None.

        Raises ModelNotFoundError if the files contain no head. Most models use their embedding as the head.
        """
        if getattr(self.config, "tie_word_embeddings", False):
            return self.network.get_input_embeddings().weight.detach(), None
        from transformers import AutoModelForCausalLM

        linear = self._load(AutoModelForCausalLM, whole=True).get_output_embeddings()
        if linear is None:
            raise ModelNotFoundError(
                f"The weights of the model {self.name!r} have no head; use another --model."
            )
        bias = None if linear.bias is None else linear.bias.detach()
        if type(linear) is torch.nn.Linear:
            return linear.weight.detach(), bias
        with torch.inference_mode():  # a quantised head: its weight is what it makes of the identity
            made = linear(torch.eye(self.hidden_size, device=self.device, dtype=getattr(torch, self.dtype)))
            return (made if bias is None else made - bias).T.contiguous(), bias

    def _load(self, kind: Any, whole: bool = False) -> Any:
        """Return a network of the class `kind`, or unless `whole` the part of it that reads text."""
        what, advice = f"The weights of the model {self.name!r} can't be loaded", "; check its files"
        dtype, config, packed = getattr(torch, self.dtype), self._whole_config, self._quantised
        given: dict[str, Any] = {"dtype": dtype, "trust_remote_code": False}
        if packed:
            what = (
                f"The quantised weights (method {packed.method}) of the model {self.name!r} can't be loaded"
            )
            advice = f"; {ADVICE}"
            kind, config = own_class(config, kind), packed.configured(config, self.dtype)
            given["device_map"] = {"": self.device}
        with refusing(what, advice=advice), quiet_transformers():
            empty = _without_weights(kind, self._whole_config, dtype)
            check_room(self.name, empty, self._tensors, packed is not None)
            network, report = kind.from_pretrained(
                self.weights.folder,
                config=config,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # check_loaded refuses them by name
                **given,
            )
            if packed:
                cast_plain_weights(network, empty, dtype)
            part = network if whole else text_part(network)
            part = part.to(self.device).eval()
        names = {module: name for name, module in network.named_modules()}
        within = (names[part], names.get(find_blocks(part)))
        check_loaded(self.name, part, within, report, self._tensors, packed is not None)
        return part


def _without_weights(kind: Any, config: Any, dtype: torch.dtype) -> Any:
    """Return a network of the class `kind`, on the device meta."""
    make = (
        getattr(kind, "_from_config", None) or kind.from_config
    )  # the second is of transformers' Auto classes
    with torch.device("meta"):
        return make(copy.deepcopy(config), dtype=dtype)
