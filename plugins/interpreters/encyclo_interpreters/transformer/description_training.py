"""A course for descriptions: the shared space's corrections, trained on large batches.

A description has to be told from every concept of the list, and a batch of 256 shows it few of them. Comparing
meanings is cheap, since words and the attention across layers play no part, so that a batch holds thousands of
descriptions, each of which must find its own concept's signature among the batch's, and the other way round.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from encyclo.seeds import derive_seed
from encyclo_interpreters.sample_statistics import blocks
from encyclo_interpreters.transformer.cca import DESCRIBED, NAMED
from encyclo_interpreters.transformer.checkpoint import Checkpoint
from encyclo_interpreters.transformer.network import LayerEncoder, Meaning
from encyclo_interpreters.transformer.options import Options
from encyclo_interpreters.transformer.training_data import Material
from encyclo_interpreters.transformer.training_loop import Course, distinct_batches, run_course

FEWEST_STEPS = 60
"""A few descriptions are gone through more often, until so many steps are made."""


def fit_meaning(
    encoder: LayerEncoder,
    meaning: Meaning,
    material: Material,
    options: Options,
    seed: int,
    checkpoint: Checkpoint,
) -> None:
    """Train the corrections of `meaning`, the encoder's own, in place."""
    samples = material.samples
    rows = material.rows[~samples.named[material.rows]]
    watched = material.watched[~samples.named[material.watched]]
    if not len(watched):
        return

    def batches(epoch: int) -> Iterator[NDArray[np.int64]]:
        generator = np.random.default_rng([seed, epoch])
        return distinct_batches(samples.concept, rows, options.meaning_batch, generator)

    def loss(batch: NDArray[np.int64], generator: np.random.Generator) -> torch.Tensor:
        told = _embedded(meaning, samples.read(batch), DESCRIBED)
        meant = _embedded(meaning, material.means[samples.concept[batch]], NAMED)
        logits = told @ meant.T * meaning.describing * encoder.scale().detach()
        target = torch.arange(len(batch), device=logits.device)
        return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2

    steps = max(1, sum(1 for _ in batches(0)))
    course = Course(
        parameters=[*meaning.correct.parameters(), meaning.describing],
        batches=batches,
        loss=loss,
        watched=lambda: described_loss(encoder, meaning, material, watched),
        epochs=max(options.meaning_epochs, -(-FEWEST_STEPS // steps)),
        epoch_steps=steps,
        patience=options.patience,
        learning_rate=options.meaning_rate,
        weight_decay=options.weight_decay,
        precision=options.precision,
    )
    run_course(encoder, course, derive_seed(seed, "meaning") % 2**63, checkpoint)


def described_loss(
    encoder: LayerEncoder, meaning: Meaning, material: Material, rows: NDArray[np.int64]
) -> float:
    """Return the mean cross-entropy of finding the concepts of descriptions among all concepts."""
    encoder.eval()
    with torch.inference_mode():
        prototypes = meanings_of(meaning, material.means)
        total = 0.0
        for some in blocks(rows, 512):
            told = _embedded(meaning, material.samples.read(some), DESCRIBED)
            logits = told @ prototypes.T * meaning.describing * encoder.scale()
            target = torch.from_numpy(material.samples.concept[some].astype(np.int64)).to(logits.device)
            total += float(cross_entropy(logits, target, reduction="sum"))
    return total / len(rows)


def meanings_of(meaning: Meaning, signatures: NDArray[np.float32]) -> torch.Tensor:
    """Return the unit meanings of signatures, float32 [C, K]."""
    pieces = [_embedded(meaning, signatures[some], NAMED) for some in blocks(np.arange(len(signatures)))]
    return torch.cat(pieces)


def _embedded(meaning: Meaning, values: NDArray[np.float32], kind: int) -> torch.Tensor:
    return meaning.embed(torch.from_numpy(values).to(meaning.stretch.device), kind).float()
