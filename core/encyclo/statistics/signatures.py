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
SWEEPS, CLOSE = 10, 1e-9
"""The most iterations of the least-squares solution; it changes by less than 1e-6 after about five. They end earlier if
no family's share changes by more than CLOSE times the largest mean."""


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
        _add_by(total, samples.concept[some], values)
        _add_by(shared, family[some], values)
    mean, share = _additive(total, shared, owner, family[rows])
    signature = mean.astype(np.float32)
    del total, mean  # a large run's arrays in float64 take gigabytes
    count = np.bincount(owner, minlength=concepts).astype(np.int32)
    # Dividing before summing keeps the variance as precise in float32 as the samples are.
    variance = np.zeros(shape, np.float32)
    for some, values in _blocks(samples, rows, block):
        values -= share[family[some]]  # in place: a block's arrays don't fit into a processor's cache
        values -= signature[samples.concept[some]]
        values *= values
        values /= count[samples.concept[some]][:, None, None]
        _add_by(variance, samples.concept[some], values)
    return Signatures(signature, variance, count), Contexts(family, share)


def relative_standard_error(signatures: Signatures) -> NDArray[np.float64]:
    """Return float64 [C]: the standard error of the centred, scaled signature over its length.

    Averaged over layers; infinite for fewer than two samples. The sample variance is count/(count-1) times the
    population variance in `signatures`.
    """
    count = signatures.count.astype(np.float64)
    seen = count > 0
    centre, scale = centre_and_scale(signatures.mean if seen.all() else signatures.mean[seen])
    length, spread = np.empty((2, *signatures.mean.shape[:2]), np.float32)
    for layer in range(len(centre)):  # a layer at a time: no further array of the signatures' size
        length[:, layer] = np.linalg.norm((signatures.mean[:, layer] - centre[layer]) / scale[layer], axis=-1)
        spread[:, layer] = (signatures.variance[:, layer] / scale[layer] ** 2).sum(axis=-1)
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
    """Return (mean [C, L, H], offset [F, L, H]) of the additive model, from sums by concept and by family.

    The means take the place of the sums in `total`.
    """
    from scipy.sparse import csr_array

    concepts, families = len(total), len(shared)
    together = csr_array((np.ones(len(owner)), (owner, family)), shape=(concepts, families))
    by_concept = np.maximum(np.bincount(owner, minlength=concepts), 1)[:, None]
    by_family = np.maximum(np.bincount(family, minlength=families), 1)[:, None]
    offsets: NDArray[np.float64] = np.zeros_like(shared)
    for layer in range(total.shape[1]):  # a layer at a time: no further array of the signatures' size
        sums, joint = total[:, layer].copy(), shared[:, layer]
        mean, offset = sums / by_concept, np.zeros_like(joint)
        for _ in range(SWEEPS if families > 1 else 0):
            before, offset = offset, (joint - together.T @ mean) / by_family
            offset[0] = 0
            # Families that all concepts share, as in stage 0, need one sweep.
            if np.abs(offset - before).max() <= CLOSE * np.abs(mean).max():
                break
            mean = (sums - together @ offset) / by_concept
        total[:, layer], offsets[:, layer] = mean, offset
    return total, offsets


def _add_by(total: NDArray[np.floating], owner: NDArray[np.integer], values: NDArray[np.float64]) -> None:
    """Add values [n, L, H] to their owners' rows of `total` [owners, L, H]; no other row is touched."""
    from scipy.sparse import csr_array

    owners, place = np.unique(owner, return_inverse=True)
    pick = csr_array((np.ones(len(owner)), (place, np.arange(len(owner)))), shape=(len(owners), len(owner)))
    sums = pick @ values.reshape(len(values), -1)
    total[owners] += sums.reshape(len(owners), *values.shape[1:])


def _blocks(
    samples: SampleSet, rows: NDArray[np.int64], size: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Yield rows and their activations, a copy in float64."""
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        yield some, samples.read(some).astype(np.float64)
