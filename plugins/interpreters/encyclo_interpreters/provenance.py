"""Records what an interpreter was trained on, and refuses samples of another shape."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.errors import UsageError
from encyclo.types import Context, SampleSet


def trained_on(samples: SampleSet, context: Context) -> dict[str, Any]:
    """Return model, weights' hash, layers, site, pooling, --echo and --chat, for an interpreter's config.json."""
    model = context.model
    return {
        "model": model.name if model else None,
        "weights_sha256": model.weights_sha256 if model else None,
        "layers": list(samples.layers),
        "site": context.site,
        "pooling": context.pooling,
        "echo": context.echo,
        "chat": dict(context.chat) if context.chat else None,
    }


def check_shape(values: NDArray[np.float32], shape: tuple[int, ...], origin: Mapping[str, Any]) -> None:
    """Raise UsageError if the samples' (layers, hidden size) differs from `shape`, the interpreter's."""
    if values.shape[1:] != shape:
        layers = ", ".join(map(str, origin.get("layers", ())))
        raise UsageError(
            f"The interpreter was trained on {shape[0]} layers of {shape[1]} ({origin.get('model')}, layers "
            f"{layers}) and can't read samples of shape {tuple(values.shape[1:])}; capture the same layers of the "
            "same model."
        )
