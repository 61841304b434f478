"""Chooses the device and the compute type."""

from __future__ import annotations

import torch

from encyclo.errors import UsageError


def choose_device(device: str) -> str:
    """Return the device to use; auto is CUDA if available. Raises UsageError if the device can't be used."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        requested = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"--device {device} is not a device; use auto, cpu or cuda.") from error
    if requested.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {device} is not supported; use auto, cpu or cuda.")
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if requested.type == "cuda" and (requested.index or 0) >= devices:
        available = f"only {devices} CUDA device{'s' * (devices > 1)}" if devices else "no CUDA device"
        raise UsageError(f"--device {device} is not available: torch sees {available}; use cpu or auto.")
    return device


def choose_dtype(dtype: str, device: str) -> str:
    """Return the compute type; auto is bfloat16 if the processor computes it fast, else float32."""
    if dtype != "auto":
        return dtype
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if fast else "float32"
