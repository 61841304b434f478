"""What an interpreter was trained on: it must not read anything else."""

from typing import Any

from encyclo.types import Context, SampleSet


def trained_on(samples: SampleSet, context: Context) -> dict[str, Any]:
    """Return the model, its weights, the layers and the pooling, for an interpreter's config.json."""
    model = context.model
    return {
        "model": model.name if model else None,
        "weights_sha256": model.weights_sha256 if model else None,
        "layers": list(samples.layers),
        "pooling": context.pooling,
    }
