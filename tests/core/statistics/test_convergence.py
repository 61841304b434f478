"""Convergence figures against planted signatures and noise, whose true values follow from theory."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest

from encyclo.errors import UsageError
from encyclo.statistics import convergence
from encyclo.statistics.signatures import Contexts, estimate, estimate_signatures, relative_standard_error
from encyclo.types import SampleSet, Signatures

LAYERS = (-2, -1)
CONCEPTS, HIDDEN = 60, 64


def planted(
    counts: np.ndarray, noise: float = 1.0, shared: float = 0.0, named_share: float = 1.0, seed: int = 0
) -> tuple[SampleSet, np.ndarray]:
    """Return samples of concepts with random signatures, and all activations.

    A sample is a direction that all concepts share, its concept's own signature, and noise; rows are in
    random order. The second layer has ten times the size of the first.
    """
    generator = np.random.default_rng(seed)
    owner = generator.permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int32)
    signatures = generator.normal(size=(len(counts), len(LAYERS), HIDDEN)) + shared
    values = signatures[owner] + noise * generator.normal(size=(len(owner), len(LAYERS), HIDDEN))
    values = (values * np.array([1.0, 10.0])[:, None]).astype(np.float32)
    zeros = np.zeros(len(owner), np.int32)
    named = generator.uniform(size=len(owner)) < named_share
    samples = SampleSet(
        owner, named, zeros, ("f",), zeros.astype(np.int8), LAYERS, fetch=lambda rows: values[rows]
    )
    return samples, values


def halves_of(counts: np.ndarray, seed: int = 0, **how) -> convergence.HalfSplit:
    samples, _ = planted(counts, **how)
    signatures, contexts = estimate(samples, len(counts))
    found = convergence.half_splits(samples, signatures, contexts, seed)
    assert found is not None
    return found


def same_counts(count: int) -> np.ndarray:
    return np.full(CONCEPTS, count)


@pytest.mark.parametrize("block", [1, 7, 2048])
def test_mean_variance_and_count_are_numpys_over_named_samples(block):
    counts = np.array([0, 1, 2, 5, 30])
    samples, values = planted(counts, shared=100.0, named_share=0.7)
    found = estimate_signatures(samples, len(counts), block)
    for concept in range(len(counts)):
        own = values[(samples.concept == concept) & samples.named].astype(np.float64)
        assert found.count[concept] == len(own)
        if len(own):
            np.testing.assert_allclose(found.mean[concept], own.mean(axis=0), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(found.variance[concept], own.var(axis=0), rtol=1e-4, atol=1e-6)
        else:
            assert not found.mean[concept].any()
            assert not found.variance[concept].any()
    assert (found.mean.dtype, found.variance.dtype, found.count.dtype) == (np.float32, np.float32, np.int32)


def test_variance_is_not_lost_beside_a_huge_mean():
    samples, _ = planted(same_counts(50), noise=1.0, shared=50_000.0)
    found = estimate_signatures(samples, CONCEPTS)
    np.testing.assert_allclose(found.variance[:, 0].mean(), 0.98, rtol=0.02)


def test_a_run_without_any_mention_is_refused():
    samples, _ = planted(same_counts(4), named_share=0.0)
    with pytest.raises(UsageError, match="No sample mentions"):
        estimate_signatures(samples, CONCEPTS)


def test_relative_standard_error_is_that_of_a_direct_computation():
    counts = np.array([2, 3, 10, 40])
    samples, values = planted(counts)
    signatures = estimate_signatures(samples, 4)
    means = np.array([values[samples.concept == c].astype(np.float64).mean(axis=0) for c in range(4)])
    expected = []
    for concept in range(4):
        scaled = values[samples.concept == concept] / means.std(axis=0)
        length = np.linalg.norm((means[concept] - means.mean(axis=0)) / means.std(axis=0), axis=-1)
        error = np.sqrt((scaled.var(axis=0, ddof=1) / counts[concept]).sum(axis=-1))
        expected.append((error / length).mean())
    np.testing.assert_allclose(relative_standard_error(signatures), expected, rtol=1e-4)


def test_the_standard_error_is_unknown_for_fewer_than_two_samples():
    samples, _ = planted(np.array([0, 1, 2, 20, 20]))
    found = relative_standard_error(estimate_signatures(samples, 5))
    assert np.isinf(found).tolist() == [True, True, False, False, False]


def test_the_standard_error_falls_with_the_root_of_the_samples():
    few, many = (
        relative_standard_error(estimate_signatures(planted(same_counts(count))[0], CONCEPTS)).mean()
        for count in (20, 320)
    )
    assert few / many == pytest.approx(4.0, rel=0.05)


def test_the_centred_difference_follows_the_root_of_the_samples():
    found = {count: halves_of(same_counts(count)).centred.mean(axis=0) for count in (40, 160, 640)}
    # Halves of n/2 samples with noise 1 around signatures of size 1 differ by sqrt(2 / (n/2)) = 2 / sqrt(n).
    for count, figure in found.items():
        np.testing.assert_allclose(figure, 2 / np.sqrt(count), rtol=0.06)


def test_neither_figure_depends_on_a_layers_size():
    found = halves_of(same_counts(40))
    for figures in (found.raw, found.centred, found.cosine):
        np.testing.assert_allclose(figures[:, 0].mean(), figures[:, 1].mean(), rtol=0.05)


def test_a_direction_that_all_share_improves_the_raw_figure_only():
    plain, flattered = halves_of(same_counts(40)), halves_of(same_counts(40), shared=100.0)
    assert flattered.raw.mean() < plain.raw.mean() / 20
    np.testing.assert_allclose(flattered.centred.mean(), plain.centred.mean(), rtol=0.02)


def test_the_cosine_is_high_for_the_same_concept_and_null_for_another():
    found = halves_of(same_counts(200), shared=100.0)
    assert found.cosine.min() > 0.95
    assert abs(found.null.mean()) < 0.05
    assert np.abs(found.null).max() < 0.6


def test_pure_noise_has_no_cosine():
    samples, _ = planted(same_counts(40))
    generator = np.random.default_rng(1)
    noise = generator.normal(size=(len(samples), len(LAYERS), HIDDEN)).astype(np.float32)
    samples = dataclasses.replace(samples, fetch=lambda rows: noise[rows])
    signatures, contexts = estimate(samples, CONCEPTS)
    found = convergence.half_splits(samples, signatures, contexts, seed=0)
    assert abs(found.cosine.mean()) < 0.1
    assert found.centred.mean() > 1.0


def test_only_concepts_with_enough_named_samples_are_halved():
    counts = np.array([0, 1, convergence.FEWEST - 1, convergence.FEWEST, 9, 20])
    found = halves_of(counts)
    assert found.concepts.tolist() == [3, 4, 5]
    assert found.samples.tolist() == [convergence.FEWEST, 9, 20]
    assert found.centred.shape == (3, len(LAYERS))


def test_samples_that_only_describe_are_left_out():
    samples, values = planted(same_counts(30), named_share=0.5)
    wild = np.where(samples.named[:, None, None], values, np.float32(1e6))
    spoilt = dataclasses.replace(samples, fetch=lambda rows: wild[rows])
    signatures, contexts = estimate(samples, CONCEPTS)
    np.testing.assert_array_equal(estimate_signatures(spoilt, CONCEPTS).mean, signatures.mean)
    clean = convergence.half_splits(samples, signatures, contexts, seed=0)
    found = convergence.half_splits(spoilt, signatures, contexts, seed=0)
    np.testing.assert_array_equal(found.centred, clean.centred)


@pytest.mark.parametrize("counts", [[3, 3, 3], [3, 50], [1, 1]])
def test_fewer_than_two_concepts_with_enough_samples_give_no_figure(counts):
    samples, _ = planted(np.array(counts))
    signatures, contexts = estimate(samples, len(counts))
    assert convergence.half_splits(samples, signatures, contexts, seed=0) is None
    assert convergence.convergence_table(None, LAYERS) is None


def test_the_seed_alone_decides_the_halves():
    first, again, other = (halves_of(same_counts(20), seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.centred, again.centred)
    assert (first.centred != other.centred).any()


def test_more_concepts_than_fit_at_once_are_all_measured():
    counts = np.full(2 * convergence.CONCEPTS_AT_ONCE + 11, 6)
    found = halves_of(counts)
    assert found.concepts.tolist() == list(range(len(counts)))
    assert np.isfinite(found.centred).all()
    assert (found.centred > 0).all()


def test_the_table_of_a_worked_example():
    halves = convergence.HalfSplit(
        concepts=np.array([0, 1]),
        samples=np.array([10, 20]),
        raw=np.array([[0.01, 0.04], [0.09, 0.02]]),
        centred=np.array([[0.05, 0.4], [0.1, 0.2]]),
        adjusted=np.array([[0.05, 0.4], [0.05, 0.1]]),
        cosine=np.array([[0.9, 0.5], [0.7, 0.3]]),
        null=np.array([[0.1, 0.0], [-0.1, 0.2]]),
    )
    table = convergence.convergence_table(halves, LAYERS)
    assert list(table) == ["-2", "-1"]
    assert table["-2"].as_json() == pytest.approx(
        {
            "raw_rel_diff": 0.05,
            "centred_rel_diff": 0.075,
            "adjusted_rel_diff": 0.05,
            "cosine": 0.8,
            "null_cosine": 0.0,
            "within_5pct_raw": 0.5,
            "within_5pct_centred": 0.5,
            "samples_to_5pct_median": (5 * 1 + 10 * 1) / 2,
            "samples_to_95pct_raw": 5 * 0.2**2 + 0.95 * (10 * 1.8**2 - 5 * 0.2**2),
            "samples_to_10pct_centred": ((0.05 * 5**0.5 + 0.1 * 10**0.5) / 2 / 0.1) ** 2,
            "samples_to_10pct_adjusted": ((0.05 * 5**0.5 + 0.05 * 10**0.5) / 2 / 0.1) ** 2,
            "concepts": 2,
        }
    )
    assert table["-1"].within_5pct_raw == 1.0
    assert table["-1"].samples_to_5pct_median == pytest.approx((5 * 64 + 10 * 4) / 2)


def test_the_samples_it_asks_for_would_suffice():
    asked = convergence.convergence_table(halves_of(same_counts(40)), LAYERS)["-1"].samples_to_5pct_median
    # The true answer: halves of m samples differ by sqrt(2 / m) = 0.05.
    assert asked == pytest.approx(2 / 0.05**2, rel=0.1)


def test_the_samples_to_its_other_goals_would_suffice_as_well():
    table = convergence.convergence_table(halves_of(same_counts(40)), LAYERS)["-1"].as_json()
    for name in ("centred", "adjusted"):
        expected = 20 * (table[f"{name}_rel_diff"] / 0.1) ** 2
        assert table[f"samples_to_10pct_{name}"] == pytest.approx(expected, rel=1e-6)
    assert table["samples_to_95pct_raw"] > 20 * (table["raw_rel_diff"] / 0.05) ** 2


def test_concepts_that_do_not_vary_do_not_divide_by_zero():
    constant = np.ones((8, 1, 3), np.float32)
    signatures = Signatures(constant[:2], np.zeros((2, 1, 3), np.float32), np.array([4, 4], np.int32))
    assert np.isfinite(relative_standard_error(signatures)).all()
    zeros = np.zeros(8, np.int32)
    samples = SampleSet(
        np.repeat([0, 1], 4).astype(np.int32), np.ones(8, bool), zeros, ("f",), zeros.astype(np.int8), (1,),
        fetch=lambda rows: constant[rows],
    )  # fmt: skip
    nothing = Contexts(np.zeros(8, np.int64), np.zeros((1, 1, 3)))
    found = convergence.half_splits(samples, signatures, nothing, seed=0)
    assert found.raw.tolist() == [[0.0], [0.0]]
    assert found.centred.tolist() == [[0.0], [0.0]]


def shifted(shift: float, counts: np.ndarray, families: int = 8) -> tuple[SampleSet, np.ndarray, np.ndarray]:
    """Return planted samples with a shift a family, each concept in some of the families only; values; shifts."""
    samples, values = planted(counts, noise=0.1)
    generator = np.random.default_rng(1)
    first = generator.integers(0, families, len(counts))
    family = ((first[samples.concept] + generator.integers(0, 3, len(samples))) % families).astype(np.int32)
    shifts = shift * generator.normal(size=(families, *values.shape[1:])).astype(np.float32)
    moved = values + shifts[family]
    names = tuple(f"f{i}" for i in range(families))
    changed = dataclasses.replace(samples, family=family, families=names, fetch=lambda rows: moved[rows])
    return changed, values, shifts[family]


def test_what_a_family_adds_to_every_concept_is_taken_out():
    counts = same_counts(24)
    samples, values, _ = shifted(3.0, counts)
    found, contexts = estimate(samples, CONCEPTS)
    own = np.array([values[samples.concept == c].mean(axis=0) for c in range(CONCEPTS)])
    plain = np.array(
        [samples.read(np.flatnonzero(samples.concept == c)).mean(axis=0) for c in range(CONCEPTS)]
    )
    # Up to a shift of all concepts, which no estimate can distinguish from a context's share.
    error, naive = (np.linalg.norm((m - m.mean(0)) - (own - own.mean(0))) for m in (found.mean, plain))
    assert error < naive / 20
    assert relative_standard_error(found).mean() < 0.2
    left = samples.read(np.arange(len(samples))) - contexts.of(np.arange(len(samples)))
    np.testing.assert_allclose(
        np.array([left[samples.concept == c].mean(axis=0) for c in range(CONCEPTS)]), found.mean, atol=1e-4
    )


def test_contexts_add_nothing_on_the_whole():
    samples, _, _ = shifted(3.0, same_counts(24))
    _, contexts = estimate(samples, CONCEPTS)
    assert np.abs(contexts.of(np.arange(len(samples))).mean(axis=0)).max() < 1e-4


def test_a_rare_family_has_no_share_of_its_own():
    samples, _, _ = shifted(3.0, same_counts(24))
    family = samples.family.copy()
    family[:5] = 8
    rare = dataclasses.replace(samples, family=family, families=(*samples.families, "rare"))
    _, contexts = estimate(rare, CONCEPTS)
    assert not contexts.of(np.arange(5)).any() and contexts.of(np.arange(5, 400)).any()


def test_the_adjusted_difference_is_that_of_samples_without_their_contexts():
    samples, _, _ = shifted(3.0, same_counts(24))
    signatures, contexts = estimate(samples, CONCEPTS)
    found = convergence.half_splits(samples, signatures, contexts, seed=0)
    assert found is not None and found.adjusted.mean() < found.centred.mean() / 5
    none = Contexts(np.zeros(len(samples), np.int64), np.zeros((1, 2, HIDDEN)))
    same = convergence.half_splits(samples, signatures, none, seed=0)
    assert same is not None
    np.testing.assert_allclose(same.adjusted, same.centred, rtol=1e-5)


def test_signatures_need_no_array_of_all_concepts_for_each_block_of_samples():
    count, shape = 20_000, (2, 16)
    values = np.random.default_rng(0).normal(size=(97, *shape)).astype(np.float32)
    samples = SampleSet(
        np.arange(count, dtype=np.int32), np.ones(count, bool), (np.arange(count) % 5).astype(np.int32),
        tuple("abcde"), np.zeros(count, np.int8), (-2, -1), lambda rows: values[rows % 97],
    )  # fmt: skip
    tracemalloc.start()
    estimate(samples, count)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3.7 * count * np.prod(shape) * 8  # sums and variances in float64, signatures in float32
