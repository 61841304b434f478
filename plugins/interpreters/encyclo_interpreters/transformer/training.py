"""Training: closed forms, a phase for descriptions, a phase for all samples, then prototypes.

A batch holds samples of distinct concepts, both mentions and descriptions. Each sample must find its concept among
the prototypes of the batch's concepts and of near concepts. A prototype is the embedding of a concept's signature;
the sample itself is left out of its concept's signature, or it would find itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from encyclo.seeds import derive_seed
from encyclo.types import Context, SampleSet
from encyclo_interpreters.provenance import trained_on
from encyclo_interpreters.sample_statistics import blocks
from encyclo_interpreters.transformer.cca import fit_canonical_space
from encyclo_interpreters.transformer.checkpoint import Checkpoint, clear_checkpoints, fingerprint
from encyclo_interpreters.transformer.description_training import train_on_descriptions
from encyclo_interpreters.transformer.hubness import fit_hubness
from encyclo_interpreters.transformer.interpreter import TransformerInterpreter, resolve_device
from encyclo_interpreters.transformer.lda import fit_discriminants
from encyclo_interpreters.transformer.losses import summed_cross_entropy, symmetric_cross_entropy
from encyclo_interpreters.transformer.network import BATCH, LayerEncoder
from encyclo_interpreters.transformer.options import Options
from encyclo_interpreters.transformer.projections import Projected, ProjectedData, joined
from encyclo_interpreters.transformer.training_data import TrainingData
from encyclo_interpreters.transformer.training_loop import TrainingPhase, distinct_batches, run_phase

NEAREST = 8
"""A hard negative is drawn from this many nearest concepts."""


def train(samples: SampleSet, ids: list[str], context: Context, options: Options) -> TransformerInterpreter:
    """Train an interpreter; the same samples and seed give the same weights on the same machine.

    Training never starts from an earlier stage's weights, so that a resumed run and `encyclo evaluate` agree.
    """
    seed = derive_seed(context.seed, "transformer") % 2**63
    generator = np.random.default_rng(seed)
    data = TrainingData.choose(samples, len(ids), generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder, shape = closed_form(data, options, seed, resolve_device(context.device))
        # Without a watched sample there is no early stopping: keep the closed form.
        if len(data.watched):
            run_phases(encoder, data, ids, context, options, seed)
    space = encoder.shared_space
    hubness = fit_hubness(encoder, space, data, generator) if space else None
    interpreter = TransformerInterpreter(encoder, shape, trained_on(samples, context), hubness)
    interpreter.add_concepts(ids, data.means)
    return interpreter


def closed_form(
    data: TrainingData, options: Options, seed: int, device: str
) -> tuple[LayerEncoder, dict[str, int | float]]:
    """Return the encoder before any training, and its shape."""
    centre, project = fit_discriminants(data, options.width)
    layers, hidden = centre.shape
    described = len(data.described_rows) > 0
    shape = {"layers": layers, "hidden": hidden, **options.shape(shared_space=described)}
    encoder = LayerEncoder(**shape)
    encoder.centre.copy_(torch.from_numpy(centre))
    encoder.project.copy_(torch.from_numpy(project))
    if encoder.shared_space is not None:
        encoder.shared_space.set_canonical(fit_canonical_space(data, options.meaning, seed))
    return encoder.to(device), shape


def run_phases(
    encoder: LayerEncoder,
    data: TrainingData,
    ids: list[str],
    context: Context,
    options: Options,
    seed: int,
) -> None:
    """Train the encoder in place: first on descriptions, if there are any, then on all samples.

    An interrupted training with the same encoder, samples and options resumes from its checkpoint.
    """

    def checkpoint(name: str) -> Checkpoint:
        key = fingerprint(encoder, data.samples, ids, data.rows, options.model_dump_json(), seed)
        return Checkpoint(context.folder, name, key)

    projected = ProjectedData(encoder, data)
    if encoder.shared_space is not None:
        train_on_descriptions(
            encoder, encoder.shared_space, data, projected, options, seed, checkpoint("descriptions")
        )
    near = nearest_concepts(encoder, projected.means, data.count, NEAREST if options.hard_negatives else 0)
    train_on_all(encoder, data, projected, near, options, seed, checkpoint("all"))
    clear_checkpoints(context.folder)


def train_on_all(
    encoder: LayerEncoder,
    data: TrainingData,
    projected: ProjectedData,
    near: NDArray[np.int32],
    options: Options,
    seed: int,
    checkpoint: Checkpoint,
) -> None:
    """Train the whole encoder in place on all samples; `near` int32 [C, k] holds each concept's nearest concepts."""

    def batches(epoch: int) -> Iterator[NDArray[np.int64]]:
        return distinct_batches(
            data.samples.concept, data.rows, options.batch, np.random.default_rng([seed, epoch])
        )

    phase = TrainingPhase(
        parameters=list(encoder.parameters()),
        batches=batches,
        loss=lambda batch, generator: batch_loss(encoder, data, projected, near, batch, generator),
        watched=lambda: validation_loss(encoder, data, projected),
        epochs=options.epochs,
        epoch_steps=options.epoch_steps,
        patience=options.patience,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        precision=options.precision,
    )
    run_phase(encoder, phase, seed, checkpoint)


