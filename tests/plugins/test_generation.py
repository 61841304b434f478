"""Generation on tiny models: the tokens that a plain loop draws, and no text depends on its company."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pytest
import torch

from encyclo.errors import CaptureError, UsageError
from encyclo.types import Opening
from encyclo_capture.generation import engine, prefix_attention, scoring_head
from encyclo_capture.loading.silence import quiet_transformers
from encyclo_capture.model import TransformersModel
from tests import tiny_models

PREFIX = (
    "The word was written on the blackboard, and nobody in the village had ever seen it."  # over the window
)
NAMES = ("dog", "water", "the railway station", "patience", "a", "bright light in the", "story", "run")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory):
    """family, dtype -> a handle of a tiny model with a language-model head."""

    @cache
    def load(family: str, dtype: str = "float32") -> TransformersModel:
        from transformers import AutoModelForCausalLM

        folder = tiny_models.write_model(tmp_path_factory.mktemp("generating") / family, family)
        if family not in ("gemma3", "gpt2"):  # these two use their embedding as the head
            torch.manual_seed(1)
            with quiet_transformers():
                network = AutoModelForCausalLM.from_pretrained(folder)
                torch.nn.init.normal_(network.get_output_embeddings().weight, std=0.25)
                network.save_pretrained(folder)
        return TransformersModel(str(folder), "cpu", dtype)

    return load


def openings(temperature: float = 1.0, names=NAMES, **more) -> list[Opening]:
    return [Opening(f"{name}:", temperature, number, **more) for number, name in enumerate(names)]


def plain_greedy(model: TransformersModel, opening: Opening, tokens: int) -> list[int]:
    """Draw the likeliest of the allowed tokens, one by one, each by a whole pass of transformers' own model."""
    from transformers import AutoModelForCausalLM

    with quiet_transformers():
        network = AutoModelForCausalLM.from_pretrained(model.weights.folder, dtype=torch.float32).eval()
    own = model.tokenizer(opening.text, add_special_tokens=False)["input_ids"]
    ids = model.tokenizer(PREFIX)["input_ids"] + own
    allowed = torch.tensor(sorted(model.scoring_head.allowed | set(own)))
    drawn: list[int] = []
    for _ in range(tokens):
        with torch.no_grad():
            scores = network(torch.tensor([ids + drawn])).logits[0, -1, allowed]
        token = int(allowed[scores.argmax()])
        if token == model.tokenizer.eos_token_id:
            break
        drawn.append(token)
    return drawn


@pytest.mark.parametrize("family", tiny_models.CAUSAL)
def test_the_likeliest_tokens_are_those_of_a_plain_loop(tiny, family, monkeypatch):
    monkeypatch.setattr(engine, "END_GROWTH", 0.0)
    model = tiny(family)
    asked = openings(0.0)
    texts = model.generate(PREFIX, asked, 8)
    assert texts == [model.tokenizer.decode(plain_greedy(model, opening, 8)) for opening in asked]
    assert len(set(texts)) > 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_text_depends_on_nothing_else_in_the_batch(tiny, dtype):
    model = tiny("gemma3", dtype)
    names = [f"{name} {n}" for n in range(40) for name in NAMES]  # more than there are rows, of two lengths
    asked = openings(1.3, names)
    together = model.generate(PREFIX, asked, 12)
    backwards = model.generate(PREFIX, asked[::-1], 12)[::-1]
    assert together == backwards
    some = range(0, len(asked), 41)
    assert [model.generate(PREFIX, [asked[n]], 12)[0] for n in some] == [together[n] for n in some]
    assert len(set(together)) > 300


