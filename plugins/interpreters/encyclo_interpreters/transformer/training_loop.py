"""The training loop: batches, loss, step, early stopping, checkpoints.

A training has one or more phases. Each phase trains some of the encoder's weights by its own loss, and keeps the
weights with the lowest loss on the watched samples; these may be the weights before its first epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from encyclo.seeds import derive_seed
from encyclo_interpreters.transformer.checkpoint import Checkpoint, State

CLIP = 1.0
WARM_UP = 0.1
CHECKPOINT_SECONDS = 5.0
"""At least this long lies between two checkpoints: writing one takes 0.07 s, which adds up in short epochs."""


@dataclass(frozen=True)
class TrainingPhase:
    """One phase: the weights to train, the loss, the batches, and when to stop.

    batches: return an epoch's batches of rows, int64, in an order that depends only on the epoch
    loss:    return a batch's loss, given the epoch's random generator
    watched: return the loss over the watched samples
    """

    parameters: list[torch.nn.Parameter]
    batches: Callable[[int], Iterator[NDArray[np.int64]]]
    loss: Callable[[NDArray[np.int64], np.random.Generator], torch.Tensor]
    watched: Callable[[], float]
    epochs: int
    epoch_steps: int
    patience: int
    learning_rate: float
    weight_decay: float
    precision: str


def run_phase(encoder: torch.nn.Module, phase: TrainingPhase, seed: int, checkpoint: Checkpoint) -> None:
    """Train the encoder in place, from the phase's checkpoint if there is one.

    Every epoch has its own seed, so that a resumed phase gives the same weights.
    """
    epoch_steps = min(sum(1 for _ in phase.batches(0)), phase.epoch_steps)
    if epoch_steps == 0:
        return
    # Fused: one pass over the weights, a quarter of the time.
    optimiser = torch.optim.AdamW(
        phase.parameters, lr=phase.learning_rate, weight_decay=phase.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, phase.learning_rate, total_steps=phase.epochs * epoch_steps + 1, pct_start=WARM_UP
    )
    state = checkpoint.load(encoder, optimiser, schedule)
    if state is None:
        state = State(0, 0, phase.watched(), checkpoint.copy(encoder))
    device, saved = phase.parameters[0].device.type, time.monotonic()
    while state.epoch < phase.epochs and state.waited < phase.patience:
        epoch = state.epoch
        torch.manual_seed(derive_seed(seed, "epoch", epoch) % 2**63)
        generator = np.random.default_rng([seed, epoch, 1])
        encoder.train()
        for _, batch in zip(range(epoch_steps), phase.batches(epoch), strict=False):
            with autocast(phase.precision, device):
                loss = phase.loss(batch, generator)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(phase.parameters, CLIP)
            optimiser.step()
            schedule.step()
        state = state.after(epoch + 1, phase.watched(), encoder)
        if time.monotonic() - saved >= CHECKPOINT_SECONDS:
            checkpoint.save(state, encoder, optimiser, schedule)
            saved = time.monotonic()
    encoder.load_state_dict(state.best)


def autocast(precision: str, device: str) -> torch.autocast:
    """Return the context that a step is computed in; `auto` uses bfloat16 only on CUDA.

    A CPU uses bfloat16 only for `bfloat16`: its speed there has not been measured.
    """
    enabled = precision == "bfloat16" or (precision == "auto" and device == "cuda")
    return torch.autocast(device, torch.bfloat16, enabled=enabled)


def distinct_batches(
    concept: NDArray[np.int32], rows: NDArray[np.int64], size: int, generator: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Yield every row once, in shuffled batches of at most `size` rows of distinct concepts.

    Round k holds the k-th row, in random order, of every concept with at least k rows; each round is cut into
    batches. A batch of one row is dropped, since it has no other concept to compare with.
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
