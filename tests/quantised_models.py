"""A tiny random model with a head, and quantised copies of it: by a library, or packed here by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.tiny_models import build_tokenizer

HIDDEN, INNER = 128, 256


def write_plain(folder: Path) -> Path:
    """Write the model with unquantised weights in float32."""
    import torch
    import transformers as tf

    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    config = tf.LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        vocab_size=len(tokenizer),
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    network = tf.LlamaForCausalLM(config).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Embedding):
            torch.nn.init.normal_(module.weight, std=1.0)
        elif isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=1.2 * module.in_features**-0.5)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def by_library(settings: Callable[[], Any], plain: Path, folder: Path) -> None:
    """Let transformers quantise the model as `settings()` say, and save it."""
    import transformers as tf

    tf.AutoModelForCausalLM.from_pretrained(
        plain, quantization_config=settings(), dtype="float32"
    ).save_pretrained(folder)


def bitsandbytes(bits: int, **more: Any) -> Any:
    import transformers as tf

    return tf.BitsAndBytesConfig(**{f"load_in_{bits}bit": True}, **more)


def torchao() -> Any:
    import transformers as tf
    from torchao.quantization import Int8WeightOnlyConfig

    return tf.TorchAoConfig(Int8WeightOnlyConfig())


def by_hand(
    pack: Callable[[Any], dict[str, Any]], settings: dict[str, Any], plain: Path, folder: Path
) -> None:
    """Replace each linear weight of the blocks by what `pack` makes of it, {suffix: tensor}."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(plain, folder)
    packed: dict[str, Any] = {}
    for key, weight in load_file(plain / "model.safetensors").items():
        if key.endswith("_proj.weight"):
            packed |= {key.removesuffix("weight") + suffix: tensor for suffix, tensor in pack(weight).items()}
        else:
            packed[key] = weight
    save_file(packed, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))


def fp8(weight: Any) -> dict[str, Any]:
    """Pack blocks of 128 rows and columns as float8, each with a scale."""
    import torch

    rows, columns = (-(-size // 128) for size in weight.shape)
    scales = torch.empty(rows, columns)
    packed = torch.empty_like(weight, dtype=torch.float8_e4m3fn)
    for row in range(rows):
        for column in range(columns):
            block = slice(128 * row, 128 * (row + 1)), slice(128 * column, 128 * (column + 1))
            scales[row, column] = weight[block].abs().max() / 448
            packed[block] = (weight[block] / scales[row, column]).to(torch.float8_e4m3fn)
    return {"weight": packed, "weight_scale_inv": scales}


QUANTISERS: dict[str, Callable[[Path, Path], None]] = {
    "nf4": partial(
        by_library, partial(bitsandbytes, 4, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype="float16")
    ),
    "int8": partial(by_library, partial(bitsandbytes, 8)),
    "torchao": partial(by_library, torchao),
    "fp8": partial(by_hand, fp8, {"quant_method": "fp8", "weight_block_size": [128, 128]}),
}
NEEDS = {"nf4": "bitsandbytes", "int8": "bitsandbytes", "torchao": "torchao"}


def write_quantised(kind: str, plain: Path, folder: Path) -> Path:
    """Write the model quantised as `kind` and its tokenizer into `folder`; return the folder."""
    QUANTISERS[kind](plain, folder)
    build_tokenizer().save_pretrained(folder)
    return folder
