"""The training phase for descriptions: trains the shared space's corrections on large batches.

A description must be distinguished from every concept in the list, and a batch of 256 holds few of them. The shared
space uses no attention across layers, so comparisons are cheap and a batch can hold thousands of descriptions. Each
description must find its concept's signature among the batch's signatures, and each signature its description.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from encyclo.seeds import derive_seed
from encyclo_interpreters.sample_statistics import blocks
from encyclo_interpreters.transformer.cca import DESCRIBED, NAMED
from encyclo_interpreters.transformer.checkpoint import Checkpoint
from encyclo_interpreters.transformer.losses import summed_cross_entropy, symmetric_cross_entropy
from encyclo_interpreters.transformer.network import LayerEncoder, SharedSpace
from encyclo_interpreters.transformer.options import Options
from encyclo_interpreters.transformer.projections import ProjectedData
from encyclo_interpreters.transformer.training_data import TrainingData
from encyclo_interpreters.transformer.training_loop import TrainingPhase, distinct_batches, run_phase

FEWEST_STEPS = 60
"""Steps of the phase, at least; few descriptions are trained on for more epochs."""


def train_on_descriptions(
    encoder: LayerEncoder,
    space: SharedSpace,
    data: TrainingData,
    projected: ProjectedData,
    options: Options,
    seed: int,
    checkpoint: Checkpoint,
) -> None:
    """Train the corrections of `space`, the encoder's shared space, in place."""
    samples, rows = data.samples, data.described_rows
    if not len(data.described_watched):
        return

    def batches(epoch: int) -> Iterator[NDArray[np.int64]]:
        generator = np.random.default_rng([seed, epoch])
        return distinct_batches(samples.concept, rows, options.meaning_batch, generator)

    def loss(batch: NDArray[np.int64], generator: np.random.Generator) -> torch.Tensor:
        given, means = projected.samples(batch), projected.means.take(samples.concept[batch])
        assert given.canonical is not None and means.canonical is not None
        descriptions = space.corrected(given.canonical, DESCRIBED).float()
        signatures = space.corrected(means.canonical, NAMED).float()
        cosine = descriptions @ signatures.T
        return symmetric_cross_entropy(cosine * space.description_scale * encoder.scale().detach())

    steps = max(1, sum(1 for _ in batches(0)))
    phase = TrainingPhase(
        parameters=[*space.correct.parameters(), space.description_scale],
        batches=batches,
        loss=loss,
        watched=lambda: described_loss(encoder, space, data, projected),
        epochs=max(options.meaning_epochs, -(-FEWEST_STEPS // steps)),
        epoch_steps=steps,
        patience=options.patience,
        learning_rate=options.meaning_rate,
        weight_decay=options.weight_decay,
        precision=options.precision,
    )
    run_phase(encoder, phase, derive_seed(seed, "meaning") % 2**63, checkpoint)


def described_loss(
    encoder: LayerEncoder, space: SharedSpace, data: TrainingData, projected: ProjectedData
) -> float:
    """Return the mean cross-entropy of the watched descriptions over all concepts."""
    encoder.eval()
    rows, total = data.described_watched, 0.0
    with torch.inference_mode():
        assert projected.means.canonical is not None
        prototypes = space.corrected(projected.means.canonical, NAMED)
        for block in blocks(rows, 512):
            given = projected.samples(block).canonical
            assert given is not None
            cosine = space.corrected(given, DESCRIBED) @ prototypes.T
            logits = cosine * space.description_scale * encoder.scale()
            total += summed_cross_entropy(logits, data.samples.concept[block])
    return total / len(rows)
