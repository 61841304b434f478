"""An interpreter's two files: model.safetensors (arrays) and config.json (everything else)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.storage import safe_read


def save_model(folder: Path, arrays: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> None:
    """Write both files into the existing `folder`."""
    from safetensors.numpy import save_file

    # safetensors writes raw memory and ignores strides: a transposed view would load scrambled.
    in_order = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    save_file(in_order, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")


def load_model(folder: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the arrays and the configuration that `save_model` wrote. Raises DamagedError, as `read_json` does."""
    from safetensors.numpy import load_file

    weights, limit = folder / "model.safetensors", safe_read.INTERPRETER_JSON
    config: dict[str, Any] = safe_read.read_json(folder / "config.json", at_most=limit, within=folder)
    safe_read.open_file(weights, within=folder, at_most=safe_read.LARGEST_FILE).close()
    return load_file(weights), config
