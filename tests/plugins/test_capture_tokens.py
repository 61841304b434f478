"""Which tokens are pooled, which are computed, and that every prompt is answered exactly once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encyclo.types import POOLINGS, Prompt
from tests.tiny_models import CAUSAL, FAMILIES

TEXTS = ("The cat", "The cat sat on", "The cat sat here", "A dog", "A dog that saw the cat", "cat", "café")


def prompt(text: str, mention: str | None = None) -> Prompt:
    span = None if mention is None else (text.index(mention), text.index(mention) + len(mention))
    return Prompt("c", text, span, "f")


def capture(model, asked, pooling="span", batch_tokens=100_000, layers=(1, 4)):
    from encyclo_capture.capture import capture

    return list(capture(model, asked, layers, pooling, batch_tokens))


def read_tokens(model, one: Prompt, pooling: str) -> str:
    """The text of the tokens that are pooled, special ones included."""
    from encyclo_capture.tokenization import tokenise

    (tokenised,) = tokenise(model, [one], pooling)
    return model.tokenizer.decode([tokenised.ids[place] for place in tokenised.pooled])


def distinct_prefixes(plain, asked, pooling: str) -> int:
    """How many different token prefixes the prompts have up to their last pooled token."""
    prefixes = set()
    for one in asked:
        ids, pooled = plain.ids(one.text), plain.pooled_tokens(one.text, one.span, pooling)
        prefixes |= {tuple(ids[: end + 1]) for end in range(pooled[-1] + 1)}
    return len(prefixes)


@pytest.mark.parametrize(
    ("text", "mention", "pooling", "read"),
    [
        ("The cat is here", "cat", "span", " cat"),
        ("The house is here", "house", "span", " house"),
        ("cat is here", "cat", "span", "cat"),
        ("The cat", "The", "last", "at"),
        ("The cat", None, "span", "at"),
        ("The cat", "The", "mean", "The cat"),
        ("The cat", "The", "mean-all", "<bos>The cat"),
        ("cat<bos>", "cat", "mean", "cat<bos>"),  # written in the text, so the text's own
        ("cat<bos>", "cat", "last", "<bos>"),
        ("The 日本 is here", "日本", "span", "日本"),  # the blank is a token of its own
    ],
)
def test_the_mention_is_read_and_nothing_else(tiny_family, text, mention, pooling, read):
    model, _ = tiny_family("gemma3")
    assert read_tokens(model, prompt(text, mention), pooling) == read


def test_last_is_the_texts_own_last_token(tiny_family):
    """Not the [SEP] that BERT's tokenizer appends."""
    model, plain = tiny_family("bert")
    assert plain.ids("The cat")[-1] == model.tokenizer.eos_token_id
    assert read_tokens(model, prompt("The cat"), "last") == "at"
    assert read_tokens(model, prompt("The cat"), "mean") == "The cat"
    assert read_tokens(model, prompt("The cat"), "mean-all") == "<bos>The cat<eos>"


@pytest.mark.parametrize("family", CAUSAL)
def test_nothing_is_computed_twice_and_nothing_after_the_mention(tiny_family, family):
    model, plain = tiny_family(family)
    asked = [prompt(f"The concept of {word} is here", word) for word in ("cat", "cat", "cats", "dog", "dog")]
    (batch,) = capture(model, asked)
    assert batch.tokens == sum(len(plain.ids(one.text)) for one in asked)
    assert batch.tokens_computed == distinct_prefixes(plain, asked, "span")
    shortest = distinct_prefixes(plain, asked[:1], "span")
    assert (
        batch.tokens_computed < shortest + 8
    )  # the shared prefix once, the three mentions, and no " is here"


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("family", ["gemma3", "gpt2"])
@settings(max_examples=30, deadline=None)
@given(texts=st.lists(st.sampled_from(TEXTS), min_size=1, max_size=12))
def test_distinct_prefixes_are_what_is_computed(tiny_family, family, pooling, texts):
    model, plain = tiny_family(family)
    asked = [prompt(text, text.split()[-1]) for text in texts]
    (batch,) = capture(model, asked, pooling)
    assert batch.tokens_computed == distinct_prefixes(plain, asked, pooling)
    assert batch.tokens == sum(len(plain.ids(text)) for text in texts)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15, deadline=None)
@given(texts=st.lists(st.sampled_from(TEXTS), min_size=1, max_size=12), batch_tokens=st.integers(1, 60))
def test_every_prompt_is_answered_once(tiny_family, family, texts, batch_tokens):
    model, _ = tiny_family(family)
    asked = [prompt(text, text.split()[-1]) for text in texts]
    batches = capture(model, asked, batch_tokens=batch_tokens)
    positions = np.concatenate([batch.positions for batch in batches])
    assert positions.dtype == np.int64
    assert sorted(positions) == list(range(len(asked)))
    for batch in batches:
        assert batch.activations.shape == (len(batch.positions), 2, model.hidden_size)
        assert batch.tokens_computed <= batch_tokens or len(batch.positions) == 1


@pytest.mark.parametrize("family", CAUSAL)
def test_equal_prompts_get_equal_bits(tiny_family, family):
    model, _ = tiny_family(family)
    asked = [prompt("The cat sat", "cat"), prompt("A dog", "dog"), prompt("The cat slept", "cat")]
    (batch,) = capture(model, asked)
    rows = batch.activations[np.argsort(batch.positions)]
    np.testing.assert_array_equal(rows[0], rows[2])  # what follows the mention can't matter
    assert not np.allclose(rows[0], rows[1])


def test_padded_tokens_are_counted_for_bert(tiny_family):
    model, plain = tiny_family("bert")
    asked = [prompt("The cat", "cat"), prompt("The cat sat on the mat with the other cat", "cat")]
    (batch,) = capture(model, asked)
    lengths = [len(plain.ids(one.text)) for one in asked]
    assert (batch.tokens, batch.tokens_computed) == (sum(lengths), 2 * max(lengths))


@pytest.mark.parametrize("batch_tokens", [8, 30, 4096])
def test_equal_texts_are_computed_once_by_bert_too(tiny_family, batch_tokens):
    """With every pooling."""
    model, plain = tiny_family("bert")
    asked = [prompt("The cat sat", mention) for mention in ("cat", "sat", "cat", None)]
    asked += [prompt("The dog sat", "dog")] * 2
    batches = capture(model, asked, batch_tokens=batch_tokens)
    assert sum(batch.tokens_computed for batch in batches) == sum(
        len(plain.ids(text)) for text in ("The cat sat", "The dog sat")
    )


@pytest.mark.parametrize("family", ["gemma3", "bert"])
def test_no_prompt_gives_no_batch(tiny_family, family):
    model, _ = tiny_family(family)
    assert capture(model, []) == []


def test_forward_gives_every_token(tiny_family):
    model, plain = tiny_family("gemma3")
    texts = ["The cat sat on the mat", "cat"]
    for text, states in zip(texts, model.forward(texts, [0, 2, 4]), strict=True):
        wanted = plain.states(text)[[0, 2, 4]].transpose(1, 0, 2)
        assert states.dtype == np.float32
        np.testing.assert_allclose(states, wanted, rtol=1e-4, atol=1e-4)
