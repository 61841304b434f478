"""What the encoder's fixed projections make of samples: the input of its trained part.

Training needs a sample in every epoch, and its projections on discriminants and canonical directions are the same each
time. For five layers of 640 they take a fifth of the activations' memory, with a shared space a third. Those of the
concepts' means are computed once, those of the samples, too, if they fit in MOST_BYTES.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encyclo_interpreters.sample_statistics import blocks
from encyclo_interpreters.transformer.training_data import TrainingData

MOST_BYTES = 2**28
"""The projections of more samples than fit in this are computed anew for each batch."""


@dataclass(frozen=True)
class Projected:
    """Projected samples.

    tokens:    float32 [n, L, width], on each layer's discriminants
    canonical: float32 [n, meaning], in the shared space; None without one
    """

    tokens: Tensor
    canonical: Tensor | None

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: NDArray[np.integer]) -> Projected:
        """Return the samples `rows`."""
        index = torch.from_numpy(rows.astype(np.int64)).to(self.tokens.device)
        return Projected(self.tokens[index], None if self.canonical is None else self.canonical[index])

    def blocks(self, size: int) -> Iterator[Projected]:
        """Yield the samples in slices of at most `size`."""
        for start in range(0, len(self), size):
            some = slice(start, start + size)
            yield Projected(self.tokens[some], None if self.canonical is None else self.canonical[some])

    def without(self, samples: Projected, weight: Tensor) -> Projected:
        """Return these means, each without one of its samples: mean + (mean - sample) * weight.

        `weight` [n] is 1 / (count - 1), or 0 to keep the sample. Projections are affine, so this is the projection of
        the mean without the sample.
        """
        tokens = torch.addcmul(self.tokens, self.tokens - samples.tokens, weight[:, None, None])
        if self.canonical is None or samples.canonical is None:
            return Projected(tokens, None)
        rest = self.canonical - samples.canonical
        return Projected(tokens, torch.addcmul(self.canonical, rest, weight[:, None]))


def joined(parts: Iterable[Projected], count: int) -> Projected:
    """Return the `count` samples of all parts, one after the other; beside them, only one part is in memory."""
    tokens, canonical, start = torch.empty(0), None, 0
    for part in parts:
        if start == 0:
            tokens = part.tokens.new_empty(count, *part.tokens.shape[1:])
            if part.canonical is not None:
                canonical = part.canonical.new_empty(count, *part.canonical.shape[1:])
        some = slice(start, start + len(part))
        tokens[some] = part.tokens
        if canonical is not None and part.canonical is not None:
            canonical[some] = part.canonical
        start = some.stop
    return Projected(tokens, canonical)


class Projector(Protocol):
    """What projects samples: an encoder."""

    @property
    def device(self) -> torch.device:
        """The device to compute on."""

    def projected(self, values: Tensor, named: Tensor) -> Projected:
        """Project samples, float32 [n, L, H]; `named` bool [n] says which of them name their concept."""


class ProjectedData:
    """The projections of a training's samples, and of its concepts' means (`means`)."""

    def __init__(self, encoder: Projector, data: TrainingData) -> None:
        self._encoder, self._samples = encoder, data.samples
        means = (self._project(block, np.ones(len(block), bool)) for block in blocks(data.means))
        self.means = joined(means, len(data.means))
        self._rows = np.union1d(data.rows, data.watched)
        self._known: Projected | None = None
        if len(self._rows) * _bytes_of_one(self.means) <= MOST_BYTES:
            self._known = joined((self._read(block) for block in blocks(self._rows)), len(self._rows))

    def samples(self, rows: NDArray[np.int64]) -> Projected:
        """Return the projections of training or watched rows."""
        if self._known is None:
            return self._read(rows)
        return self._known.take(np.searchsorted(self._rows, rows))

    def _read(self, rows: NDArray[np.int64]) -> Projected:
        return self._project(self._samples.read(rows), self._samples.named[rows])

    def _project(self, values: NDArray[np.float32], named: NDArray[np.bool_]) -> Projected:
        device = self._encoder.device
        given = torch.from_numpy(values).to(device), torch.from_numpy(named).to(device)
        # In float32, whatever the training's steps are computed in.
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            return self._encoder.projected(*given)


def _bytes_of_one(some: Projected) -> int:
    parts = [some.tokens, *([] if some.canonical is None else [some.canonical])]
    return sum(part[0].numel() * part.element_size() for part in parts)
