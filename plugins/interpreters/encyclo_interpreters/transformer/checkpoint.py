"""Checkpoints of a training, written between epochs.

A checkpoint is one safetensors file with the training's key (see `fingerprint`). safetensors has no checksum, so the
file's name holds the sha256 of its bytes. A file that doesn't match its name is ignored, and training starts again.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from encyclo.storage import files
from encyclo.storage.safe_read import parse_json
from encyclo.types import SampleSet

PREFIX = "checkpoint-"


@dataclass(frozen=True)
class State:
    """A training's progress: epochs done, epochs since the best one, the best loss and its weights."""

    epoch: int
    waited: int
    best_loss: float
    best: dict[str, Tensor]

    def after(self, epoch: int, loss: float, encoder: nn.Module) -> State:
        """Return the state after one more epoch."""
        if loss < self.best_loss:
            return State(epoch, 0, loss, Checkpoint.copy(encoder))
        return State(epoch, self.waited + 1, self.best_loss, self.best)


class Checkpoint:
    """The checkpoint of the phase `name` of the training `key`, in `folder`."""

    def __init__(self, folder: Path, name: str, key: str) -> None:
        self.folder, self.key = folder, key
        self.prefix = f"{PREFIX}{name}-"

    @staticmethod
    def copy(encoder: nn.Module) -> dict[str, Tensor]:
        """Return a copy of the encoder's weights."""
        return copy.deepcopy(encoder.state_dict())

    def save(self, state: State, encoder: nn.Module, optimiser: Any, schedule: Any) -> None:
        """Write the checkpoint durably, then remove the previous one."""
        from safetensors.torch import save

        tensors = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in state.best.items()}
        for place, moments in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{place}.{name}": value for name, value in moments.items()}
        note = {"key": self.key, "epoch": state.epoch, "waited": state.waited, "best_loss": state.best_loss}
        note["steps"] = schedule.last_epoch
        # Clone each tensor: safetensors refuses tensors that share memory.
        data = save({n: v.detach().cpu().clone() for n, v in tensors.items()}, {"note": json.dumps(note)})
        target = self.folder / f"{self.prefix}{hashlib.sha256(data).hexdigest()}.safetensors"
        self.folder.mkdir(parents=True, exist_ok=True)
        with files.replacing(target) as temporary:
            temporary.write_bytes(data)
        self._remove_all_but(target)

    def load(self, encoder: nn.Module, optimiser: Any, schedule: Any) -> State | None:
        """Restore encoder, optimiser and schedule; return None if there is no checkpoint of this training."""
        from safetensors import safe_open

        for path in sorted(self.folder.glob(f"{self.prefix}*.safetensors")):
            if not path.is_file() or files.sha256_of(path) != path.stem.removeprefix(self.prefix):
                continue
            with safe_open(path, "pt") as opened:
                note = parse_json(opened.metadata()["note"].encode())
                if note["key"] != self.key:
                    continue
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            encoder.load_state_dict(_under("encoder.", tensors))
            moments: dict[int, dict[str, Tensor]] = {}
            for name, value in _under("optimiser.", tensors).items():
                place, _, moment = name.partition(".")
                moments.setdefault(int(place), {})[moment] = value
            for _ in range(note["steps"]):
                schedule.step()
            optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
            return State(note["epoch"], note["waited"], note["best_loss"], _under("best.", tensors))
        return None

    def _remove_all_but(self, kept: Path) -> None:
        for path in self.folder.glob(f"{self.prefix}*.safetensors"):
            if path != kept:
                path.unlink()


def clear_checkpoints(folder: Path) -> None:
    """Remove every checkpoint after the training."""
    for path in folder.glob(f"{PREFIX}*.safetensors"):
        path.unlink()


def fingerprint(
    encoder: nn.Module,
    samples: SampleSet,
    ids: Sequence[str],
    rows: NDArray[np.int64],
    options: str,
    seed: int,
) -> str:
    """Return a hash of a training's inputs: samples (through the closed form), options and seed."""
    digest = hashlib.sha256(json.dumps([options, seed, list(ids), list(samples.layers)]).encode())
    for name, value in encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().data)
    for column in (rows, samples.concept, samples.split, samples.named):
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
