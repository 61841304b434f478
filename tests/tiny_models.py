"""Tiny random models of seven real architectures, with tokenizers, written as folders that transformers loads.

Weights are drawn with a larger deviation than at initialisation, so that attention and positions matter; the
sliding windows are shorter than most prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

LAYERS = 4
HIDDEN = 32
WINDOW = 8
SPECIALS = ("<pad>", "<eos>", "<bos>", "<unk>")
COMMON = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 256,
}
# Family -> whether a text begins and ends with a special token, as the family's tokenizers usually do.
FAMILIES = {
    "gemma3": (True, False),
    "llama": (True, False),
    "qwen3": (False, False),
    "mistral": (True, False),
    "gpt2": (False, False),
    "gpt_neox": (False, False),
    "bert": (True, True),
}
CAUSAL = tuple(family for family in FAMILIES if family != "bert")


@cache
def _bpe(specials: tuple[str, ...]) -> str:
    """Train byte-level BPE on the bundled definitions and templates; return it as JSON."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from encyclo_concepts.core import CATEGORIES, read_category
    from encyclo_samplers.templates import load_templates

    groups = [ts for groups in load_templates().values() for name, ts in groups.items() if name != "sense"]
    texts = [t.text for ts in groups for t in ts]
    texts += [f"{c.name} {c.definition}" for category in CATEGORIES for c in read_category(category)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        special_tokens=list(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return str(tokenizer.to_str())


def build_tokenizer(
    starts: bool = True,
    ends: bool = False,
    padding_side: str = "left",
    specials: Sequence[str] = SPECIALS,
) -> Any:
    """Return a fast tokenizer; the order of `specials` gives their ids, from 0."""
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer.from_str(_bpe(tuple(specials)))
    if starts or ends:
        single = " ".join(["<bos>"] * starts + ["$A"] + ["<eos>"] * ends)
        ids = [(token, tuple(specials).index(token)) for token in ("<bos>", "<eos>")]
        tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        padding_side=padding_side,
    )


def build_network(family: str, vocabulary: int, seed: int = 0) -> Any:
    """Return a random network of `family`, in float32."""
    import torch
    import transformers as tf

    common = {**COMMON, "vocab_size": vocabulary, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    grouped = {**common, "num_key_value_heads": 2, "head_dim": 8}
    mixed = ["sliding_attention", "full_attention"] * (LAYERS // 2)
    network: Any
    torch.manual_seed(seed)
    if family == "gemma3":
        own = {"query_pre_attn_scalar": 20, "sliding_window": WINDOW, "layer_types": mixed}
        network = tf.Gemma3TextModel(tf.Gemma3TextConfig(**grouped, **own))
    elif family == "llama":
        network = tf.LlamaModel(tf.LlamaConfig(**grouped))
    elif family == "qwen3":
        own = {"use_sliding_window": True, "sliding_window": WINDOW, "layer_types": mixed}
        network = tf.Qwen3Model(tf.Qwen3Config(**grouped, **own))
    elif family == "mistral":
        network = tf.MistralModel(tf.MistralConfig(**grouped, sliding_window=WINDOW))
    elif family == "gpt2":
        own = {"n_embd": HIDDEN, "n_layer": LAYERS, "n_head": 4, "n_positions": 256, "n_inner": 64}
        same = {key: common[key] for key in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
        network = tf.GPT2Model(tf.GPT2Config(**same, **own))
    elif family == "gpt_neox":
        network = tf.GPTNeoXModel(tf.GPTNeoXConfig(**common))
    elif family == "bert":
        network = tf.BertModel(tf.BertConfig(**common))
    else:
        raise ValueError(family)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.25)
        else:  # norms and biases that do something too
            with torch.no_grad():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return network.eval()


def write_model(
    folder: Path, family: str = "gemma3", tokenizer: Any = None, specials: Sequence[str] = SPECIALS
) -> Path:
    """Write a model of `family` and its tokenizer into `folder`; return the folder.

    With another order of `specials` (the tokenizer's) the special tokens keep their embeddings under new ids.
    """
    import torch

    from encyclo_capture.loading.silence import quiet_transformers

    starts, ends = FAMILIES[family]
    tokenizer = tokenizer or build_tokenizer(starts, ends, "right" if family == "bert" else "left")
    network = build_network(family, len(tokenizer))
    with torch.no_grad():
        embedding = network.get_input_embeddings().weight
        embedding[: len(SPECIALS)] = embedding[[SPECIALS.index(token) for token in specials]].clone()
    for name in ("pad", "bos", "eos"):
        setattr(network.config, f"{name}_token_id", tuple(specials).index(f"<{name}>"))
    with quiet_transformers():
        network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
