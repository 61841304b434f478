"""Baseline `logistic`: multinomial logistic regression on all layers at once.

Activations are standardised per layer and dimension, and their layers are concatenated. The weights are fitted with
Adam (see regression.py), which reads one block of samples at a time. A concept added after training is not trained: its
weights are its standardised signature, scaled to the average length of the other concepts' weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from encyclo import hookimpl
from encyclo.errors import UsageError
from encyclo.seeds import derive_seed
from encyclo.types import Concept, Context, SampleSet, Split
from encyclo_interpreters.provenance import check_shape, trained_on
from encyclo_interpreters.sample_statistics import BLOCK, blocks, flattened, layer_statistics, training_means
from encyclo_interpreters.saved_model import load_model, save_model

MOST_CONCEPTS = 5_000
"""Training time grows with the square of the number of concepts: each step updates the weights of all classes.
A run checks this limit before it captures."""

FEWEST_STEPS = 300


class Options(BaseModel):
    """Options of the interpreter `logistic`."""

    model_config = ConfigDict(extra="forbid")

    epochs: int = Field(3, ge=1)
    """Passes over the samples, at least; more if they make fewer than 300 steps."""
    batch: int = Field(256, ge=2)
    learning_rate: float = Field(1e-3, gt=0)
    penalty: float = Field(1e-3, ge=0)
    """L2 penalty on the weights."""


class LogisticInterpreter:
    """Scores a concept by its logit."""

    def __init__(
        self,
        concepts: list[str],
        mean: NDArray[np.float32],
        std: NDArray[np.float32],
        weights: NDArray[np.float32],
        bias: NDArray[np.float32],
        origin: dict[str, object],
    ) -> None:
        self.concepts = concepts
        self.mean, self.std = mean, std
        self.weights, self.bias = weights, bias
        """float32 [L * H, C] and [C]."""
        self.origin = origin

    def read(self, activations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score every concept: float32 [n, L, H] -> float32 [n, C], logits."""
        check_shape(activations, self.mean.shape, self.origin)
        return flattened(activations, self.mean, self.std) @ self.weights + self.bias

    def add_concepts(self, ids: Sequence[str], signatures: NDArray[np.float32]) -> None:
        """Add concepts by their signatures, float32 [k, L, H]."""
        fresh = flattened(signatures, self.mean, self.std).T
        fresh = fresh / np.maximum(np.linalg.norm(fresh, axis=0), 1e-12)
        fresh = fresh * np.linalg.norm(self.weights, axis=0).mean()
        self.concepts = [*self.concepts, *ids]
        self.weights = np.concatenate([self.weights, fresh.astype(np.float32)], axis=1)
        mean_bias = np.full(len(ids), self.bias.mean(), np.float32)
        self.bias = np.concatenate([self.bias, mean_bias])

    def save(self, folder: Path) -> None:
        """Write model.safetensors and config.json."""
        arrays = {"mean": self.mean, "std": self.std, "weights": self.weights, "bias": self.bias}
        config = {"interpreter": "logistic", "trained_on": self.origin, "concepts": self.concepts}
        save_model(folder, arrays, config)


@hookimpl
def train_interpreter(
    samples: SampleSet, concepts: Sequence[Concept], context: Context
) -> LogisticInterpreter:
    """Fit to the named training samples.

    Concepts without a named sample are added by their signature, which is the mean over all named samples.

    Raises UsageError for more than 5,000 concepts.
    """
    options = context.options
    assert isinstance(options, Options)
    if len(concepts) > MOST_CONCEPTS:
        raise UsageError(
            f"The interpreter 'logistic' takes at most {MOST_CONCEPTS:,} concepts and this run has "
            f"{len(concepts):,}; choose another --interpreter, or remove it from `baselines`."
        )
    rows = samples.named_rows(Split.TRAIN)
    mean, std = layer_statistics(samples, rows)
    seed = derive_seed(context.seed, "logistic") % 2**32
    seen, weights, bias = _fit(samples, rows, mean, std, options, seed)
    interpreter = LogisticInterpreter([], mean, std, weights, bias, trained_on(samples, context))
    means, count = training_means(samples, rows, len(concepts))
    unseen = np.flatnonzero(count == 0)
    ids = [concept.id for concept in concepts]
    interpreter.concepts = [ids[i] for i in seen]
    interpreter.add_concepts([ids[i] for i in unseen], means[unseen])
    back = np.argsort(np.concatenate([seen, unseen]))
    interpreter.weights, interpreter.bias = interpreter.weights[:, back], interpreter.bias[back]
    interpreter.concepts = ids
    return interpreter


def _fit(
    samples: SampleSet,
    rows: NDArray[np.int64],
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
    options: Options,
    seed: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Return (concepts with samples [k], weights float32 [L * H, k], bias [k])."""
    from encyclo_interpreters.regression import Regression

    seen, classes = np.unique(samples.concept[rows], return_inverse=True)
    if len(seen) == 1:
        return seen.astype(np.int64), np.zeros((mean.size, 1), np.float32), np.zeros(1, np.float32)
    # The samples of one block are read once; more of them again in each epoch.
    whole = flattened(samples.read(rows), mean, std) if len(rows) <= BLOCK else None
    generator = np.random.default_rng(seed)
    regression = Regression(mean.size, len(seen), seed, options.learning_rate, options.penalty)
    steps = -(-len(rows) // options.batch)
    for _ in range(max(options.epochs, -(-FEWEST_STEPS // steps))):
        for block in blocks(generator.permutation(len(rows))):
            values = flattened(samples.read(rows[block]), mean, std) if whole is None else whole[block]
            for some in blocks(np.arange(len(block)), options.batch):
                regression.step(values[some], classes[block[some]])
    return seen.astype(np.int64), *regression.weights_and_bias()


@hookimpl
def load_interpreter(folder: Path) -> LogisticInterpreter:
    """Load what `LogisticInterpreter.save` wrote."""
    arrays, config = load_model(folder)
    # The memory order that training leaves: another order may change a product's last bit.
    arrays["weights"] = np.asfortranarray(arrays["weights"])
    return LogisticInterpreter(config["concepts"], origin=config["trained_on"], **arrays)
