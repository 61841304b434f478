"""The interpreters on samples whose truth is known: made of latent concepts, as mentions and as descriptions."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from sklearn.neural_network import MLPClassifier

from encyclo.errors import DamagedError, UsageError
from encyclo.testing.faults.processes import ForkServer
from encyclo.types import Concept, Context, SampleSet, Split
from encyclo_interpreters import centroid, logistic
from encyclo_interpreters.sample_statistics import BLOCK, layer_statistics, training_means
from encyclo_interpreters.transformer import description_training, projections, training, training_loop
from encyclo_interpreters.transformer import plugin as transformer
from encyclo_interpreters.transformer.checkpoint import PREFIX
from encyclo_interpreters.transformer.hubness import Hubness
from encyclo_interpreters.transformer.interpreter import resolve_device
from encyclo_interpreters.transformer.lda import fit_discriminants
from encyclo_interpreters.transformer.training_data import TrainingData, choose_rows

LAYERS, HIDDEN, LATENT = 3, 24, 12
PLUGINS = {"transformer": transformer, "centroid": centroid, "logistic": logistic}
QUICK = {"width": 16, "heads": 2, "depth": 1, "meaning": 12, "expand": 16, "batch": 64, "epochs": 3}


def make_samples(
    concepts: int, named: int = 6, described: int = 0, noise: float = 0.3, seed: int = 0
) -> SampleSet:
    """Mentions and descriptions of latent concepts, in different places of the activation space."""
    truth = np.random.default_rng(7)  # the same model for every draw
    latent = truth.standard_normal((10_000, LATENT))[:concepts]
    mention = truth.standard_normal((LATENT, LAYERS * HIDDEN))
    description = truth.standard_normal((LATENT, LAYERS * HIDDEN))
    offsets = truth.standard_normal((2, 20, LAYERS * HIDDEN))
    far = truth.standard_normal(LAYERS * HIDDEN) * 8
    generator = np.random.default_rng(seed)
    owner, family, values = [], [], []
    for kind, count in enumerate((named, described)):
        for number in range(count):
            seen = latent @ (description if kind else mention) + offsets[kind, number] + kind * far
            values.append(seen + noise * generator.standard_normal(seen.shape))
            owner.append(np.arange(concepts))
            family.append(np.full(concepts, kind * named + number))
    activations = (np.concatenate(values) * 50).astype(np.float32).reshape(-1, LAYERS, HIDDEN)
    families = np.concatenate(family).astype(np.int32)
    split = np.full(len(families), Split.TRAIN, np.int8)
    split[families == 0] = Split.TEST
    split[families == 1] = Split.VALIDATION
    return SampleSet(
        concept=np.concatenate(owner).astype(np.int32),
        named=families < named,
        family=families,
        families=tuple(f"family.{i}" for i in range(named + described)),
        split=split,
        layers=(-3, -2, -1),
        fetch=lambda rows: activations[rows],
    )


def make_concepts(count: int) -> list[Concept]:
    return [Concept(id=f"c{i}", name=f"concept {i}") for i in range(count)]


def context_for(name: str, folder: Path, seed: int = 0, **options: object) -> Context:
    given = {**QUICK, **options} if name == "transformer" else options
    return Context(seed, "cpu", PLUGINS[name].Options(**given), folder)


def train(name: str, samples: SampleSet, folder: Path, seed: int = 0, **options: object):
    concepts = make_concepts(int(samples.concept.max()) + 1)
    return PLUGINS[name].train_interpreter(samples, concepts, context_for(name, folder, seed, **options))


def load(name: str, folder: Path, options: object = None, device: str = "cpu"):
    """Call the hook as pluggy does: with the arguments that it takes."""
    hook = PLUGINS[name].load_interpreter
    offered = {"folder": folder, "context": Context(0, device, options, folder)}
    return hook(**{key: offered[key] for key in inspect.signature(hook).parameters})


def top1(interpreter, samples: SampleSet, rows: np.ndarray) -> float:
    return float((interpreter.read(samples.read(rows)).argmax(axis=1) == samples.concept[rows]).mean())


def saved(interpreter, folder: Path) -> bytes:
    folder.mkdir(exist_ok=True)
    interpreter.save(folder)
    return (folder / "model.safetensors").read_bytes()


# --- every interpreter ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLUGINS)
def test_held_out_families_are_read(name: str, tmp_path: Path):
    samples = make_samples(60)
    assert top1(train(name, samples, tmp_path), samples, samples.rows(Split.TEST)) > 0.9


@pytest.mark.parametrize("name", PLUGINS)
def test_shuffled_concepts_are_not_read(name: str, tmp_path: Path):
    samples = make_samples(60)
    shuffled = np.random.default_rng(0).permutation(samples.concept)
    wrong = replace(samples, concept=shuffled)
    assert top1(train(name, wrong, tmp_path), wrong, wrong.rows(Split.TEST)) < 0.15


@pytest.mark.parametrize("name", PLUGINS)
def test_the_same_seed_gives_the_same_weights(name: str, tmp_path: Path):
    samples = make_samples(150, described=2)
    first, again = (saved(train(name, samples, tmp_path / f"{i}"), tmp_path / f"s{i}") for i in range(2))
    assert first == again


@pytest.mark.parametrize("name", PLUGINS)
def test_what_was_saved_reads_the_same(name: str, tmp_path: Path):
    samples = make_samples(120, described=2)
    interpreter = train(name, samples, tmp_path)
    rows = np.arange(0, len(samples), 7)
    saved(interpreter, tmp_path / "saved")
    loaded = load(name, tmp_path / "saved")
    np.testing.assert_allclose(
        loaded.read(samples.read(rows)), interpreter.read(samples.read(rows)), rtol=1e-5, atol=1e-5
    )
    assert loaded.concepts == interpreter.concepts == [f"c{i}" for i in range(120)]


@pytest.mark.parametrize("name", PLUGINS)
def test_loading_takes_the_options_of_training_or_none(name: str, tmp_path: Path):
    samples = make_samples(40)
    interpreter, values = train(name, samples, tmp_path), samples.read(np.arange(40))
    saved(interpreter, tmp_path / "saved")
    for options in (None, context_for(name, tmp_path).options):
        loaded = load(name, tmp_path / "saved", options)
        np.testing.assert_array_equal(loaded.read(values), interpreter.read(values))


@pytest.mark.parametrize("name", PLUGINS)
def test_a_concept_joins_by_its_signature(name: str, tmp_path: Path):
    samples = make_samples(120)
    rows = np.flatnonzero(samples.concept < 100)
    part = replace(
        samples,
        concept=samples.concept[rows],
        named=samples.named[rows],
        family=samples.family[rows],
        split=samples.split[rows],
        fetch=lambda chosen: samples.read(rows[chosen]),
    )
    known = train(name, part, tmp_path)
    means, _ = training_means(samples, samples.rows(Split.TRAIN), 120)
    known.add_concepts([f"c{i}" for i in range(100, 120)], means[100:])
    fresh = np.flatnonzero((samples.concept >= 100) & (samples.split == Split.TEST))
    assert len(fresh) == 20 and known.concepts[-1] == "c119"
    assert top1(known, samples, fresh) > 0.9


@pytest.mark.parametrize("name", PLUGINS)
def test_samples_are_read_in_blocks(name: str, tmp_path: Path):
    samples = make_samples(800, named=8, described=2)
    largest = 0

    def fetch(rows: np.ndarray) -> np.ndarray:
        nonlocal largest
        largest = max(largest, len(rows))
        return samples.fetch(rows)

    train(name, replace(samples, fetch=fetch), tmp_path)
    assert len(samples) > 3 * BLOCK and 0 < largest <= BLOCK


@pytest.mark.parametrize("name", PLUGINS)
def test_samples_of_other_layers_are_refused(name: str, tmp_path: Path):
    interpreter = train(name, make_samples(20), tmp_path)
    with pytest.raises(UsageError, match=r"3 layers of 24 .*layers -3, -2, -1.* \(2, 24\)"):
        interpreter.read(np.zeros((1, 2, HIDDEN), np.float32))


@pytest.mark.parametrize("name", PLUGINS)
@pytest.mark.parametrize("concepts", [1, 2])
def test_one_or_two_concepts(name: str, concepts: int, tmp_path: Path):
    samples = make_samples(concepts)
    assert top1(train(name, samples, tmp_path), samples, samples.rows(Split.TEST)) == 1.0


@pytest.mark.parametrize("name", PLUGINS)
def test_a_concept_without_training_samples_keeps_its_place(name: str, tmp_path: Path):
    samples = make_samples(40)
    gone = np.isin(samples.concept, [0, 17])
    held = replace(samples, split=np.where(gone, Split.TEST, samples.split).astype(np.int8))
    interpreter = train(name, held, tmp_path)
    assert interpreter.concepts == [f"c{i}" for i in range(40)]
    others = np.flatnonzero(~gone & (samples.split == Split.TEST))
    assert top1(interpreter, samples, others) > 0.9


# --- described samples --------------------------------------------------------------------------------------


def described_accuracy(interpreter, samples: SampleSet, concepts: range) -> float:
    rows = np.flatnonzero(~samples.named & np.isin(samples.concept, list(concepts)))
    return top1(interpreter, samples, rows)


def test_descriptions_of_concepts_never_described_are_read(tmp_path: Path):
    samples = make_samples(600, named=5, described=2, noise=0.1)
    apart = (samples.concept >= 500) & ~samples.named
    held = replace(samples, split=np.where(apart, Split.TEST, samples.split).astype(np.int8))
    interpreter = train("transformer", held, tmp_path)
    baseline = train("centroid", held, tmp_path)
    reached = described_accuracy(interpreter, samples, range(500, 600))
    assert reached > 0.5 and reached > 10 * described_accuracy(baseline, samples, range(500, 600))
    assert top1(interpreter, samples, samples.rows(Split.TEST)[:100]) > 0.9  # names are read as well


def test_the_kind_of_a_sample_is_found_out(tmp_path: Path):
    samples = make_samples(300, described=2)
    interpreter = train("transformer", samples, tmp_path)
    values = torch.from_numpy(samples.read(np.arange(len(samples))))
    found = interpreter.encoder.shared_space.describes(values).numpy()
    assert (found == ~samples.named).mean() > 0.99


def hub_among(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit meanings of concepts, the first of which is near to every description; and the descriptions, in order."""
    generator = torch.Generator().manual_seed(0)
    common = torch.nn.functional.normalize(torch.randn(1, 16, generator=generator), dim=1)
    meant = torch.randn(count, 16, generator=generator)
    descriptions = torch.nn.functional.normalize(
        meant + 1.5 * torch.randn(meant.shape, generator=generator), dim=1
    )
    descriptions = torch.nn.functional.normalize(descriptions + common, dim=1)
    meant[0] = common
    return torch.nn.functional.normalize(meant, dim=1), descriptions


