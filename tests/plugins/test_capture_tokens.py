"""Which tokens are pooled, which are computed, and that every prompt is answered exactly once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encyclo.types import POOLINGS, Prompt
from tests.tiny_models import CAUSAL, FAMILIES, build_tokenizer, write_model

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
        ("<bos>The cat", "cat", "mean", "The cat"),  # the text brings its own: special, and no second one
        ("<bos>The cat", "cat", "mean-all", "<bos>The cat"),
        ("<bos>", None, "mean-all", "<bos>"),
        ("The 日本 is here", "日本", "span", "日本"),  # the blank is a token of its own
    ],
)
def test_the_mention_is_read_and_nothing_else(tiny_family, text, mention, pooling, read):
    model, _ = tiny_family("gemma3")
    assert read_tokens(model, prompt(text, mention), pooling) == read


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_that_brings_its_own_bos_gets_no_second_one(tiny_family, family):
    model, plain = tiny_family(family)
    starts = plain.ids("The cat")[0] == model.tokenizer.bos_token_id
    spans = model.tokens("<bos>The cat")
    assert spans == [
        (0, 0),
        *((a + 5, b + 5) for a, b in model.tokens("The cat") if b),
        *[(0, 0)] * (family == "bert"),
    ]
    if starts:
        ours, theirs = model.forward(["<bos>The cat", "The cat"], [1, 4])
        np.testing.assert_array_equal(ours, theirs)
    twice = model.tokens("<bos><bos>The cat")  # two that are written are two
    assert len(twice) == len(spans) + 1


def test_a_token_that_starts_every_text_is_special_whatever_it_is_called(tmp_path):
    """BERT's tokenizers call it CLS, and have no BOS."""
    from encyclo_capture.model import TransformersModel

    tokenizer = build_tokenizer(ends=True)
    tokenizer.cls_token, tokenizer.bos_token = "<bos>", None
    write_model(tmp_path, "bert", tokenizer=tokenizer)
    model = TransformersModel(str(tmp_path), "cpu", "float32")
    assert read_tokens(model, prompt("<bos>The cat"), "mean") == "The cat"
    assert read_tokens(model, prompt("<bos>The cat"), "mean-all") == "<bos>The cat<eos>"


def spaceless_tokenizer(kind: str):
    """A tokenizer that puts a blank before a text's first word, as Llama's and Mistral's do."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "<bos>", "<eos>", "<pad>", "\u2581", "\u2581the", "日", "本", "犬", "."]
    tokenizer = Tokenizer(models.Unigram([(piece, -float(len(piece) == 1)) for piece in pieces], unk_id=0))
    blank = normalizers.Replace(" ", "\u2581")
    if kind == "normalizer":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), blank])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind)
    tokenizer.add_special_tokens(pieces[:4])
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    names = {f"{name}_token": f"<{name}>" for name in ("unk", "bos", "eos", "pad")}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


@pytest.mark.parametrize("kind", ["normalizer", "first", "always"])
def test_a_blank_that_the_tokenizer_puts_before_a_word_is_no_part_of_it(tmp_path, kind):
    from encyclo_capture.model import TransformersModel

    folder = write_model(tmp_path / "model", "llama", spaceless_tokenizer(kind))
    model = TransformersModel(str(folder), "cpu", "float32")
    assert model.tokenizer.tokenize("日本犬") == ["\u2581", "日", "本", "犬"]
    assert model.tokens("日本") == [(0, 0), (0, 0), (0, 1), (1, 2)]
    assert read_tokens(model, prompt("日本犬", "日本"), "span") == "日 本"
    assert read_tokens(model, prompt("日本", "日本"), "mean") == "日 本"
    # A blank that is written in the text is the text's own.
    assert model.tokens("the 犬") == [(0, 0), (0, 3), (3, 4), (4, 5)]
    assert read_tokens(model, prompt("the 犬", "犬"), "span") == "犬"
    (batch,) = capture(model, [prompt("犬.", "犬")])
    states = model.forward(["犬."], (1, 4))[0]
    np.testing.assert_allclose(batch.activations[0], states[2], rtol=1e-4, atol=1e-5)


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
