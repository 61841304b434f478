"""Tiny random models of every text architecture in transformers, made from its configuration's defaults.

A configuration's defaults are those of a published model, with billions of parameters. `tiny_config` shrinks every
size that it knows by name, in the configuration and in those inside it, and keeps the rest.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from encyclo.errors import EncycloError
from encyclo.types import POOLINGS, Prompt
from tests.plain_forward import PlainModel, relative_error
from tests.tiny_models import build_tokenizer

LAYERS, HIDDEN, HEADS, HEAD = 4, 64, 4, 16
VOCABULARY = 1280
"""80 more than the tokenizer of tests/tiny_models.py has: ids for images and sounds."""
LONGEST = 512
LARGEST = 80_000_000

# The first pattern that fits a setting's whole name gives its value.
SIZES: dict[str, int] = {
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "embed_dim", "embedding_size", "dim", "model_dim", "emb_dim",
         "word_embed_proj_dim", "encoder_hidden_dim", "decoder_hidden_dim", "attention_hidden_size", "lru_width",
         "embedding_dim", "dim_model", "encoder_hidden_size", "cross_attention_hidden_size", "hidden_dim", "out_hidden_size",
         "projection_dim", "proj_dim", "text_embed_dim", "input_embed_dim", "output_dim", "vision_hidden_size"), HIDDEN),
    **dict.fromkeys(
        ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers", "depth",
         "num_decoder_layers", "num_encoder_layers"), LAYERS),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads",
         "decoder_attention_heads", "mamba_n_heads", "attention_heads", "encoder_num_attention_heads"), HEADS),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "kv_n_heads", "multi_query_group_num", "num_query_groups"), 2),
    **dict.fromkeys(
        ("head_dim", "d_kv", "v_head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "kv_channels", "d_head",
         "global_head_dim", "attention_head_size", "linear_key_head_dim", "linear_value_head_dim", "swa_head_dim",
         "swa_v_head_dim", "attention_head_dim", "kda_head_dim", "index_head_dim"), HEAD),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "n_inner", "d_inner",
         "dim_feedforward", "ffn_hidden_size", "moe_intermediate_size", "shared_expert_intermediate_size",
         "intermediate_size_mlp", "shared_intermediate_size", "expert_ffn_hidden_size", "mlp_dim",
         "dim_ff", "hidden_size_per_layer_input_ff", "mamba_intermediate_size", "block_ff_dim"), 64),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "o_lora_rank"), 16),
    **dict.fromkeys(
        ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts", "num_routed_experts",
         "encoder_num_experts", "decoder_num_experts"), 4),
    **dict.fromkeys(
        ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk", "moe_top_k", "top_k_experts"), 2),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "moe_num_shared_experts"), 1),
    **dict.fromkeys(("state_size", "mamba_d_state", "ssm_state_size", "conv_kernel", "mamba_d_conv"), 4),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "laurel_rank", "altup_num_inputs"), 4),
    **dict.fromkeys(("vocab_size", "text_vocab_size", "src_vocab_size", "tgt_vocab_size", "vocab_size_per_layer_input",
        "encoder_vocab_size", "entity_vocab_size", "decoder_vocab_size"), VOCABULARY),
    **dict.fromkeys(
        ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length",
         "context_length", "max_source_positions", "max_target_positions"), LONGEST),
    **dict.fromkeys(("sliding_window", "attention_window", "local_attention"), 16),
    "mamba_d_ssm": 64, "mamba_d_head": 16, "mamba_head_dim": 8, "mamba_num_heads": 8, "n_mamba_heads": 4,
    "time_step_rank": 4, "adaptive_span": 0, "hidden_size_per_layer_input": 8, "per_layer_input_size": 8,
    "first_k_dense_replace": 1, "num_dense_layers": 1, "image_size": 32, "patch_size": 8,
    "num_nextn_predict_layers": 0, "num_kv_shared_layers": 0, "n_mamba_head": 4,
}  # fmt: skip
SPECIAL = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "unk_token_id": 3}
PER_LAYER = (
    "layer_types",
    "layers_block_type",
    "mlp_layer_types",
    "attention_types",
    "attn_types",
    "block_types",
    "no_rope_layers",
    "hybrid_override_pattern",
)


DROPPED = (
    "id2label", "label2id", "transformers_version", "architectures", "dtype", "torch_dtype", "per_layer_config"
)  # fmt: skip

# What the rules can't know of a type: sizes that must fit each other.
OWN: dict[str, dict[str, Any]] = {
    "codegen": {"rotary_dim": 8},
    "gptj": {"rotary_dim": 8},
    "esm": {"vocab_size": VOCABULARY, "pad_token_id": 0, "position_embedding_type": "rotary"},
    "esmc": {"num_key_value_heads": HEADS},
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 1},
    "reformer": {
        "attn_layers": ["local", "local", "local", "local"], "axial_pos_embds_dim": [32, 32],
        "axial_pos_shape": [16, 32], "local_attn_chunk_length": 16, "feed_forward_size": 64,
    },
    "bamba": {"mamba_n_heads": 8, "mamba_d_head": 16},
    "zaya": {"num_experts_per_tok": 1},
    "funnel": {"block_sizes": [2, 2], "block_repeats": [1, 1]},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "laguna": {"num_attention_heads_per_layer": [HEADS] * LAYERS},
    "nemotron": {"num_key_value_heads": 2, "head_dim": HEAD},
    "qwen4_exp_text": {"indexer_head_dim": HEAD, "indexer_budget": 16, "indexer_compress_ratio": 4},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0}},
    "lxmert": {"num_qa_labels": 2, "num_object_labels": 2, "num_attr_labels": 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
}  # fmt: skip


ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
# Further settings, tried one after the other.
MORE: tuple[dict[str, Any], ...] = ({}, {"num_key_value_heads": HEADS}, {"rope_parameters": ROPE})

# Settings of a type that are read in another way than its defaults.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "falcon (ALiBi)": ("falcon", {"alibi": True, "new_decoder_architecture": False}),
    "opt (word_embed_proj_dim)": ("opt", {"word_embed_proj_dim": HIDDEN // 2}),
}


def shrunk(settings: Mapping[Any, Any], whole: bool, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a configuration's settings that become small, and unless `whole` only those.

    `more` are further settings of the part that has a vocabulary.
    """
    small: dict[str, Any] = {}
    depths = {value for name, value in settings.items() if SIZES.get(name) == LAYERS and type(value) is int}
    for name, value in settings.items():
        if name in DROPPED:
            continue
        if name in SPECIAL and value is not None:
            small[name] = SPECIAL[name]
        elif str(name).endswith(("_token_id", "_token_index")) and isinstance(value, int):
            small[name] = VOCABULARY - 1
        elif name in SIZES and isinstance(value, int) and not isinstance(value, bool):
            small[name] = SIZES[name]
        elif name == "mrope_section":
            small[name] = [2, 3, 3]
        elif name == "head_dim" and value is None:
            small[name] = HEAD
        elif isinstance(value, list) and (name in PER_LAYER or len(value) in depths) and value:
            small[name] = few(value)
        elif isinstance(value, dict) and all(isinstance(key, str) for key in value):
            inner = shrunk(value, whole or "rope" in name, more)
            if inner:
                small[name] = {
                    **inner,
                    **({"model_type": value["model_type"]} if "model_type" in value else {}),
                }
        elif whole:
            small[name] = value
    return {**small, **more} if "vocab_size" in settings else small