def test_rows_are_bitwise_the_same_wherever_they_stand(tiny):
    """In bfloat16 too: that is what texts that don't depend on their company rest on."""
    model = tiny("gemma3", "bfloat16")
    ids = model.tokenizer(" ".join(NAMES), add_special_tokens=False)["input_ids"][:8]
    states = {}
    for place in (0, 5, 127):
        tokens = torch.randint(10, 1000, (engine.ROWS, 8), generator=torch.Generator().manual_seed(place))
        tokens[place] = torch.tensor(ids)
        own = prefix_attention.Rows(torch.zeros(engine.ROWS, dtype=torch.int64), 8)
        with (
            torch.inference_mode(),
            prefix_attention.even_threads(),
            prefix_attention.attending(model.network, own),
        ):
            model.network(input_ids=torch.tensor([[2, 9, 8]]), use_cache=False)
            own.reading_prefix = False
            for step in range(8):
                own.place = torch.full((engine.ROWS,), step)
                positions = (own.place + 3)[:, None]
                out = model.network(
                    input_ids=tokens[:, step : step + 1], position_ids=positions, use_cache=False
                )
        states[place] = out.last_hidden_state[place, 0]
    assert torch.equal(states[0], states[5]) and torch.equal(states[0], states[127])


def test_the_seed_decides_and_temperature_zero_needs_none(tiny):
    model = tiny("gemma3")

    def said(temperature: float, seed: int) -> str:
        return model.generate(PREFIX, [Opening("dog:", temperature, seed)], 12)[0]

    assert said(1.5, 1) == said(1.5, 1)
    assert len({said(1.5, seed) for seed in range(5)}) > 1
    assert len({said(0.0, seed) for seed in range(3)}) == 1


def test_global_random_state_is_left_alone(tiny):
    model = tiny("gemma3")
    torch.manual_seed(3)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    first = model.generate(PREFIX, openings(1.0), 4)
    torch.manual_seed(4)
    assert model.generate(PREFIX, openings(1.0), 4) == first
    torch.manual_seed(3)
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == threads
    assert model.network.config._attn_implementation != prefix_attention.NAME


def test_a_text_ends_at_the_end_of_the_first_match(tiny, monkeypatch):
    model, drawn = tiny("gemma3"), []
    draw = engine._draw
    monkeypatch.setattr(engine, "_draw", lambda *given: drawn.append(len(given[-1])) or draw(*given))
    whole = model.generate(PREFIX, openings(1.0), 20)
    drawn_whole = sum(drawn)
    drawn.clear()
    texts = model.generate(PREFIX, openings(1.0), 20, r"[aeiou][^aeiou]")
    for text, other in zip(texts, whole, strict=True):
        match = re.search(r"[aeiou][^aeiou]", other)
        assert text == (other[: match.end()] if match else other)
    assert any(text != other for text, other in zip(texts, whole, strict=True))
    assert sum(drawn) < drawn_whole / 2  # nothing is drawn behind a match


def test_openings_of_any_length_are_answered_in_their_order(tiny):
    """Length classes are continued one after the other; a text is what it is when asked for alone."""
    model = tiny("gemma3")
    asked = [Opening("story " * number, 1.0, 50 + number) for number in (9, 1, 20, 2, 7)]
    texts = model.generate(PREFIX, asked, 8)
    assert texts == [model.generate(PREFIX, [opening], 8)[0] for opening in asked]
    assert len(set(texts)) == len(asked)


def test_max_new_tokens_bounds_a_text(tiny, monkeypatch):
    model, drawn = tiny("gemma3"), []
    draw = engine._draw
    monkeypatch.setattr(engine, "_draw", lambda *given: drawn.append(len(given[-1])) or draw(*given))
    texts = model.generate(PREFIX, openings(1.0), 3)
    assert 2 * len(NAMES) < sum(drawn) <= 3 * len(NAMES)
    longer = model.generate(PREFIX, openings(1.0), 9)
    assert all(other.startswith(text) for text, other in zip(texts, longer, strict=True))


def test_a_required_word_comes_more_often(tiny):
    model = tiny("gemma3")
    names = [f"entry {n}" for n in range(60)]

    def wished(*required_words: str) -> int:
        texts = model.generate(PREFIX, openings(1.0, names, required_words=required_words), 16)
        return sum("water" in text for text in texts)

    assert wished("water") > wished() + 10


