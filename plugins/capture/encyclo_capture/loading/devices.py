"""Which device computes, and in which type."""

from __future__ import annotations

import torch

from encyclo.errors import UsageError


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
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked.type == "cuda" and (asked.index or 0) >= devices:
        seen = f"only {devices} CUDA device{'s' * (devices > 1)}" if devices else "no CUDA device"
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