def test_hubness_finds_the_concept_that_every_description_is_near_to():
    meant, descriptions = hub_among(200)
    hubness = Hubness(descriptions, torch.arange(200), 0.75)
    hubs = hubness.of(meant, first=0)
    assert hubs.argmax() == 0

    def right(scores: torch.Tensor) -> float:
        return float((scores[1:].argmax(1) == torch.arange(1, 200)).float().mean())

    cosine = descriptions @ meant.T
    assert right(cosine - 0.75 * hubs) > right(cosine) + 0.05


def test_a_concepts_own_descriptions_make_it_no_hub():
    meant, descriptions = hub_among(30)
    everything = Hubness(descriptions, torch.arange(30), 1.0)
    for concept in (3, 17):
        others = torch.arange(30) != concept
        without = Hubness(descriptions[others], torch.arange(30)[others], 1.0)
        alone = meant[concept : concept + 1]
        torch.testing.assert_close(everything.of(alone, concept), without.of(alone, concept))
        # As one that joins later it has none of its own.
        assert not torch.equal(everything.of(alone, 30), without.of(alone, 30))
    only = Hubness(descriptions[:1], torch.zeros(1, dtype=torch.long), 1.0)
    assert only.of(meant[:1], 0) == 0


def test_hubness_is_taken_off_descriptions_alone_and_comes_back_from_disk(tmp_path: Path):
    samples = make_samples(300, described=2)
    interpreter = train("transformer", samples, tmp_path)
    assert interpreter.hubness is not None
    space, means = (
        interpreter.encoder.shared_space,
        training_means(samples, samples.rows(Split.TRAIN), 300)[0],
    )
    with torch.inference_mode():
        hubs = interpreter.hubness.of(space.embed_signatures(means), 0)
    interpreter.hubness = replace(interpreter.hubness, part=0.5)
    interpreter.concepts, interpreter.prototypes = [], interpreter.prototypes[:0]
    interpreter.add_concepts([str(n) for n in range(300)], means)
    plain = interpreter.prototypes.clone()
    plain[:, -1] = 0
    for named in (True, False):
        embedded = interpreter.embed(samples.read(np.flatnonzero(samples.named == named)), named)
        taken = (embedded @ plain.T - embedded @ interpreter.prototypes.T).detach()
        expected = torch.zeros(300) if named else 0.5 * hubs * space.description_scale.detach()
        torch.testing.assert_close(taken, expected.expand(len(taken), 300), atol=1e-5, rtol=1e-4)
    saved(interpreter, tmp_path / "saved")
    loaded = load("transformer", tmp_path / "saved")
    fresh = samples.read(np.arange(40))
    for one in (interpreter, loaded):
        one.add_concepts(["late"], means[:1] + 1)
    np.testing.assert_array_equal(loaded.read(fresh), interpreter.read(fresh))