def batch_loss(
    encoder: LayerEncoder,
    data: TrainingData,
    projected: ProjectedData,
    near: NDArray[np.int32],
    batch: NDArray[np.int64],
    generator: np.random.Generator,
) -> torch.Tensor:
    """Return the symmetric cross-entropy of a batch over the prototypes of its concepts and of near concepts."""
    samples, count = data.samples, data.count
    truth, named = samples.concept[batch], samples.named[batch]
    own = projected.samples(batch)
    # Leave the sample out of its concept's mean; descriptions were never part of it.
    inside = named & (count[truth] > 1)
    weight = np.where(inside, 1 / np.maximum(count[truth] - 1, 1), 0).astype(np.float32)
    means = projected.means.take(truth).without(own, torch.from_numpy(weight).to(encoder.device))
    given = [own, means]
    if near.shape[1]:
        drawn = near[truth, generator.integers(near.shape[1], size=len(truth))]
        given.append(projected.means.take(np.setdiff1d(drawn, truth)))
    both = joined(given, sum(map(len, given)))
    kinds = torch.ones(len(both), dtype=torch.bool, device=encoder.device)
    kinds[: len(batch)] = torch.from_numpy(named).to(encoder.device)
    embedded = encoder.embed(both, kinds).float()
    return symmetric_cross_entropy(embedded[: len(batch)] @ embedded[len(batch) :].T * encoder.scale())


def validation_loss(encoder: LayerEncoder, data: TrainingData, projected: ProjectedData) -> float:
    """Return the mean cross-entropy of the watched rows over all concepts; both kinds of sample weigh the same."""
    encoder.eval()
    samples, rows = data.samples, data.watched
    losses = []
    with torch.inference_mode():
        prototypes = encoder.embed_means(projected.means)
        for kind in (True, False):
            chosen = rows[samples.named[rows] == kind]
            total = sum(
                _summed_loss(encoder, prototypes, samples, projected, block) for block in blocks(chosen)
            )
            losses += [total / len(chosen)] if len(chosen) else []
    return float(np.mean(losses))


def _summed_loss(
    encoder: LayerEncoder,
    prototypes: torch.Tensor,
    samples: SampleSet,
    projected: ProjectedData,
    rows: NDArray[np.int64],
) -> float:
    named = torch.from_numpy(samples.named[rows]).to(encoder.device)
    logits = encoder.embed(projected.samples(rows), named) @ prototypes.T * encoder.scale()
    return summed_cross_entropy(logits, samples.concept[rows])


def nearest_concepts(
    encoder: LayerEncoder, means: Projected, count: NDArray[np.int64], nearest: int
) -> NDArray[np.int32]:
    """Return each concept's nearest concepts among those with samples: int32 [C, at most `nearest`].

    Computed once, with the untrained encoder: for 50,000 concepts a search costs as much as an epoch.
    """
    encoder.eval()
    nearest = min(nearest, int((count > 0).sum()) - 1)
    if nearest <= 0:
        return np.empty((len(count), 0), np.int32)
    with torch.inference_mode():
        prototypes = encoder.embed_means(means)
        without = torch.from_numpy(count == 0).to(prototypes.device)
        neighbours = []
        for start in range(0, len(prototypes), BATCH):
            cosine = prototypes[start : start + BATCH] @ prototypes.T
            cosine[:, without] = -torch.inf
            cosine[torch.arange(len(cosine)), torch.arange(start, start + len(cosine))] = -torch.inf
            neighbours.append(cosine.topk(nearest, dim=1).indices.cpu().numpy().astype(np.int32))
    return np.concatenate(neighbours)
