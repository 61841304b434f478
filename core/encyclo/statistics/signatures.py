"""A concept's signature: the mean of the samples that mention it, minus what their contexts add to every concept.

A prompt family (such as a template) shifts every concept in it by the same amount. For sample i of concept c in
family f, the additive model

    x_i = s_c + a_f + noise,    sum over samples of a_f = 0

is fitted by least squares: s_c is the mean of x_i - a_f over the concept's samples, a_f the mean of x_i - s_c
over the family's. If every concept has the same families, this is the plain mean. If they differ, a signature
does not depend on the templates that its concept happened to draw. docs/refinement.md has the gain.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encyclo.errors import UsageError
from encyclo.statistics.similarity import centre_and_scale
from encyclo.types import SampleSet, Signatures

COMMON = 30
"""The fewest samples of a family from which its share can be estimated; a rarer family is not corrected."""
SWEEPS = 10
"""Iterations of the least-squares solution; it changes by less than 1e-6 after about five."""


@dataclass(frozen=True)
class Contexts:
    """What each context adds to every concept.

    family: int64 [n], each sample's row of `share`; share: float64 [F, L, H], row 0 is zero
    """

    family: NDArray[np.int64]
    share: NDArray[np.float64]

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return what to subtract from the activations of `rows`: float32 [len(rows), L, H]."""
        return self.share[self.family[rows]].astype(np.float32)


def estimate_signatures(samples: SampleSet, concepts: int, block: int = 2048) -> Signatures:
    """Return each concept's signature, the (population) variance around it and its number of named samples.

    Raises UsageError if no sample mentions its concept.
    """
    return estimate(samples, concepts, block)[0]


def estimate(samples: SampleSet, concepts: int, block: int = 2048) -> tuple[Signatures, Contexts]:
    """Return the signatures and what contexts add to them, estimated together.

    Two passes over blocks of rows, summed in float64: memory does not grow with the number of samples.
    Raises UsageError if no sample mentions its concept.
    """
    rows = np.flatnonzero(samples.named)
    if len(rows) == 0:
        raise UsageError(
            "No sample mentions its concept, so no signature can be computed; use a --sampler whose prompts mention "
            "their concept (their `span` is not None)."
        )
    family = np.zeros(len(samples), np.int64)
    family[rows] = _common_families(samples.family[rows])
    owner, families = samples.concept[rows], int(family.max()) + 1
    shape = (concepts, *samples.read(rows[:1]).shape[1:])
    total, shared = np.zeros(shape), np.zeros((families, *shape[1:]))
    for some, values in _blocks(samples, rows, block):
        total += _sum_by(samples.concept[some], values, concepts)
        shared += _sum_by(family[some], values, families)
    mean, share = _additive(total, shared, owner, family[rows])
    contexts = Contexts(family, share)
    variance = np.zeros(shape)
    for some, values in _blocks(samples, rows, block):
        rest = values - share[family[some]] - mean[samples.concept[some]]
        variance += _sum_by(samples.concept[some], rest**2, concepts)
    count = np.bincount(owner, minlength=concepts).astype(np.int32)
    variance /= np.maximum(count, 1)[:, None, None]
    return Signatures(mean.astype(np.float32), variance.astype(np.float32), count), contexts


def relative_standard_error(signatures: Signatures) -> NDArray[np.float64]:
    """Return float64 [C]: the standard error of the centred, scaled signature over its length.

    Averaged over layers; infinite for fewer than two samples. The sample variance is count/(count-1) times the
    population variance in `signatures`.
    """
    count = signatures.count.astype(np.float64)
    seen = count > 0
    centre, scale = centre_and_scale(signatures.mean[seen])
    length = np.linalg.norm((signatures.mean - centre) / scale, axis=-1)
    spread = (signatures.variance / scale**2).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(spread / np.maximum(count - 1, 0)[:, None]) / np.maximum(length, 1e-12)
    error[count < 2] = np.inf
    result: NDArray[np.float64] = error.mean(axis=1)
    return result


def _common_families(family: NDArray[np.int32]) -> NDArray[np.int64]:
    """Number the families from 1; 0 is for all families too rare to have a share."""
    _, place, count = np.unique(family, return_inverse=True, return_counts=True)
    common = count >= COMMON
    number = np.where(common, np.cumsum(common), 0)
    return number[place].astype(np.int64)


def _additive(
    total: NDArray[np.float64],
    shared: NDArray[np.float64],
    owner: NDArray[np.int32],
    family: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (mean [C, L, H], offset [F, L, H]) of the additive model, from sums by concept and by family."""
    from scipy.sparse import csr_array

    concepts, families = len(total), len(shared)
    together = csr_array((np.ones(len(owner)), (owner, family)), shape=(concepts, families))
    by_concept = np.maximum(np.bincount(owner, minlength=concepts), 1)[:, None]
    by_family = np.maximum(np.bincount(family, minlength=families), 1)[:, None]
    sums, joint = total.reshape(concepts, -1), shared.reshape(families, -1)
    offset: NDArray[np.float64] = np.zeros_like(joint)
    mean = sums / by_concept
    for _ in range(SWEEPS if families > 1 else 0):
        offset = (joint - together.T @ mean) / by_family
        offset[0] = 0
        mean = (sums - together @ offset) / by_concept
    return mean.reshape(total.shape), offset.reshape(shared.shape)


def _sum_by(owner: NDArray[np.integer], values: NDArray[np.floating], owners: int) -> NDArray[np.float64]:
    """Return float64 [owners, L, H]: the sum of each owner's values [n, L, H]."""
    from scipy.sparse import csr_array

    ones = np.ones(len(owner))
    pick = csr_array((ones, (owner, np.arange(len(owner)))), shape=(owners, len(owner)))
    flat: NDArray[np.float64] = pick @ values.reshape(len(values), -1).astype(np.float64)
    return flat.reshape(owners, *values.shape[1:])


def _blocks(
    samples: SampleSet, rows: NDArray[np.int64], size: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        yield some, samples.read(some)