def few(kinds: list[Any]) -> list[Any]:
    """Return LAYERS of a list with an item per layer, with each kind of item if there is room."""
    distinct = [kind for place, kind in enumerate(kinds) if kind not in kinds[:place]][:LAYERS]
    return (distinct + kinds)[:LAYERS] if 1 < len(distinct) < LAYERS else kinds[:LAYERS]


def tiny_config(kind: str) -> Any:
    """Return a small configuration of a model type, or of one of VARIANTS: the first that runs, else the first that can be built.

    Raises the error of the last try to build a model.
    """
    from transformers import CONFIG_MAPPING

    kind, own = VARIANTS.get(kind, (kind, OWN.get(kind, {})))
    cls = CONFIG_MAPPING[kind]
    settings = cls().to_dict()
    built: list[Any] = []
    failed: Exception | None = None
    for more in MORE:
        for whole in (False, True):
            chosen = {**shrunk(settings, whole, more), **own}
            chosen.pop("model_type", None)
            try:
                config = cls(**chosen)
                runs = can_run(config)
            except Exception as error:
                failed = error
                continue
            if runs:
                return config
            built.append(config)
    if not built:
        assert failed is not None
        raise failed
    return built[0]


def can_run(config: Any) -> bool:
    """Return whether a model of the configuration reads a few tokens. Raises an error if it can't be built."""
    import torch
    from transformers import AutoModel

    from encyclo_capture.forward.plain_pass import plain_states
    from encyclo_capture.forward.text_part import text_part

    with torch.device("meta"):
        network = AutoModel.from_config(copy.deepcopy(config))
    if sum(parameter.numel() for parameter in network.parameters()) > LARGEST:
        raise ValueError(f"the shrunk model still has more than {LARGEST:,} weights")
    network = AutoModel.from_config(config).eval()
    try:
        plain_states(text_part(network), "cpu", [5, 6, 7, 8, 9])
    except Exception:
        return False
    return True


def write_model(kind: str, folder: Path) -> None:
    """Write a random model of the type `kind` and a tokenizer into `folder`, for transformers to load."""
    import torch
    from transformers import AutoModel

    from encyclo_capture.loading.silence import quiet_transformers

    torch.manual_seed(0)
    network = AutoModel.from_config(tiny_config(kind)).eval()
    for module in network.modules():
        # Wide enough that attention and positions matter.
        if isinstance(module, torch.nn.Embedding | torch.nn.Linear) and module.weight.dim() == 2:
            spread = 1.0 if isinstance(module, torch.nn.Embedding) else 1.2 * module.weight.shape[1] ** -0.5
            torch.nn.init.normal_(module.weight, std=spread)
    with quiet_transformers():
        network.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)


