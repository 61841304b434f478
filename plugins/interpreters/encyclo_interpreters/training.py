"""Training, straight down: closed forms, batches, loss, step, early stopping, prototypes.

A batch holds samples of distinct concepts. Each must find its own concept among the batch's prototypes and
those of near concepts: the embeddings of the concepts' signatures, from which the sample itself is left out
(else it would find itself). Samples that describe their concept stand in the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from encyclo.seeds import derive_seed
from encyclo.types import Context, SampleSet, Split
from encyclo_interpreters.checkpoint import Checkpoint, State, fingerprint
from encyclo_interpreters.discriminant import fit_discriminants
from encyclo_interpreters.network import LayerEncoder
from encyclo_interpreters.reader import BATCH, TransformerInterpreter
from encyclo_interpreters.shared_space import fit_shared_space
from encyclo_interpreters.statistics import blocks, training_means
from encyclo_interpreters.trained_on import trained_on

if TYPE_CHECKING:
    from encyclo_interpreters.transformer import Options

CLIP = 1.0
WARM_UP = 0.1
FEWEST_DESCRIBED = 100
"""Described concepts below which no shared space is fitted: it would be noise."""
WATCHED_CONCEPTS = 0.05
"""Share of the described concepts whose descriptions only say when to stop."""
MOST_WATCHED = 4096
"""Samples of a kind that the validation loss is taken over."""
NEAREST = 8
"""How many near concepts a hard negative is drawn from."""


@dataclass(frozen=True)
class Material:
    """What training reads.

    rows train, `watched` say when to stop: int64. means float32 [C, L, H] and count [C] are the concepts' over
    their named training samples; nearest int32 [C, k] each concept's nearest ones (k may be 0).
    """

    samples: SampleSet
    rows: NDArray[np.int64]
    watched: NDArray[np.int64]
    means: NDArray[np.float32]
    count: NDArray[np.int64]
    nearest: NDArray[np.int32]


def train(samples: SampleSet, ids: list[str], context: Context, options: Options) -> TransformerInterpreter:
    """Train an interpreter; the same seed gives the same weights on the same machine.

    Begins from the weights of `context.interpreter` (an earlier stage's) where those lose less on the
    samples that training watches than the closed form does.
    """
    seed = derive_seed(context.seed, "transformer") % 2**63
    rows, watched = choose_rows(samples, np.random.default_rng(seed))
    means, count = training_means(samples, rows, len(ids))
    # A description of a concept that no training sample names has no signature to find.
    rows, watched = (some[count[samples.concept[some]] > 0] for some in (rows, watched))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder, shape = closed_form(samples, rows, means, count, options, seed, context.device)
        before = context.interpreter
        if isinstance(before, TransformerInterpreter) and before.shape == shape and len(watched):
            closed = Material(samples, rows, watched, means, count, np.empty((len(ids), 0), np.int32))
            earlier = before.encoder.to(context.device)
            if validation_loss(earlier, closed) < validation_loss(encoder, closed):
                encoder.load_state_dict(earlier.state_dict())
        # Without anything to watch, nothing would say when to stop: the closed form stays as it is.
        if len(watched):
            nearest = nearest_concepts(encoder, means, count, NEAREST if options.hard_negatives else 0)
            material = Material(samples, rows, watched, means, count, nearest)
            key = fingerprint(encoder, samples, ids, rows, options.model_dump_json(), seed)
            fit(encoder, material, options, seed, Checkpoint(context.folder, key))
    interpreter = TransformerInterpreter(encoder, shape, trained_on(samples, context), context.device)
    interpreter.add_concepts(ids, means)
    return interpreter


def choose_rows(
    samples: SampleSet, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (rows that train, rows that are watched).

    Watched are the validation families' samples that name, and the descriptions of a few concepts in every
    family: what is asked of a description is to find a concept whose descriptions were never met.
    """
    rows, validation = samples.rows(Split.TRAIN), samples.rows(Split.VALIDATION)
    named = samples.named[validation]
    watched = _thinned(validation[named], generator)
    described = np.unique(samples.concept[rows[~samples.named[rows]]])
    if len(described) >= FEWEST_DESCRIBED:
        kept = generator.choice(described, max(1, int(WATCHED_CONCEPTS * len(described))), replace=False)
        apart = ~samples.named[rows] & np.isin(samples.concept[rows], kept)
        watched = np.concatenate([watched, _thinned(rows[apart], generator)])
        rows = rows[~apart]
    else:
        rows = rows[samples.named[rows]]
    return rows, watched


def _thinned(rows: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    return rows if len(rows) <= MOST_WATCHED else np.sort(generator.choice(rows, MOST_WATCHED, replace=False))


def closed_form(
    samples: SampleSet,
    rows: NDArray[np.int64],
    means: NDArray[np.float32],
    count: NDArray[np.int64],
    options: Options,
    seed: int,
    device: str,
) -> tuple[LayerEncoder, dict[str, int | float]]:
    """Return the encoder before any training, and its shape."""
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


def fit(
    encoder: LayerEncoder, material: Material, options: Options, seed: int, checkpoint: Checkpoint
) -> None:
    """Fit the encoder in place; the epoch (none included) with the lowest validation loss stays.

    After each epoch a checkpoint is written; where one of this very training lies in the folder, training
    goes on from it. Every epoch draws from its own seed, so that the result is the same.
    """

    def batches(epoch: int) -> Iterator[NDArray[np.int64]]:
        return distinct_batches(
            material.samples.concept, material.rows, options.batch, np.random.default_rng([seed, epoch])
        )

    epoch_steps = min(sum(1 for _ in batches(0)), options.epoch_steps)
    if epoch_steps == 0:
        return
    optimiser = torch.optim.AdamW(
        encoder.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, options.learning_rate, total_steps=options.epochs * epoch_steps + 1, pct_start=WARM_UP
    )
    state = checkpoint.load(encoder, optimiser, schedule)
    if state is None:
        state = State(0, 0, validation_loss(encoder, material), checkpoint.copy(encoder))
    while state.epoch < options.epochs and state.waited < options.patience:
        epoch = state.epoch
        torch.manual_seed(derive_seed(seed, "epoch", epoch) % 2**63)
        generator = np.random.default_rng([seed, epoch, 1])
        encoder.train()
        for _, batch in zip(range(epoch_steps), batches(epoch), strict=False):
            with autocast(options.precision, encoder.centre.device.type):
                loss = batch_loss(encoder, material, batch, generator)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(encoder.parameters(), CLIP)
            optimiser.step()
            schedule.step()
        state = state.after(epoch + 1, validation_loss(encoder, material), encoder)
        checkpoint.save(state, encoder, optimiser, schedule)
    encoder.load_state_dict(state.best)
    checkpoint.clear()


def autocast(precision: str, device: str) -> torch.autocast:
    """Return the context in which a step is computed; auto takes bfloat16 on CUDA alone.

    On a CPU it has to be asked for: whether it is faster there has not been measured.
    """
    enabled = precision == "bfloat16" or (precision == "auto" and device == "cuda")
    return torch.autocast(device, torch.bfloat16, enabled=enabled)


def distinct_batches(
    concept: NDArray[np.int32], rows: NDArray[np.int64], size: int, generator: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Yield every row once, in shuffled batches of at most `size` rows of distinct concepts.

    Round k holds the k-th row (in a random order) of every concept that has so many; rounds are cut into
    batches. A batch of one row is left out: it has no other concept to be told from.
    """
    order = generator.permutation(len(rows))
    by_concept = order[np.argsort(concept[rows][order], kind="stable")]
    _, first, count = np.unique(concept[rows][by_concept], return_index=True, return_counts=True)
    turn = np.arange(len(rows)) - np.repeat(first, count)
    batches = []
    for k in range(int(count.max(initial=0))):
        members = generator.permutation(by_concept[turn == k])
        pieces = np.array_split(members, max(1, -(-len(members) // size)))
        batches += [rows[piece] for piece in pieces if len(piece) > 1]
    for index in generator.permutation(len(batches)):
        yield batches[index]


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
