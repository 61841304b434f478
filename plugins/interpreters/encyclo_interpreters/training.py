"""Training, straight down: discriminants, batches, loss, step, early stopping, prototypes.

A batch holds samples of distinct concepts. Each must find its own concept among the batch's prototypes: the
embeddings of the concepts' signatures, from which the sample itself is left out (else it would find itself).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from encyclo.seeds import derive_seed
from encyclo.types import Context, SampleSet, Split
from encyclo_interpreters.discriminant import fit_discriminants
from encyclo_interpreters.network import LayerEncoder
from encyclo_interpreters.reader import TransformerInterpreter
from encyclo_interpreters.statistics import training_means
from encyclo_interpreters.trained_on import trained_on

if TYPE_CHECKING:
    from encyclo_interpreters.transformer import Options

CLIP = 1.0
WARM_UP = 0.1


def train(samples: SampleSet, ids: list[str], context: Context, options: Options) -> TransformerInterpreter:
    """Train an interpreter; the same seed gives the same weights on the same machine."""
    seed = derive_seed(context.seed, "transformer") % 2**63
    rows, watched = samples.rows(Split.TRAIN), samples.rows(Split.VALIDATION)
    means, count = training_means(samples, rows, len(ids))
    centre, project = fit_discriminants(samples, rows, means, count, options.width)
    shape = {"layers": centre.shape[0], "hidden": centre.shape[1], **options.shape()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = LayerEncoder(**shape).to(context.device)
        encoder.centre.copy_(torch.from_numpy(centre))
        encoder.project.copy_(torch.from_numpy(project))
        # Without a family to watch, nothing would say when to stop: the discriminants stay as they are.
        if len(watched):
            fit(encoder, samples, rows, watched, means, count, options, np.random.default_rng(seed))
    interpreter = TransformerInterpreter(encoder, shape, trained_on(samples, context), context.device)
    interpreter.add_concepts(ids, means)
    return interpreter


def fit(
    encoder: LayerEncoder,
    samples: SampleSet,
    rows: NDArray[np.int64],
    watched: NDArray[np.int64],
    means: NDArray[np.float32],
    count: NDArray[np.int64],
    options: Options,
    generator: np.random.Generator,
) -> None:
    """Fit the encoder's blocks in place; the epoch (none included) with the lowest validation loss stays."""
    epoch_steps = sum(1 for _ in distinct_batches(samples.concept, rows, options.batch, generator))
    if epoch_steps == 0:
        return
    optimiser = torch.optim.AdamW(
        encoder.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, options.learning_rate, total_steps=options.epochs * epoch_steps + 1, pct_start=WARM_UP
    )
    best, waited = copy.deepcopy(encoder.state_dict()), 0
    best_loss = validation_loss(encoder, samples, watched, means)
    for _ in range(options.epochs):
        encoder.train()
        for batch in distinct_batches(samples.concept, rows, options.batch, generator):
            loss = batch_loss(encoder, samples, batch, means, count)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(encoder.parameters(), CLIP)
            optimiser.step()
            schedule.step()
        loss_now = validation_loss(encoder, samples, watched, means)
        if loss_now < best_loss:
            best, best_loss, waited = copy.deepcopy(encoder.state_dict()), loss_now, 0
        else:
            waited += 1
            if waited >= options.patience:
                break
    encoder.load_state_dict(best)


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
    for k in range(int(count.max())):
        members = generator.permutation(by_concept[turn == k])
        pieces = np.array_split(members, max(1, -(-len(members) // size)))
        batches += [rows[piece] for piece in pieces if len(piece) > 1]
    for index in generator.permutation(len(batches)):
        yield batches[index]


def batch_loss(
    encoder: LayerEncoder,
    samples: SampleSet,
    batch: NDArray[np.int64],
    means: NDArray[np.float32],
    count: NDArray[np.int64],
) -> torch.Tensor:
    """Return the cross-entropy of finding each sample's concept among the batch's prototypes."""
    device = encoder.centre.device
    own = samples.concept[batch]
    values = samples.read(batch)
    # Leave the sample out of its concept's mean; a sample that names nothing was never in it.
    inside = samples.named[batch] & (count[own] > 1)
    weight = np.where(inside, 1 / np.maximum(count[own] - 1, 1), 0).astype(np.float32)[:, None, None]
    signatures = means[own] + (means[own] - values) * weight
    embedded = encoder(torch.from_numpy(np.concatenate([values, signatures])).to(device))
    logits = embedded[: len(batch)] @ embedded[len(batch) :].T * encoder.scale()
    target = torch.arange(len(batch), device=device)
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


def validation_loss(
    encoder: LayerEncoder, samples: SampleSet, rows: NDArray[np.int64], means: NDArray[np.float32]
) -> float:
    """Return the mean cross-entropy over `rows` among all concepts."""
    encoder.eval()
    device = encoder.centre.device
    with torch.inference_mode():
        prototypes = torch.cat([encoder(torch.from_numpy(piece).to(device)) for piece in _pieces(means)])
        total = 0.0
        for start in range(0, len(rows), 1024):
            some = rows[start : start + 1024]
            logits = encoder(torch.from_numpy(samples.read(some)).to(device)) @ prototypes.T * encoder.scale()
            target = torch.from_numpy(samples.concept[some].astype(np.int64)).to(device)
            total += float(cross_entropy(logits, target, reduction="sum"))
    return total / len(rows)


def _pieces(values: NDArray[np.float32], size: int = 1024) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
