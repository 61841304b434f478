"""The trained interpreter: compares embeddings with prototypes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from encyclo.errors import DamagedError
from encyclo_interpreters.provenance import check_shape
from encyclo_interpreters.sample_statistics import blocks
from encyclo_interpreters.saved_model import load_model, save_model
from encyclo_interpreters.transformer.hubness import Hubness
from encyclo_interpreters.transformer.network import BATCH, LayerEncoder


class TransformerInterpreter:
    """Scores a concept by the cosine between a sample's embedding and the embedding of the concept's signature.

    For descriptions a part of the concept's hubness is subtracted (see hubness.py). With hubness, embeddings and
    prototypes have one more coordinate: prototypes hold minus the hubness, embeddings a weight, 0 for mentions.
    """

    def __init__(
        self,
        encoder: LayerEncoder,
        shape: dict[str, Any],
        origin: dict[str, Any],
        hubness: Hubness | None = None,
    ) -> None:
        self.encoder = encoder.eval()
        self.shape, self.origin, self.hubness = shape, origin, hubness
        self.concepts: list[str] = []
        size = shape["layers"] * shape["width"] + shape.get("meaning", 0) + (hubness is not None)
        self.prototypes = torch.empty(0, size, device=encoder.device)
        """Unit embeddings of the signatures: float32 [C, L * width + meaning]; one more column with hubness."""

    def read(self, activations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score every concept: float32 [n, L, H] -> float32 [n, C], logits."""
        with torch.inference_mode():
            scores = self.embed(activations) @ self.prototypes.T * self.encoder.scale()
            return scores.cpu().numpy()

    def embed(self, activations: NDArray[np.float32], named: bool | None = None) -> torch.Tensor:
        """Return embeddings, float32 [n, P] with P the length of a prototype, on the interpreter's device.

        `named` is True if all samples name their concept and False if none does; for None the encoder's gate decides.
        """
        check_shape(activations, (self.shape["layers"], self.shape["hidden"]), self.origin)
        pieces = []
        with torch.inference_mode():
            for block in blocks(activations, BATCH):
                pieces.append(self._embed(torch.from_numpy(block).to(self.encoder.device), named))
        return torch.cat(pieces) if pieces else self.prototypes[:0]

    def _embed(self, values: torch.Tensor, named: bool | None) -> torch.Tensor:
        space = self.encoder.shared_space
        if space is None:
            embedded: torch.Tensor = self.encoder(values)
            return embedded
        kinds = (
            ~space.describes(values)
            if named is None
            else torch.full((len(values),), named, device=values.device)
        )
        embedded = self.encoder(values, kinds)
        if self.hubness is None:
            return embedded
        weight = torch.where(kinds, 0.0, space.description_scale)
        return torch.cat([embedded, weight[:, None]], dim=1)

    def add_concepts(self, ids: Sequence[str], signatures: NDArray[np.float32]) -> None:
        """Add concepts by their signatures, float32 [k, L, H], without training."""
        prototypes, space = self.embed(signatures, named=True), self.encoder.shared_space
        if self.hubness is not None and space is not None and len(ids):
            with torch.inference_mode():
                hubness = self.hubness.of(space.embed_signatures(signatures), first=len(self.concepts))
                prototypes[:, -1] = -self.hubness.part * hubness
        self.concepts = [*self.concepts, *ids]
        self.prototypes = torch.cat([self.prototypes, prototypes])

    def save(self, folder: Path) -> None:
        """Write model.safetensors and config.json."""
        tensors = {_name_in_file(name): value for name, value in self.encoder.state_dict().items()}
        tensors["prototypes"] = self.prototypes
        if self.hubness is not None:
            tensors |= {"crowding.bank": self.hubness.bank, "crowding.owner": self.hubness.owner}
        config = {
            "interpreter": "transformer",
            "shape": self.shape,
            "crowding": self.hubness.part if self.hubness else None,
            "trained_on": self.origin,
            "concepts": self.concepts,
        }
        save_model(folder, {name: tensor.cpu().numpy() for name, tensor in tensors.items()}, config)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> TransformerInterpreter:
        """Load what `save` wrote, onto `device`. Raises DamagedError if the two files don't fit together."""
        arrays, config = load_model(folder)
        tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        try:
            hubness = None
            if config.get("crowding") is not None:
                bank, owner = tensors.pop("crowding.bank"), tensors.pop("crowding.owner")
                hubness = Hubness(bank, owner, config["crowding"])
            encoder = LayerEncoder(**config["shape"]).to(device)
            encoder.load_state_dict({name: tensors.pop(_name_in_file(name)) for name in encoder.state_dict()})
            interpreter = cls(encoder, config["shape"], config["trained_on"], hubness)
            interpreter.prototypes, interpreter.concepts = tensors.pop("prototypes"), config["concepts"]
            if tensors:
                raise KeyError(next(iter(tensors)))
        except (KeyError, RuntimeError) as error:
            raise DamagedError(
                f"{folder}/model.safetensors does not fit config.json: {error}; restore both from a copy, or repeat "
                "`encyclo run` with a new --out."
            ) from error
        return interpreter


def resolve_device(device: str) -> str:
    """Return the device to compute on: `auto` is CUDA if torch sees a GPU, else the CPU."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _name_in_file(name: str) -> str:
    """Return a weight's name in model.safetensors: the file format keeps older names than the code."""
    return "encoder." + name.replace("shared_space.", "meaning.").replace("description_scale", "describing")
