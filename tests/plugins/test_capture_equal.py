"""Every way through the capture equals a plain forward pass of one prompt at a time, to 1e-5 in float32."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from encyclo.runs.session import resolve_layer
from encyclo.types import POOLINGS, Prompt
from tests.plain_forward import PlainModel, relative_error
from tests.tiny_models import CAUSAL, FAMILIES, LAYERS, WINDOW, build_tokenizer, write_model

TOLERANCE = 1e-5
EVERY_LAYER = tuple(range(-LAYERS - 1, LAYERS + 1))
MENTIONS = (
    "house",
    "democracy",
    "extraordinarily long-winded thing",
    "café",
    "Straße",
    "日本",
    "a",
    "ice cream",
)
BEFORE = (
    "",
    "The ",
    "The concept of ",
    "The concept of the other ",
    "In the old story nobody had ever seen such a thing as a ",
    "“",
    "<bos>",
    "A <bos>",
)
AFTER = ("", ".", " is here", " is", ", which nobody in the old story had ever seen before, was gone.")


def make(before: str, mention: str, after: str, named: bool = True) -> Prompt:
    span = (len(before), len(before) + len(mention)) if named else None
    return Prompt("c", before + mention + after, span, "f")


# Mentions at the start, in the middle and at the end, of one token and of many; prefixes shared or not.
CORPUS = [make(b, m, a) for b in BEFORE[:5] for m in MENTIONS[:6:2] for a in (AFTER[0], AFTER[4])] + [
    make(b, m, a, named=False) for b in (*BEFORE[1:3], *BEFORE[-2:]) for m in MENTIONS[:2] for a in AFTER
]


@st.composite
def prompts(draw: st.DrawFn) -> list[Prompt]:
    """Prompts out of few pieces, so that prefixes and whole prompts coincide; and free texts."""
    piece = st.builds(
        make,
        st.sampled_from(BEFORE),
        st.sampled_from(MENTIONS),
        st.sampled_from(AFTER),
        st.booleans() | st.just(True),
    )
    free = st.text(
        st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_categories=["Cs"]), max_size=6
    )
    odd = st.builds(make, free, st.sampled_from(MENTIONS), free)
    return draw(st.lists(piece | odd, min_size=1, max_size=8))


def captured(model, asked: Sequence[Prompt], layers: Sequence[int], pooling: str, batch_tokens: int):
    """The captured activations in the order of the prompts; every prompt answered exactly once."""
    from encyclo_capture.capture import capture

    index = [resolve_layer(layer, model) for layer in layers]
    batches = list(capture(model, asked, index, pooling, batch_tokens))
    positions = np.concatenate([batch.positions for batch in batches])
    assert sorted(positions) == list(range(len(asked)))
    values = np.concatenate([batch.activations for batch in batches])
    assert values.dtype == np.float32
    return values[np.argsort(positions)], batches


def assert_equal(model, plain, asked, layers, pooling, batch_tokens) -> None:
    values, _ = captured(model, asked, layers, pooling, batch_tokens)
    wanted = np.stack([plain.read(prompt, layers, pooling) for prompt in asked])
    assert values.shape == wanted.shape
    assert relative_error(values, wanted).max() < TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_causal_families_use_trees_and_bert_does_not(tiny_family, family):
    model, _ = tiny_family(family)
    assert model.dtype == "float32"
    assert model.shares_prefixes is (family in CAUSAL)


@pytest.mark.parametrize("family", FAMILIES)
def test_order_and_windows_matter_in_the_tiny_models(tiny_family, family):
    """Else the comparisons below would prove nothing."""
    import torch

    _, plain = tiny_family(family)

    def last(ids: Sequence[int]) -> np.ndarray:
        with torch.no_grad():
            hidden = plain.network(torch.tensor([ids]), output_hidden_states=True).hidden_states
        return np.stack([h[0, -1].numpy() for h in hidden[1:]])

    ids = list(range(100, 100 + 2 * WINDOW))
    near, far = [*ids[:-4], ids[-3], ids[-4], *ids[-2:]], [ids[1], ids[0], *ids[2:]]
    assert (relative_error(last(near), last(ids)) > 0.03).all()
    beyond_window = float(relative_error(last(far), last(ids))[0])
    # The first block's last token sees the first two tokens, unless a window hides them.
    assert (beyond_window < 1e-6) is (family in ("gemma3", "qwen3", "mistral"))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_plain_forward_on_every_layer(tiny_family, family, pooling):
    model, plain = tiny_family(family)
    for batch_tokens in (1, 50, 100_000):
        assert_equal(model, plain, CORPUS, EVERY_LAYER, pooling, batch_tokens)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    asked=prompts(),
    layers=st.lists(st.sampled_from(EVERY_LAYER), min_size=1, max_size=4, unique=True),
    batch_tokens=st.sampled_from([1, 2, 7, 20, 64]) | st.integers(1, 4096),
)
def test_equals_plain_forward_whatever_is_asked(tiny_family, family, pooling, asked, layers, batch_tokens):
    model, plain = tiny_family(family)
    assert_equal(model, plain, asked, layers, pooling, batch_tokens)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    count=st.integers(1, 512),
    pooling=st.sampled_from(POOLINGS),
    layers=st.lists(st.sampled_from(EVERY_LAYER), min_size=1, max_size=3, unique=True),
    random=st.randoms(use_true_random=False),
)
def test_batches_of_1_to_512_prompts(tiny_family, family, count, pooling, layers, random):
    model, plain = tiny_family(family)
    asked = [
        make(random.choice(BEFORE), random.choice(MENTIONS), random.choice(AFTER), random.random() < 0.8)
        for _ in range(count)
    ]
    values, batches = captured(model, asked, layers, pooling, 10**6)
    assert [len(batch.positions) for batch in batches] == [count]
    wanted = np.stack([plain.read(prompt, layers, pooling) for prompt in asked])
    assert relative_error(values, wanted).max() < TOLERANCE


@pytest.mark.parametrize("layer", [0, 1, LAYERS - 1, LAYERS])
@pytest.mark.parametrize("family", FAMILIES)
def test_one_layer_alone(tiny_family, family, layer):
    """The pass stops after the deepest layer asked for, whichever it is, and only the last has the final norm."""
    model, plain = tiny_family(family)
    assert_equal(model, plain, CORPUS[:10], [layer], "span", 4096)


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_too_long_for_a_tree(tiny_family, family):
    """Long prompts run in padded batches, short ones in trees, in the same capture."""
    from encyclo_capture.capture import LONGEST_IN_TREE

    model, plain = tiny_family(family)
    long = "the cat sat on the mat and " * 24
    asked = [
        make(long, "cat", ""),
        make("The ", "cat", ""),
        make(long[8:], "dog", " was"),
        make("The ", "cat", long),
    ]
    lengths = [len(plain.ids(prompt.text)) for prompt in asked]
    assert LONGEST_IN_TREE < lengths[0] <= 256 and lengths[2] > LONGEST_IN_TREE
    for pooling in POOLINGS:
        assert_equal(model, plain, asked, (0, 2, -1), pooling, 600)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
@pytest.mark.parametrize("starts", [True, False])
@pytest.mark.parametrize(
    "specials",
    [
        ("<pad>", "<eos>", "<bos>", "<unk>"),
        ("<bos>", "<eos>", "<unk>", "<pad>"),
        ("<eos>", "<pad>", "<unk>", "<bos>"),
    ],
    ids=["pad-0", "bos-0", "eos-0"],
)
def test_padding_side_and_special_ids_change_nothing(tmp_path, family, starts, specials):
    """Left or right padding, with or without BOS, pad or BOS of id 0: the numbers of the same model."""
    from encyclo_capture.model import TransformersModel

    found = {}
    for side in ("left", "right"):
        folder = tmp_path / side
        write_model(folder, family, build_tokenizer(starts, family == "bert", side, specials), specials)
        model, plain = TransformersModel(str(folder), "cpu", "float32"), PlainModel(folder)
        assert model.tokenizer.padding_side == side
        assert model.tokenizer.convert_tokens_to_ids(list(specials)) == [0, 1, 2, 3]
        assert (plain.ids("cat")[0] == model.tokenizer.bos_token_id) is starts
        for pooling in POOLINGS:
            assert_equal(model, plain, CORPUS[:16], (0, -2, -1), pooling, 64)
            found[side, pooling] = captured(model, CORPUS[:16], (0, -2, -1), pooling, 64)[0]
    default = tmp_path / "default"
    write_model(default, family, build_tokenizer(starts, family == "bert"))
    plain = PlainModel(default)
    for pooling in POOLINGS:
        np.testing.assert_array_equal(found["left", pooling], found["right", pooling])
        # The same weights behind other ids: the default tokenizer's numbers.
        wanted = np.stack([plain.read(prompt, (0, -2, -1), pooling) for prompt in CORPUS[:16]])
        assert relative_error(found["left", pooling], wanted).max() < TOLERANCE


def test_bfloat16_stays_near_float32(tiny_family):
    from encyclo_capture.model import TransformersModel

    model, plain = tiny_family("gemma3")
    coarse = TransformersModel(model.name, "cpu", "bfloat16")
    assert coarse.shares_prefixes
    values, _ = captured(coarse, CORPUS, (1, -1), "span", 512)
    wanted = np.stack([plain.read(prompt, (1, -1), "span") for prompt in CORPUS])
    error = relative_error(values, wanted).max()
    assert 1e-4 < error < 0.05  # bfloat16 has 8 bits; and it was really used


@pytest.mark.real
def test_bfloat16_on_the_real_model_errs_as_a_plain_pass_does():
    """Two bfloat16 orders of summation differ; both are judged against float32, layer by layer."""
    from encyclo_capture.model import TransformersModel
    from encyclo_concepts.core import CATEGORIES, read_category
    from encyclo_samplers.templates import Options, draw, fill, grouped_templates

    concepts = [concept for category in CATEGORIES for concept in read_category(category)]
    spread = concepts[:: len(concepts) // 20][:20]
    asked = [
        fill(template, concept)
        for seed, concept in enumerate(spread)
        for template in draw(grouped_templates(concept, Options()), 3, Random(seed))
    ]
    assert len(asked) == 60
    model = TransformersModel("gemma-3-270m", "cpu", "bfloat16")
    assert model.shares_prefixes
    layers = list(range(1, model.depth + 1))
    ours, _ = captured(model, asked, layers, "span", 4096)
    exact, plain = (
        np.stack([reference.read(prompt, layers, "span") for prompt in asked])
        for reference in (
            PlainModel(model.weights.folder, "float32", "sdpa"),
            PlainModel(model.weights.folder, "bfloat16", "sdpa"),
        )
    )
    error, allowed = (relative_error(values, exact).mean(axis=0) for values in (ours, plain))
    print("error of ours over the plain pass's, a layer:", np.round(error / allowed, 3))
    assert (error <= 1.25 * allowed).all(), error / allowed
