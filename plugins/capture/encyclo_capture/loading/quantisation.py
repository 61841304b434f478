"""Quantised weights: what config.json says about them, and how transformers loads them."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn

from encyclo.errors import ModelNotFoundError
from encyclo_capture.loading.model_files import ADVICE as SAVE_AGAIN
from encyclo_capture.loading.refusals import refusing
from encyclo_capture.loading.silence import quiet_transformers
from encyclo_capture.loading.stored_tensors import FLOATS, StoredTensor

BITSANDBYTES = "bitsandbytes"
BIT_SETTINGS = ("bits", "w_bit", "wbits", "nbits", "num_bits", "weight_bits")
BITS_IN_NAME = re.compile(r"(?:int|fp|float)(\d+)", re.IGNORECASE)
DEQUANTISED_ON_A_CPU = ("fp8", "mxfp8", "mxfp4", "metal")
"""Methods that compute on a GPU only; transformers turns their weights into plain ones when it loads them."""
STORED_PLAIN = ("bitnet",)
"""Methods that may store plain weights and quantise them in each pass."""
PACKAGES = {
    BITSANDBYTES: BITSANDBYTES,
    "torchao": "torchao",
    "gptq": "gptqmodel",
    "awq": "gptqmodel",
    "compressed-tensors": "compressed-tensors",
    "hqq": "hqq",
    "quanto": "optimum-quanto",
    "auto-round": "auto-round",
    "quark": "amd-quark",
}
"""The package that computes with the weights, by method."""
ADVICE = "install what is missing, or use the model's unquantised weights"


@dataclass(frozen=True)
class Quantisation:
    """How a model's weights are quantised; `settings` is `quantization_config` of its config.json."""

    method: str
    settings: Mapping[str, Any]
    dequantised: bool
    """Whether transformers turns the weights into plain ones when it loads them."""

    @property
    def text(self) -> str:
        """The method with its package's version, the bits per weight if known, and whether they are dequantised."""
        parts = [self.method]
        package = PACKAGES.get(self.method)
        if package and not self.dequantised:
            try:
                parts = [f"{self.method} ({package} {version(package)})"]
            except PackageNotFoundError:
                parts = [f"{self.method} ({package})"]
        if (bits := self._bits()) is not None:
            parts.append(f"{bits} bits")
        if self.settings.get("load_in_4bit"):
            parts.append(str(self.settings.get("bnb_4bit_quant_type", "fp4")))
        return ", ".join([*parts, *["dequantised when loaded"] * self.dequantised])

    def _bits(self) -> int | None:
        for number in (4, 8):
            if self.settings.get(f"load_in_{number}bit"):
                return number
        for key, value in _items(self.settings):
            if key in BIT_SETTINGS and isinstance(value, int):
                return value
        named = json.dumps([self.method, self.settings.get("weights"), self.settings.get("quant_type")])
        found = BITS_IN_NAME.search(named)
        return int(found[1]) if found else None

    def configured(self, config: Any, dtype: str) -> Any:
        """Return a copy of transformers' configuration that computes in `dtype`, or dequantises, as `text` says."""
        own = copy.deepcopy(config)
        settings = _settings(own)
        settings["quant_method"] = self.method
        if self.method == BITSANDBYTES:
            # It would convert to this type and back; float16 overflows.
            settings["bnb_4bit_compute_dtype"] = dtype
        if self.dequantised:
            settings["dequantize"] = True
        return own


def find_quantisation(
    name: str, config: Any, device: str, tensors: Mapping[str, StoredTensor]
) -> Quantisation | None:
    """Return how the weights of the model `name` are quantised; None if config.json doesn't say that they are.

    Raises ModelNotFoundError for a method that transformers doesn't know, where a package or device is missing, and
    for files that hold plain weights after all.
    """
    settings = _settings(config)
    if settings is None:
        return None
    from transformers import __version__
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING, AutoHfQuantizer

    given: dict[str, Any] = settings if isinstance(settings, dict) else {}
    old = any(given.get(f"load_in_{bits}bit") for bits in (4, 8))  # without a method it was bitsandbytes
    method = BITSANDBYTES if old else str(given.get("quant_method", "unknown"))
    known = {*AUTO_QUANTIZER_MAPPING, BITSANDBYTES} - {"bitsandbytes_4bit", "bitsandbytes_8bit", "gguf"}
    if method not in known:
        raise ModelNotFoundError(
            f"The model {name!r} has quantised weights (method {method}), but transformers {__version__} "
            "loads no such weights; use the model's unquantised weights."
        )
    _check_stored(name, method, tensors)
    found = Quantisation(method, given, method in DEQUANTISED_ON_A_CPU and device == "cpu")
    what = f"The quantised weights (method {method}) of the model {name!r} can't be used on {device}"
    with refusing(what, advice=f"; {ADVICE}"), quiet_transformers():
        quantizer = AutoHfQuantizer.from_config(
            _settings(found.configured(config, "float32")), pre_quantized=True
        )
        quantizer.validate_environment(device_map={"": device}, weights_only=True)
    # transformers also dequantises what a GPU is too old for.
    return replace(found, dequantised=bool(getattr(quantizer.quantization_config, "dequantize", False)))


def _check_stored(name: str, method: str, tensors: Mapping[str, StoredTensor]) -> None:
    """Check that the files hold quantised weights, and each of float8 its scale, which transformers doesn't miss."""
    if method not in STORED_PLAIN and all(tensor.dtype in FLOATS for tensor in tensors.values()):
        raise ModelNotFoundError(
            f"The config.json of the model {name!r} says that its weights are quantised (method {method}), but the "
            ".safetensors files hold plain weights; remove quantization_config from it, or save the model again."
        )
    scaled = {key.rpartition(".")[0] for key in tensors if "scale" in key.rpartition(".")[2]}
    for key, tensor in tensors.items():
        if (
            tensor.dtype.startswith("F8")
            and key.endswith(".weight")
            and key.removesuffix(".weight") not in scaled
        ):
            raise ModelNotFoundError(
                f"The weights of the model {name!r} are incomplete: {key} is quantised (method {method}), but the "
                f".safetensors files have no scale for it; {SAVE_AGAIN}."
            )


def own_class(config: Any, kind: Any) -> Any:
    """Return the class that wrote a quantised checkpoint, or `kind` if config.json names none.

    The settings and the files name modules as that class does: which are quantised, and how each is stored.
    """
    import transformers

    named = next(iter(getattr(config, "architectures", None) or ()), None)
    found = getattr(transformers, str(named), None)
    is_class = isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)
    return found if is_class else kind


def cast_plain_weights(network: Any, empty: Any, dtype: torch.dtype) -> None:
    """Give the weights that aren't quantised the compute type: transformers leaves some in the file's type.

    `empty` is the network without quantisation; a module of another class there is a quantised one.
    """
    plain = {name: type(module) for name, module in empty.named_modules()}
    kept = tuple(network._keep_in_fp32_modules_strict or ())
    for name, module in network.named_modules():
        if type(module) is not plain.get(name) or any(part in name.split(".") for part in kept):
            continue
        for parameter in module.parameters(recurse=False):
            if type(parameter) is nn.Parameter and parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)


def _settings(config: Any) -> Any:
    """Return quantization_config of a configuration, or of the part that reads text."""
    for part in (config, config.get_text_config(decoder=True)):
        if (settings := getattr(part, "quantization_config", None)) is not None:
            return settings
    return None


def _items(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _items(value)
        else:
            yield key, value
