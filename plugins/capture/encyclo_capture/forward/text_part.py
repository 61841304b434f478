"""Finds what reads text in a model: the language model of a multimodal one, the encoder of an encoder-decoder."""

from __future__ import annotations

from typing import Any

MULTIMODAL = ("language_model", "text_model")
ENCODERS = ("encoder", "text_encoder")


def text_config(config: Any) -> Any:
    """Return the configuration of the part that reads text."""
    if config.is_encoder_decoder and hasattr(encoder := getattr(config, "encoder", None), "get_text_config"):
        return text_config(encoder)
    return config if config.is_encoder_decoder else config.get_text_config()


def text_part(network: Any) -> Any:
    """Return the part of a network without a head that turns token ids into hidden states."""
    from transformers import PreTrainedModel

    while True:
        names = (*MULTIMODAL, *(ENCODERS if network.config.is_encoder_decoder else ()))
        parts = [getattr(network, name, None) for name in names]
        part = next((part for part in parts if isinstance(part, PreTrainedModel)), network)
        part = part.base_model  # without a head
        if part is network:
            return network
        network = part
