"""Multinomial logistic regression in torch, one step at a time: Adam's passes over the weights use all cores.

The same algorithm as scikit-learn's MLPClassifier without a hidden layer, whose single-threaded Adam took most of a
run's time from some thousand concepts on.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray


class Regression:
    """Weights, float32 [D, C], and bias [C], from Glorot's uniform initialisation."""

    def __init__(
        self, dimensions: int, classes: int, seed: int, learning_rate: float, penalty: float
    ) -> None:
        random, bound = np.random.RandomState(seed), np.sqrt(6 / (dimensions + classes))
        drawn = [random.uniform(-bound, bound, shape) for shape in ((dimensions, classes), (classes,))]
        self._weights, self._bias = (torch.from_numpy(values.astype(np.float32)) for values in drawn)
        self._penalty = penalty
        self._adam = torch.optim.Adam([self._weights, self._bias], lr=learning_rate, fused=True)

    @torch.no_grad()
    def step(self, values: NDArray[np.float32], truth: NDArray[np.integer]) -> None:
        """Take one step of Adam on a batch: values float32 [n, D], the samples' classes [n]."""
        given = torch.from_numpy(values)
        error = torch.softmax(torch.addmm(self._bias, given, self._weights), dim=1)
        error[torch.arange(len(values)), torch.from_numpy(truth)] -= 1
        self._bias.grad = error.mean(dim=0)
        self._weights.grad = torch.addmm(
            self._weights, given.T, error, beta=self._penalty / len(values), alpha=1 / len(values)
        )
        self._adam.step()

    def weights_and_bias(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the weights, float32 [D, C], and the bias [C]."""
        # In the memory order that a loaded interpreter has: another may change a product's last bit.
        return np.asfortranarray(self._weights.numpy()), self._bias.numpy()