def test_only_text_is_generated(tiny):
    head = tiny("gemma3").scoring_head
    for token in head.allowed - {head.end}:
        assert scoring_head.TEXT.fullmatch(head.pieces[token])
    assert not head.allowed & (set(head._tokenizer.all_special_ids) - {head.end})
    pieces = {head.pieces[token] for token in head.allowed}
    assert {".", ",", "?", "!", "'", '"', " the", "\n"} <= pieces


def test_a_rare_token_of_the_opening_can_be_generated(tiny, monkeypatch):
    """The head is cut down to frequent tokens; a name made of rare ones must stay sayable."""
    monkeypatch.setattr(scoring_head, "FREQUENT", 700)
    model = TransformersModel(str(tiny("gemma3").weights.folder), "cpu", "float32")
    rare = next(i for i in range(700, 1100) if model.scoring_head.pieces[i].startswith(" "))
    assert rare not in model.scoring_head.allowed
    word = model.scoring_head.pieces[rare].strip()
    texts = model.generate(PREFIX, [Opening(f"{word} {word}", 2.0, n, (word,)) for n in range(30)], 12)
    assert any(word in text for text in texts)
    begun = engine._begin(Opening(word, 1.0, 0), [rare, 9], 16, model.scoring_head, 4)
    assert rare in begun.rare


def test_nothing_asked_nothing_said(tiny):
    assert tiny("gemma3").generate(PREFIX, [], 5) == []


@pytest.mark.parametrize(
    ("prefix", "opening", "said"),
    [(PREFIX, "", "openings of at least one token"), (PREFIX, "dog " * 300, "leaves no room")],
)
def test_bad_openings_are_refused(tiny, prefix, opening, said):
    with pytest.raises((UsageError, CaptureError), match=said):
        tiny("gemma3").generate(prefix, [Opening(opening, 1.0, 0)], 5)


def test_a_model_that_is_not_causal_is_refused_with_the_way_out(tiny_family):
    model, _ = tiny_family("bert")
    with pytest.raises(UsageError, match=r"'.*bert' can't generate.*-o diverse.generated=0"):
        model.generate(PREFIX, [Opening("dog", 1.0, 0)], 5)


def test_scores_that_are_not_finite_stop_generation(tiny):
    model = TransformersModel(str(tiny("gemma3").weights.folder), "cpu", "float32")
    assert model.shares_prefixes
    with torch.no_grad():
        model.network.norm.weight.fill_(float("nan"))
    with pytest.raises(CaptureError, match="not finite"):
        model.generate(PREFIX, openings(1.0), 4)


def test_a_soft_cap_and_a_bias_reach_the_scores(tiny):
    head = scoring_head.ScoringHead(tiny("llama"))
    hidden = torch.from_numpy(np.random.default_rng(0).normal(size=(3, tiny_models.HIDDEN))).float()
    rare = torch.tensor([[5, -1], [6, 7], [-1, -1]])
    often, seldom = head.score(hidden, rare)
    assert torch.isinf(seldom[0, 1]) and torch.isfinite(seldom[1]).all()
    torch.testing.assert_close(seldom[1, 0], hidden[1] @ head.weight[6])
    head.bias = torch.arange(len(head.weight)) / 100
    head.cap = 0.5
    bent, _ = head.score(hidden, rare)
    torch.testing.assert_close(bent, torch.tanh((often + head.bias[head.ids]) / 0.5) * 0.5)


@pytest.mark.real
@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float32", marks=pytest.mark.slow)])
def test_the_real_model_says_the_same_in_any_company(dtype):
    model = TransformersModel("gemma-3-270m", "cpu", dtype)
    asked = openings(1.0, [f"{name} {n}" for n in range(17) for name in NAMES])
    together = model.generate(PREFIX, asked, 4)
    chosen = [3, 44, 131]
    assert model.generate(PREFIX, [asked[n] for n in chosen], 4) == [together[n] for n in chosen]