def test_large_batches_of_descriptions_read_them_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    losses = []
    loss = description_training.described_loss
    monkeypatch.setattr(
        description_training, "described_loss", lambda *a: losses.append(loss(*a)) or losses[-1]
    )
    train("transformer", make_samples(600, named=5, described=2, noise=0.1), tmp_path)
    assert min(losses) < 0.95 * losses[0]


def test_a_few_descriptions_make_no_shared_space(tmp_path: Path):
    samples = make_samples(50, described=1)
    assert train("transformer", samples, tmp_path).encoder.shared_space is None


# --- closed forms ------------------------------------------------------------------------------------------


def test_means_are_those_of_the_named_samples():
    samples = make_samples(30, named=4, described=2)
    samples.named[samples.concept == 3] = False
    rows = samples.rows(Split.TRAIN)
    means, count = training_means(samples, rows, 30)
    for concept in range(30):
        own = rows[samples.named[rows] & (samples.concept[rows] == concept)]
        assert count[concept] == len(own)
        expected = samples.read(own if len(own) else rows[samples.named[rows]]).mean(axis=0)
        np.testing.assert_allclose(means[concept], expected, rtol=1e-4, atol=1e-3)


def test_layer_statistics_are_those_of_all_rows():
    samples = make_samples(1500, named=4)
    rows = samples.rows(Split.TRAIN)
    mean, std = layer_statistics(samples, rows)
    values = samples.read(rows).astype(np.float64)
    np.testing.assert_allclose(mean, values.mean(axis=0), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(std, values.std(axis=0), rtol=1e-4)


def test_discriminants_make_the_noise_round():
    samples = make_samples(400, named=12)
    rows = samples.rows(Split.TRAIN)
    means, count = training_means(samples, rows, 400)
    data = TrainingData(samples, rows, rows[:0], means, count)
    centre, project = fit_discriminants(data, width=LATENT)
    within = samples.read(rows) - means[samples.concept[rows]]
    seen = np.einsum("nlh,lhw->lnw", within, project)
    for layer in seen:
        scatter = layer.T @ layer / len(layer)
        assert abs(scatter - np.diag(np.diag(scatter))).max() < 0.5 * np.diag(scatter).mean()
    assert centre.shape == (LAYERS, HIDDEN)


# --- training ------------------------------------------------------------------------------------------------


def train_counting(out: Path, kill_at: int, phase: str) -> None:
    """Train and print how often the phase took its loss; at the `kill_at`-th time, kill this process."""
    module, name = (
        (training, "validation_loss") if phase == "all" else (description_training, "described_loss")
    )
    loss, calls = getattr(module, name), 0

    def counting(*arguments):
        nonlocal calls
        calls += 1
        if calls == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss(*arguments)

    setattr(module, name, counting)
    training_loop.CHECKPOINT_SECONDS = 0
    samples = make_samples(120, described=2)
    saved(train("transformer", samples, out, epochs=4, patience=4, dropout=0.2), out / "saved")
    print(calls)


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with ForkServer() as made:
        made.warm(importlib.import_module, __name__)
        yield made


def run_killed(server: ForkServer, folder: Path, at_call: int, phase: str) -> int:
    """Train in a process that kills itself at the call; return the losses it took, or minus the signal."""
    done = server.run(train_counting, folder, at_call, phase)
    return done.status or int(done.output.split()[-1])  # training says how far it is, too


@pytest.mark.parametrize("phase", ["descriptions", "all"])
def test_a_training_that_was_killed_goes_on_to_the_same_weights(
    server: ForkServer, phase: str, tmp_path: Path
):
    whole = run_killed(server, tmp_path / "whole", 0, phase)
    assert whole > 4
    assert not list((tmp_path / "whole").glob(f"{PREFIX}*"))
    assert run_killed(server, tmp_path / "killed", 4, phase) == -signal.SIGKILL
    left = {path.name.split("-")[1] for path in (tmp_path / "killed").glob(f"{PREFIX}*")}
    assert left == {"descriptions", phase}
    assert run_killed(server, tmp_path / "killed", 0, phase) == whole - 3  # it does not start again
    expected, found = (tmp_path / name / "saved" / "model.safetensors" for name in ("whole", "killed"))
    assert found.read_bytes() == expected.read_bytes()


class Interrupted(Exception):
    pass


def interrupt(monkeypatch: pytest.MonkeyPatch, samples: SampleSet, folder: Path, **options: object) -> Path:
    """Train until the third epoch's end; return the checkpoint."""
    loss, calls = training.validation_loss, 0

    def counting(*arguments):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Interrupted
        return loss(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(training, "validation_loss", counting)
        patch.setattr(training_loop, "CHECKPOINT_SECONDS", 0)
        train("transformer", samples, folder, **options)
    (found,) = folder.glob(f"{PREFIX}*")
    return found


@pytest.mark.parametrize("harm", ["byte", "options", "samples"])
def test_a_checkpoint_of_anything_else_is_passed_over(
    harm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    samples, options = make_samples(60), {"epochs": 3, "patience": 3}
    expected_of, expected_options = samples, dict(options)
    path = interrupt(monkeypatch, samples, tmp_path / "k", **options)
    if harm == "byte":
        data = bytearray(path.read_bytes())
        data[-10] ^= 1
        path.write_bytes(data)
    elif harm == "options":
        expected_options["learning_rate"] = 3e-3
    else:
        expected_of = make_samples(60, seed=1)
    resumed = saved(train("transformer", expected_of, tmp_path / "k", **expected_options), tmp_path / "a")
    again = saved(train("transformer", expected_of, tmp_path / "new", **expected_options), tmp_path / "b")
    assert resumed == again


def test_training_never_ends_with_a_higher_validation_loss(tmp_path: Path):
    samples = make_samples(60)
    losses = []
    loss = training.validation_loss

    def noting(*arguments):
        losses.append(loss(*arguments))
        return losses[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "validation_loss", noting)
        interpreter = train("transformer", samples, tmp_path, learning_rate=1.0, epochs=4, patience=2)
    assert min(losses) == losses[0] and len(losses) == 3  # ruined by the rate, stopped after two epochs
    rows = samples.rows(Split.TRAIN)
    means, _ = training_means(samples, rows, 60)
    data = TrainingData(samples, rows, samples.rows(Split.VALIDATION), means, np.ones(60, np.int64))
    projected = projections.ProjectedData(interpreter.encoder, data)
    assert loss(interpreter.encoder, data, projected) == pytest.approx(losses[0], rel=1e-5)


def test_training_lowers_the_validation_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    losses = []
    loss = training.validation_loss
    monkeypatch.setattr(training, "validation_loss", lambda *a: losses.append(loss(*a)) or losses[-1])
    train("transformer", make_samples(300, noise=1.0), tmp_path, epochs=6)
    assert min(losses) < 0.95 * losses[0]


def test_an_earlier_interpreter_in_the_context_changes_nothing(tmp_path: Path):
    samples, concepts = make_samples(300, noise=1.0), make_concepts(300)
    before = train("transformer", samples, tmp_path / "before", epochs=6)
    trained = []
    for known in (None, before):
        context = replace(context_for("transformer", tmp_path / "x", epochs=1), interpreter=known)
        trained.append(transformer.train_interpreter(samples, concepts, context))
    assert saved(trained[0], tmp_path / "a") == saved(trained[1], tmp_path / "b")


def test_batches_hold_distinct_concepts_and_every_row_once():
    samples = make_samples(50, named=5)
    rows = samples.rows(Split.TRAIN)
    batches = list(training.distinct_batches(samples.concept, rows, 16, np.random.default_rng(0)))
    assert sorted(np.concatenate(batches)) == sorted(rows)
    for batch in batches:
        assert len(batch) <= 16 and len(set(samples.concept[batch])) == len(batch)


def test_watched_descriptions_are_of_concepts_whose_descriptions_never_train():
    samples = make_samples(300, described=2)
    rows, watched = choose_rows(samples, np.random.default_rng(0))
    descriptions = [r[~samples.named[r]] for r in (rows, watched)]
    trained, kept = (set(samples.concept[r].tolist()) for r in descriptions)
    assert len(kept) == 15 and len(trained) == 285 and not kept & trained
    assert not set(rows) & set(watched)


@pytest.mark.parametrize("described", [0, 2])
def test_projections_that_do_not_fit_in_memory_train_the_same_weights(
    described: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    samples = make_samples(120, described=described)
    kept = train("transformer", samples, tmp_path / "kept")
    monkeypatch.setattr(projections, "MOST_BYTES", 0)
    rows_read = []
    noting = replace(samples, fetch=lambda rows: rows_read.append(len(rows)) or samples.fetch(rows))
    anew = train("transformer", noting, tmp_path / "anew")
    assert sum(rows_read) > 3 * len(samples)
    for name, value in kept.encoder.state_dict().items():
        torch.testing.assert_close(anew.encoder.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_projecting_a_mean_without_a_sample_is_leaving_out_the_projected_sample(tmp_path: Path):
    encoder = train("transformer", make_samples(120, described=2), tmp_path).encoder
    values = torch.randn(4, *encoder.centre.shape, generator=torch.Generator().manual_seed(0))
    named = torch.ones(1, dtype=torch.bool)
    with torch.no_grad():
        mean, sample, rest = (
            encoder.projected(part.mean(0, keepdim=True), named) for part in (values, values[:1], values[1:])
        )
    found = mean.without(sample, torch.tensor([1 / 3]))
    torch.testing.assert_close(found.tokens, rest.tokens, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.canonical, rest.canonical, rtol=1e-4, atol=1e-4)


def test_near_concepts_are_the_nearest(tmp_path: Path):
    samples = make_samples(80)
    interpreter = train("transformer", samples, tmp_path)
    means, count = training_means(samples, samples.rows(Split.TRAIN), 80)
    count[5] = 0
    with torch.no_grad():
        projected = interpreter.encoder.projected(torch.from_numpy(means), torch.ones(80, dtype=torch.bool))
    near = training.nearest_concepts(interpreter.encoder, projected, count, 3)
    prototypes = interpreter.embed(means, named=True).numpy()
    cosine = prototypes @ prototypes.T
    np.fill_diagonal(cosine, -np.inf)
    cosine[:, 5] = -np.inf
    np.testing.assert_array_equal(near, np.argsort(-cosine, axis=1)[:, :3])


def test_seed_shape_is_the_older_works():
    options = transformer.Options(preset="seed-shape")
    assert (options.width, options.heads, options.depth) == (512, 8, 4)
    with pytest.raises(ValueError, match="multiple"):
        transformer.Options(width=10, heads=4)


@pytest.mark.parametrize(("concepts", "described", "most"), [(60, 0, 2**28), (120, 2, 2**28), (120, 2, 0)])
def test_bfloat16_steps_learn_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, concepts: int, described: int, most: int
):
    monkeypatch.setattr(projections, "MOST_BYTES", most)
    samples = make_samples(concepts, described=described)
    interpreter = train("transformer", samples, tmp_path, precision="bfloat16")
    assert top1(interpreter, samples, samples.rows(Split.TEST)) > 0.9


@pytest.mark.parametrize("found", [True, False])
def test_auto_is_cuda_where_torch_sees_it(found: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found)
    assert resolve_device("auto") == ("cuda" if found else "cpu")
    assert [resolve_device(device) for device in ("cpu", "cuda", "cuda:1")] == ["cpu", "cuda", "cuda:1"]


def test_auto_trains_and_loads_as_the_device_that_it_stands_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    samples, concepts = make_samples(120, described=2), make_concepts(120)
    written = []
    for device in ("cpu", "auto"):
        context = replace(context_for("transformer", tmp_path / f"{device} work", epochs=1), device=device)
        interpreter = transformer.train_interpreter(samples, concepts, context)
        written.append(saved(interpreter, tmp_path / device))
        loaded = load("transformer", tmp_path / device, context.options, device)
        values = samples.read(np.arange(40))
        np.testing.assert_array_equal(loaded.read(values), interpreter.read(values))
    assert written[0] == written[1]


@pytest.mark.cuda
def test_on_cuda_it_trains_loads_and_reads(tmp_path: Path):
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    samples, concepts = make_samples(120, described=2), make_concepts(120)
    context = replace(context_for("transformer", tmp_path), device="auto")
    interpreter = transformer.train_interpreter(samples, concepts, context)
    saved(interpreter, tmp_path / "saved")
    values = samples.read(samples.rows(Split.TEST))
    loaded = load("transformer", tmp_path / "saved", context.options, "auto")
    assert loaded.prototypes.device.type == interpreter.prototypes.device.type == "cuda"
    loaded.add_concepts(["late"], values[:1])
    np.testing.assert_allclose(loaded.read(values)[:, :-1], interpreter.read(values), atol=1e-4)
    on_cpu = load("transformer", tmp_path / "saved")
    np.testing.assert_allclose(on_cpu.read(values), interpreter.read(values), atol=0.05)
    assert top1(interpreter, samples, samples.rows(Split.TEST)) > 0.9


def test_weights_of_another_shape_are_refused(tmp_path: Path):
    saved(train("transformer", make_samples(20), tmp_path), tmp_path / "saved")
    config = tmp_path / "saved" / "config.json"
    config.write_text(config.read_text().replace('"width": 16', '"width": 32'))
    with pytest.raises(DamagedError, match="does not fit"):
        load("transformer", tmp_path / "saved")


def test_an_interpreter_of_an_earlier_encyclo_loads(tmp_path: Path):
    """Names in the two files are older than those in the code."""
    interpreter = train("transformer", make_samples(120, described=2), tmp_path)
    saved(interpreter, tmp_path / "saved")
    names = set(load_file(tmp_path / "saved" / "model.safetensors"))
    assert {"encoder.meaning.describing", "encoder.meaning.share", "encoder.meaning.correct.0.1.hidden.bias",
            "encoder.blocks.layers.0.linear1.weight", "crowding.bank", "crowding.owner", "prototypes"} <= names  # fmt: skip
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert list(config) == ["interpreter", "shape", "crowding", "trained_on", "concepts"]
    assert {"width", "meaning", "expand", "meaning_dropout", "layers", "hidden"} <= set(config["shape"])
    values = make_samples(20, described=2).read(np.arange(20))
    np.testing.assert_array_equal(
        load("transformer", tmp_path / "saved").read(values), interpreter.read(values)
    )


def test_finding_the_plugin_imports_no_torch():
    code = "import sys, encyclo_interpreters.transformer.plugin; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- logistic ------------------------------------------------------------------------------------------------


def test_logistic_refuses_more_concepts_than_it_can_train(tmp_path: Path):
    samples = make_samples(3)
    with pytest.raises(UsageError, match=r"at most 5,000 concepts and this run has 5,001"):
        logistic.train_interpreter(samples, make_concepts(5001), context_for("logistic", tmp_path))


def test_logistic_fits_the_weights_that_scikit_learn_fits():
    from encyclo_interpreters.regression import Regression

    generator = np.random.default_rng(0)
    values = generator.standard_normal((120, 30)).astype(np.float32)
    truth = generator.integers(0, 7, 120)
    peer = MLPClassifier((), alpha=0.1, batch_size=40, learning_rate_init=0.01, random_state=5, shuffle=False)
    ours = Regression(30, 7, 5, 0.01, 0.1)
    for _ in range(20):
        peer.partial_fit(values, truth, classes=np.arange(7))
        for start in range(0, 120, 40):
            ours.step(values[start : start + 40], truth[start : start + 40])
    weights, bias = ours.weights_and_bias()
    assert np.abs(weights - peer.coefs_[0]).max() < 1e-4
    assert np.abs(bias - peer.intercepts_[0]).max() < 1e-4


def test_logistic_reads_the_samples_of_a_small_run_once(tmp_path: Path):
    samples, reads = make_samples(20), []
    counted = replace(samples, fetch=lambda rows: reads.append(len(rows)) or samples.fetch(rows))
    train("logistic", counted, tmp_path)
    assert len(reads) < 10  # not again in each of a hundred epochs


def test_logistic_reads_no_worse_if_its_samples_come_in_blocks(tmp_path: Path, monkeypatch):
    samples = make_samples(40)
    whole = train("logistic", samples, tmp_path)
    monkeypatch.setattr(logistic, "BLOCK", 8)
    parts = train("logistic", samples, tmp_path)
    assert np.array_equal(whole.weights, parts.weights)