WORDS = "the old house in city had a dog that nobody ever saw and river of water was there before"


def prompts(tokenizer: Any) -> list[Prompt]:
    """Return prompts of 2 to 400 tokens, many with a common beginning, some with a mention."""
    words = WORDS.split(" ")
    made = []
    for number, length in enumerate((2, 3, 5, 9, 17, 17, 40, 40, 120, 192, 193, 250, 400)):
        text = words[0] if number % 3 else words[number % len(words)]
        place = number
        while len(tokenizer(f"{text} {words[place % len(words)]}")["input_ids"]) <= length:
            text = f"{text} {words[place % len(words)]}"
            place += 1 + number // 6
        start = text.rfind(" ") + 1
        made.append(Prompt("c", text, (start, len(text)) if number % 2 else None, "f"))
    return made


@dataclass(frozen=True)
class Verdict:
    """How a model is read ("shared prefixes", "padded", "alone", "refused", "WRONG"), and details.

    error is the largest distance from the plain pass relative to a vector's length, allowed what may be.
    """

    kind: str
    how: str
    error: float = 0.0
    allowed: float = 0.0
    reason: str = ""


TOLERANCE = 1e-5


def examine(kind: str, folder: Path) -> Verdict:
    """Write a model of the type `kind`, capture prompts at all layers in all poolings, compare with plain passes."""
    from encyclo_capture.capture import capture
    from encyclo_capture.model import TransformersModel

    write_model(kind, folder)
    try:
        model = TransformersModel(str(folder), "cpu", "float32")
        asked, layers = prompts(model.tokenizer), range(model.depth + 1)
        found = {}
        for pooling in POOLINGS:
            batches = list(capture(model, asked, layers, pooling, 900))
            order = np.argsort(np.concatenate([batch.positions for batch in batches]))
            found[pooling] = np.concatenate([batch.activations for batch in batches])[order]
    except EncycloError as error:
        return Verdict(kind, "refused", reason=str(error))
    support = model.support
    how = "shared prefixes" if support.trees else "padded" if support.whole.padded else "alone"
    plain = TextModel(folder)
    wanted = {pooling: [plain.read(p, layers, pooling) for p in asked] for pooling in POOLINGS}
    error = max(float(relative_error(found[name], np.stack(wanted[name])).max()) for name in POOLINGS)
    allowed = TOLERANCE if error <= TOLERANCE else max(TOLERANCE, plain.own_error([p.text for p in asked]))
    if not error <= allowed:
        return Verdict(kind, "WRONG", error, allowed, f"read as {how}, {support.whole}")
    return Verdict(kind, how, error, allowed)


def examine_sites(kind: str, folder: Path) -> Verdict:
    """Write a model of the type `kind`; test both its sites as a run does, at all layers.

    The error may be as large as that between two plain passes, by eager and by sdpa attention.
    """
    from encyclo_capture.model import TransformersModel
    from encyclo_capture.selftest import check

    write_model(kind, folder)
    error, allowed = 0.0, TOLERANCE
    for site in ("attn", "mlp"):
        model = TransformersModel(str(folder), "cpu", "float32", site=site)
        try:
            _ = model.sites
        except EncycloError as error:
            return Verdict(kind, "no sites", reason=str(error))
        asked = prompts(model.tokenizer)[1::2]
        found = check(model, asked, range(1, model.depth + 1), "span", 900)
        error = max([error, *(found.get(name, 0.0) for name in ("layers", "batch", "padding"))])
        allowed = max(allowed, found.get("sdpa", 0.0))
    return Verdict(kind, "sites" if error <= allowed else "WRONG", error, allowed)


class TextModel(PlainModel):
    """The plain reference of any architecture: an encoder-decoder's encoder, a multimodal model given only text."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        whole = self.network
        for module in whole.modules():  # encyclo's last layer comes after the final norm
            if hasattr(module, "config"):
                module.config.tie_last_hidden_states, module.config.use_cache = True, False
        if whole.config.is_encoder_decoder or getattr(whole.config, "text_config", None) is not None:
            part = whole.get_encoder() if whole.config.is_encoder_decoder else whole.get_decoder()
            while part.base_model is not part:
                part = part.base_model
            self.network = partial(part, return_dict=True)

    def own_error(self, texts: Sequence[str]) -> float:
        """Return the largest distance between plain passes over each text in a padded batch and alone."""
        import torch

        ids = [self.ids(text) for text in texts]
        longest = max(map(len, ids))
        padded = torch.tensor([row + [0] * (longest - len(row)) for row in ids])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
        with torch.no_grad():
            batched = self.network(padded, attention_mask=mask, output_hidden_states=True).hidden_states
        errors = [
            relative_error(
                np.stack([h[row, : len(ids[row])].double().numpy() for h in batched]), self.states(text)
            ).max()
            for row, text in enumerate(texts)
        ]
        return float(max(errors))
