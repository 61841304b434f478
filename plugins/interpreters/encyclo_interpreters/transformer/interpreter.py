"""The trained interpreter: compares embeddings with prototypes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from encyclo.errors import DamagedError
from encyclo_interpreters.provenance import check_shape
from encyclo_interpreters.transformer.description_training import meanings_of
from encyclo_interpreters.transformer.hubness import Crowding
from encyclo_interpreters.transformer.network import LayerEncoder

BATCH = 1024


class TransformerInterpreter:
    """Scores a concept by the cosine of a sample's embedding with that of the concept's signature.

    A description's cosine counts less a part of the concept's crowding (see crowding.py): prototypes have one
    more coordinate than embeddings, which meets 0 where a sample names its concept.
    """

    def __init__(
        self,
        encoder: LayerEncoder,
        shape: dict[str, Any],
        origin: dict[str, Any],
        device: str = "cpu",
        crowding: Crowding | None = None,
    ) -> None:
        self.encoder = encoder.to(device).eval()
        self.shape, self.origin, self.device = shape, origin, device
        self.crowding = crowding
        self.concepts: list[str] = []
        size = shape["layers"] * shape["width"] + shape.get("meaning", 0) + (crowding is not None)
        self.prototypes = torch.empty(0, size, device=device)
        """Unit embeddings of the signatures: float32 [C, L * width + meaning]; with crowding one column more."""

    def read(self, activations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score every concept: float32 [n, L, H] -> float32 [n, C], logits."""
        with torch.inference_mode():
            scores = self.embed(activations) @ self.prototypes.T * self.encoder.scale()
            return scores.cpu().numpy()

    def embed(self, activations: NDArray[np.float32], named: bool | None = None) -> torch.Tensor:
        """Return embeddings, float32 [n, as many as a prototype has], on the interpreter's device.

        `named` says that all samples name their concept or that none does; without it the encoder finds out.
        """
        check_shape(activations, (self.shape["layers"], self.shape["hidden"]), self.origin)
        pieces = []
        with torch.inference_mode():
            for start in range(0, len(activations), BATCH):
                values = torch.from_numpy(activations[start : start + BATCH]).to(self.device)
                pieces.append(self._embed(values, named))
        return torch.cat(pieces) if pieces else self.prototypes[:0]

    def _embed(self, values: torch.Tensor, named: bool | None) -> torch.Tensor:
        meaning = self.encoder.meaning
        if meaning is None:
            embedded: torch.Tensor = self.encoder(values)
            return embedded
        kinds = (
            ~meaning.describes(values)
            if named is None
            else torch.full((len(values),), named, device=self.device)
        )
        embedded = self.encoder(values, kinds)
        if self.crowding is None:
            return embedded
        told = torch.where(kinds, 0.0, meaning.describing)
        return torch.cat([embedded, told[:, None]], dim=1)

    def add_concepts(self, ids: Sequence[str], signatures: NDArray[np.float32]) -> None:
        """Add concepts by their signatures, float32 [k, L, H], without training again."""
        prototypes = self.embed(signatures, named=True)
        if self.crowding is not None and self.encoder.meaning is not None and len(ids):
            with torch.inference_mode():
                meanings = meanings_of(self.encoder.meaning, signatures)
                crowded = self.crowding.of(meanings, first=len(self.concepts))
                prototypes[:, -1] = -self.crowding.part * crowded
        self.concepts = [*self.concepts, *ids]
        self.prototypes = torch.cat([self.prototypes, prototypes])

    def save(self, folder: Path) -> None:
        """Write model.safetensors and config.json."""
        from safetensors.torch import save_file

        tensors = {f"encoder.{name}": value.cpu() for name, value in self.encoder.state_dict().items()}
        tensors["prototypes"] = self.prototypes.cpu()
        if self.crowding is not None:
            tensors["crowding.bank"] = self.crowding.bank.cpu()
            tensors["crowding.owner"] = self.crowding.owner.cpu()
        save_file(tensors, folder / "model.safetensors")
        config = {
            "interpreter": "transformer",
            "shape": self.shape,
            "crowding": self.crowding.part if self.crowding else None,
            "trained_on": self.origin,
            "concepts": self.concepts,
        }
        (folder / "config.json").write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> TransformerInterpreter:
        """Load what `save` wrote. Raises DamagedError if the files don't belong together."""
        from safetensors.torch import load_file

        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "model.safetensors")
        try:
            crowding = None
            if config.get("crowding") is not None:
                bank, owner = tensors.pop("crowding.bank"), tensors.pop("crowding.owner")
                crowding = Crowding(bank, owner, config["crowding"])
            encoder = LayerEncoder(**config["shape"])
            interpreter = cls(encoder, config["shape"], config["trained_on"], crowding=crowding)
            prototypes = tensors.pop("prototypes")
            interpreter.encoder.load_state_dict(
                {name.removeprefix("encoder."): value for name, value in tensors.items()}
            )
        except (KeyError, RuntimeError) as error:
            raise DamagedError(f"{folder}/model.safetensors does not fit config.json: {error}.") from error
        interpreter.prototypes, interpreter.concepts = prototypes, config["concepts"]
        return interpreter
