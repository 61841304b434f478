"""Generation on tiny models: the tokens that a plain loop draws, and the same texts for the same call."""

from __future__ import annotations

import re
from functools import cache

import pytest
import torch

from encyclo.errors import CaptureError, UsageError
from encyclo.types import Opening
from encyclo_capture.cpu.workers import replica_of
from encyclo_capture.generation import drawing, growing_texts
from encyclo_capture.generation import vocabulary as vocabularies
from encyclo_capture.generation.drawing import Batch
from encyclo_capture.generation.vocabulary import Vocabulary
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


def vocabulary(model: TransformersModel, opening: Opening) -> Vocabulary:
    encoded = [
        model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (PREFIX, opening.text)
    ]
    return Vocabulary(model, encoded, opening.required_words)


def openings(temperature: float = 1.0, names=NAMES, **more) -> list[Opening]:
    return [Opening(f"{name}:", temperature, number, **more) for number, name in enumerate(names)]


def plain_greedy(model: TransformersModel, opening: Opening, tokens: int) -> list[int]:
    """Draw the likeliest of the allowed tokens, one by one, each by a whole pass of transformers' own model."""
    from transformers import AutoModelForCausalLM

    with quiet_transformers():
        network = AutoModelForCausalLM.from_pretrained(model.weights.folder, dtype=torch.float32).eval()
    own = model.tokenizer(opening.text, add_special_tokens=False)["input_ids"]
    ids = model.tokenizer(PREFIX)["input_ids"] + own
    cut = vocabulary(model, opening)
    allowed = cut.ids[~cut.forbidden]
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
    monkeypatch.setattr(drawing, "END_GROWTH", 0.0)
    model = tiny(family)
    texts = []
    for opening in openings(0.0):
        (text,) = model.generate(PREFIX, [opening], 8)
        assert text == model.tokenizer.decode(plain_greedy(model, opening, 8))
        texts.append(text)
    assert len(set(texts)) > 1


def test_padding_changes_nothing(tiny):
    """Openings of several lengths share a batch; a short prefix, since padding takes room in a sliding window."""
    model = tiny("llama")
    words = " ".join(NAMES)  # every token may be generated in each call
    asked = [Opening(opening.text, 0.0, 0, tuple(words.split())) for opening in openings()]
    together = model.generate(f"{words}.", [*asked, Opening(words, 0.0, 0)], 8)
    alone = [model.generate(f"{words}.", [opening, Opening(words, 0.0, 0)], 8)[0] for opening in asked]
    assert together[:-1] == alone


@pytest.mark.parametrize("family", ["gemma3", "gpt2", "llama"])  # gemma3 has a window that hides the prefix
def test_growing_texts_have_the_states_of_whole_passes(tiny, family, monkeypatch):
    """Texts of several lengths grow; half of them are dropped, and room is made twice."""
    monkeypatch.setattr(growing_texts, "ROOM", 3)
    network = tiny(family).network
    tokens = torch.randint(1, 200, (4, 30), generator=torch.Generator().manual_seed(0))
    prefix, lengths = tokens[0, :9], [2, 5, 1, 4]

    def whole(row: int, length: int) -> torch.Tensor:
        ids = torch.cat([prefix, tokens[row, :length]])[None]
        return network(ids, use_cache=False).last_hidden_state[0, -1:]

    with torch.inference_mode():
        body = replica_of(network)
        shared = growing_texts.GrowingTexts(body)
        shared.begin([prefix])
        texts = growing_texts.GrowingTexts(body, shared)
        states = texts.begin([tokens[row, :length] for row, length in enumerate(lengths)])
        going = list(range(4))
        for step in range(8):
            expected = torch.stack([whole(row, lengths[row] + step) for row in going])
            torch.testing.assert_close(states, expected, rtol=1e-3, atol=1e-4)
            if step == 4:
                texts.keep(torch.tensor([0, 3]))
                going = [0, 3]
            states = texts.grow(torch.stack([tokens[row, lengths[row] + step] for row in going]))


def test_ended_texts_are_dropped_and_the_others_stay_the_same(tiny, monkeypatch):
    model, sizes = tiny("llama"), []
    draw = Batch.draw
    monkeypatch.setattr(
        Batch, "draw", lambda self, *given: sizes.append(len(given[-1])) or draw(self, *given)
    )
    asked = openings(1.0, [f"{name} {n}" for n in range(3) for name in NAMES])
    stop = r"[aeiou][^aeiou]"
    dropping = model.generate(PREFIX, asked, 40, stop)
    assert sizes[-1] <= sizes[0] / 2
    sizes.clear()
    monkeypatch.setattr(drawing, "DROPPED_FROM", 0.0)
    assert model.generate(PREFIX, asked, 40, stop) == dropping
    assert len(set(sizes)) == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_same_call_gives_the_same_texts(tiny, dtype):
    model = tiny("gemma3", dtype)
    asked = openings(1.3, [f"{name} {n}" for n in range(40) for name in NAMES])  # more than a batch
    texts = model.generate(PREFIX, asked, 12)
    assert model.generate(PREFIX, asked, 12) == texts
    assert len(set(texts)) > 240


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


