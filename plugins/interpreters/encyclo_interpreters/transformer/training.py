"""Training, straight down: closed forms, a course for descriptions, a course for all, prototypes.

A batch holds samples of distinct concepts. Each must find its own concept among the batch's prototypes and
those of near concepts: the embeddings of the concepts' signatures, from which the sample itself is left out
(else it would find itself). Samples that describe their concept stand in the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from encyclo.seeds import derive_seed
from encyclo.types import Context, SampleSet
from encyclo_interpreters.provenance import trained_on
from encyclo_interpreters.sample_statistics import blocks, training_means
from encyclo_interpreters.transformer import checkpoint
from encyclo_interpreters.transformer.cca import fit_shared_space
from encyclo_interpreters.transformer.checkpoint import Checkpoint, fingerprint
from encyclo_interpreters.transformer.description_training import fit_meaning
from encyclo_interpreters.transformer.hubness import fit_crowding
from encyclo_interpreters.transformer.interpreter import BATCH, TransformerInterpreter
from encyclo_interpreters.transformer.lda import fit_discriminants
from encyclo_interpreters.transformer.network import LayerEncoder
from encyclo_interpreters.transformer.options import Options
from encyclo_interpreters.transformer.training_data import Material, choose_rows
from encyclo_interpreters.transformer.training_loop import Course, distinct_batches, run_course

NEAREST = 8
"""How many near concepts a hard negative is drawn from."""


def train(samples: SampleSet, ids: list[str], context: Context, options: Options) -> TransformerInterpreter:
    """Train an interpreter; the same seed gives the same weights on the same machine.

    Begins from the weights of `context.interpreter` (an earlier stage's) where those lose less on the
    samples that training watches than the closed form does.
    """
    seed = derive_seed(context.seed, "transformer") % 2**63
    generator = np.random.default_rng(seed)
    rows, watched = choose_rows(samples, generator)
    means, count = training_means(samples, rows, len(ids))
    # A description of a concept that no training sample names has no signature to find.
    rows, watched = (some[count[samples.concept[some]] > 0] for some in (rows, watched))
    material = Material(samples, rows, watched, means, count, np.empty((len(ids), 0), np.int32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder, shape = closed_form(material, options, seed, context.device)
        before = context.interpreter
        if isinstance(before, TransformerInterpreter) and before.shape == shape and len(watched):
            earlier = before.encoder.to(context.device)
            if validation_loss(earlier, material) < validation_loss(encoder, material):
                encoder.load_state_dict(earlier.state_dict())
        # Without anything to watch, nothing would say when to stop: the closed form stays as it is.
        if len(watched):
            take_courses(encoder, material, ids, context, options, seed)
    crowding = fit_crowding(encoder, encoder.meaning, material, generator) if encoder.meaning else None
    interpreter = TransformerInterpreter(
        encoder, shape, trained_on(samples, context), context.device, crowding
    )
    interpreter.add_concepts(ids, means)
    return interpreter


def closed_form(
    material: Material, options: Options, seed: int, device: str
) -> tuple[LayerEncoder, dict[str, int | float]]:
    """Return the encoder before any training, and its shape."""
    samples, rows, means, count = material.samples, material.rows, material.means, material.count
    centre, project = fit_discriminants(samples, rows, means, count, options.width)
    described = rows[~samples.named[rows]]
    shape = {
        "layers": centre.shape[0],
        "hidden": centre.shape[1],
        **options.shape(meaning=len(described) > 0),
    }
    encoder = LayerEncoder(**shape)
    encoder.centre.copy_(torch.from_numpy(centre))
    encoder.project.copy_(torch.from_numpy(project))
    if encoder.meaning is not None:
        encoder.meaning.set_space(fit_shared_space(samples, described, means, count, options.meaning, seed))
    return encoder.to(device), shape


def take_courses(
    encoder: LayerEncoder,
    material: Material,
    ids: list[str],
    context: Context,
    options: Options,
    seed: int,
) -> None:
    """Train the encoder in place: descriptions first, where there are any, then all samples together.

    A training of the same encoder, samples and options that was killed goes on where it was.
    """

    def kept(name: str) -> Checkpoint:
        key = fingerprint(encoder, material.samples, ids, material.rows, options.model_dump_json(), seed)
        return Checkpoint(context.folder, name, key)

    if encoder.meaning is not None:
        fit_meaning(encoder, encoder.meaning, material, options, seed, kept("meaning"))
    near = nearest_concepts(encoder, material.means, material.count, NEAREST if options.hard_negatives else 0)
    fit(encoder, replace(material, nearest=near), options, seed, kept("all"))
    checkpoint.clear(context.folder)


def fit(
    encoder: LayerEncoder, material: Material, options: Options, seed: int, checkpoint: Checkpoint
) -> None:
    """Fit the whole encoder in place to all samples."""

    def batches(epoch: int) -> Iterator[NDArray[np.int64]]:
        return distinct_batches(
            material.samples.concept, material.rows, options.batch, np.random.default_rng([seed, epoch])
        )

    course = Course(
        parameters=list(encoder.parameters()),
        batches=batches,
        loss=lambda batch, generator: batch_loss(encoder, material, batch, generator),
        watched=lambda: validation_loss(encoder, material),
        epochs=options.epochs,
        epoch_steps=options.epoch_steps,
        patience=options.patience,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        precision=options.precision,
    )
    run_course(encoder, course, seed, checkpoint)


def batch_loss(
    encoder: LayerEncoder,
    material: Material,
    batch: NDArray[np.int64],
    generator: np.random.Generator,
) -> torch.Tensor:
    """Return the cross-entropy of finding each sample's concept among the batch's prototypes and near ones."""
    samples, means, count = material.samples, material.means, material.count
    device = encoder.centre.device
    own, named = samples.concept[batch], samples.named[batch]
    values = samples.read(batch)
    # Leave the sample out of its concept's mean; a sample that names nothing was never in it.
    inside = named & (count[own] > 1)
    weight = np.where(inside, 1 / np.maximum(count[own] - 1, 1), 0).astype(np.float32)[:, None, None]
    signatures = means[own] + (means[own] - values) * weight
    near = material.nearest[own]
    if near.shape[1]:
        drawn = near[np.arange(len(own)), generator.integers(near.shape[1], size=len(own))]
        signatures = np.concatenate([signatures, means[np.setdiff1d(drawn, own)]])
    kinds = torch.from_numpy(np.concatenate([named, np.ones(len(signatures), bool)])).to(device)
    embedded = encoder(torch.from_numpy(np.concatenate([values, signatures])).to(device), kinds).float()
    logits = embedded[: len(batch)] @ embedded[len(batch) :].T * encoder.scale()
    target = torch.arange(len(batch), device=device)
    return (cross_entropy(logits, target) + cross_entropy(logits[:, : len(batch)].T, target)) / 2


def validation_loss(encoder: LayerEncoder, material: Material) -> float:
    """Return the cross-entropy over the watched rows among all concepts; named and described weigh the same."""
    encoder.eval()
    samples, rows = material.samples, material.watched
    losses = []
    with torch.inference_mode():
        prototypes = embed_signatures(encoder, material.means)
        for kind in (True, False):
            chosen = rows[samples.named[rows] == kind]
            total = sum(_summed_loss(encoder, prototypes, samples, some) for some in blocks(chosen))
            losses += [total / len(chosen)] if len(chosen) else []
    return float(np.mean(losses))


def _summed_loss(
    encoder: LayerEncoder, prototypes: torch.Tensor, samples: SampleSet, rows: NDArray[np.int64]
) -> float:
    device = prototypes.device
    named = torch.from_numpy(samples.named[rows]).to(device)
    logits = encoder(torch.from_numpy(samples.read(rows)).to(device), named) @ prototypes.T * encoder.scale()
    target = torch.from_numpy(samples.concept[rows].astype(np.int64)).to(device)
    return float(cross_entropy(logits, target, reduction="sum"))


def embed_signatures(encoder: LayerEncoder, means: NDArray[np.float32]) -> torch.Tensor:
    """Return the prototypes of signatures, in evaluation mode: float32 [C, width]."""
    device = encoder.centre.device
    pieces = []
    for start in range(0, len(means), BATCH):
        values = torch.from_numpy(means[start : start + BATCH]).to(device)
        pieces.append(encoder(values, torch.ones(len(values), dtype=torch.bool, device=device)))
    return torch.cat(pieces)


def nearest_concepts(
    encoder: LayerEncoder, means: NDArray[np.float32], count: NDArray[np.int64], nearest: int
) -> NDArray[np.int32]:
    """Return each concept's nearest ones that have samples: int32 [C, at most `nearest`].

    As the untrained encoder has it; once, since a look through 50,000 concepts costs as much as an epoch.
    """
    encoder.eval()
    nearest = min(nearest, int((count > 0).sum()) - 1)
    if nearest <= 0:
        return np.empty((len(means), 0), np.int32)
    with torch.inference_mode():
        prototypes = embed_signatures(encoder, means)
        without = torch.from_numpy(count == 0).to(prototypes.device)
        found = []
        for start in range(0, len(prototypes), BATCH):
            cosine = prototypes[start : start + BATCH] @ prototypes.T
            cosine[:, without] = -torch.inf
            cosine[torch.arange(len(cosine)), torch.arange(start, start + len(cosine))] = -torch.inf
            found.append(cosine.topk(nearest, dim=1).indices.cpu().numpy().astype(np.int32))
    return np.concatenate(found)