def count_steps(monkeypatch) -> list[int]:
    steps: list[int] = []
    draw = Batch.draw
    monkeypatch.setattr(Batch, "draw", lambda *given: steps.append(len(given[-1])) or draw(*given))
    return steps


def test_a_text_ends_at_the_end_of_the_first_match(tiny, monkeypatch):
    model, steps = tiny("gemma3"), count_steps(monkeypatch)
    whole = model.generate(PREFIX, openings(1.0), 40)
    steps_whole = len(steps)
    steps.clear()
    texts = model.generate(PREFIX, openings(1.0), 40, r"[aeiou][^aeiou]")
    for text, other in zip(texts, whole, strict=True):
        match = re.search(r"[aeiou][^aeiou]", other)
        assert text == (other[: match.end()] if match else other)
    assert any(text != other for text, other in zip(texts, whole, strict=True))
    assert len(steps) < steps_whole / 2  # nothing is drawn once every text has its match


def test_texts_are_answered_in_the_order_of_their_openings(tiny):
    """Openings are sorted by length; greedy texts tell whose they are."""
    model = tiny("gemma3")
    asked = [Opening("story " * number, 0.0, number) for number in (9, 1, 20, 2, 7)]
    texts = model.generate("The", asked, 8)
    assert texts[::-1] == model.generate("The", asked[::-1], 8)
    assert len(set(texts)) > 1


def test_max_new_tokens_bounds_a_text(tiny, monkeypatch):
    model, steps = tiny("gemma3"), count_steps(monkeypatch)
    texts = model.generate(PREFIX, openings(1.0), 3)
    assert len(steps) == 3
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
    model = tiny("gemma3")
    cut = vocabulary(model, Opening("dog:", 1.0, 0))
    pieces = [piece for piece, not_drawn in zip(cut.pieces, cut.forbidden, strict=True) if not not_drawn]
    end = cut.pieces[cut.end]
    assert all(vocabularies.TEXT.fullmatch(piece) for piece in pieces if piece != end)
    assert {".", ",", "?", "!", "'", '"', " the", "\n"} <= set(pieces)
    special = set(model.tokenizer.all_special_tokens) - {end}
    assert not special & set(pieces)


def test_a_rare_token_of_the_opening_can_be_generated(tiny, monkeypatch):
    """The vocabulary is cut down to frequent tokens; a name made of rare ones must stay sayable."""
    monkeypatch.setattr(vocabularies, "FREQUENT", 700)
    monkeypatch.setattr(vocabularies, "pieces_of", vocabularies.pieces_of.__wrapped__)  # remembers nothing
    model = tiny("gemma3")
    pieces, _ = vocabularies.pieces_of(model.tokenizer, len(model.head[0]))
    rare = next(i for i in range(700, 1100) if pieces[i].startswith(" "))
    assert rare not in vocabulary(model, Opening("dog", 1.0, 0)).ids
    word = pieces[rare].strip()
    assert rare in vocabulary(model, Opening(f"the {word}", 1.0, 0)).ids
    texts = model.generate(PREFIX, [Opening(f"{word} {word}", 2.0, n, (word,)) for n in range(30)], 12)
    assert any(word in text for text in texts)


def test_nothing_asked_nothing_said(tiny):
    assert tiny("gemma3").generate(PREFIX, [], 5) == []


@pytest.mark.parametrize(
    ("prefix", "opening", "said"),
    [(PREFIX, "", "openings of at least one token"), (PREFIX, "dog " * 300, "new tokens exceed its limit")],
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


def test_a_bias_reaches_the_scores(tiny):
    model = TransformersModel(str(tiny("llama").weights.folder), "cpu", "float32")
    weight, _ = model.head
    bias = torch.arange(len(weight)) / 100
    model.__dict__["head"] = weight, bias
    ids, hidden = torch.tensor([5, 7]), torch.ones(1, 1, tiny_models.HIDDEN)
    scores = vocabularies.causal_network(model, ids).get_output_embeddings()(hidden)
    torch.testing.assert_close(scores, hidden @ weight[ids].T + bias[ids])


@pytest.mark.real
def test_the_real_model_says_the_same_again():
    model = TransformersModel("gemma-3-270m", "cpu", "bfloat16")
    asked = openings(1.0, [f"{name} {n}" for n in range(9) for name in NAMES])
    assert model.generate(PREFIX, asked, 4) == model.generate(PREFIX, asked, 4)
