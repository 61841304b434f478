"""The run's self-test passes on a correct capture and fails, naming the check, on each kind of fault."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
import torch

from encyclo.errors import CaptureError
from encyclo.types import POOLINGS, Prompt
from tests.plugins.test_capture_equal import CORPUS
from tests.tiny_models import FAMILIES

CHECKS = {"mentions", "finite", "layers", "batch", "padding", "sdpa"}


def check(model, prompts=CORPUS, layers=(0, 2, 3, 4), pooling="span", batch_tokens=4096):
    from encyclo_capture.selftest import check

    return check(model, prompts, layers, pooling, batch_tokens)


def assert_check_fails(name: str, model, **more) -> str:
    """The message of the check `name`, which must fail; one sentence on one line."""
    with pytest.raises(CaptureError) as error:
        check(model, **more)
    message = str(error.value)
    assert f"check {name!r} failed" in message and "\n" not in message and message.endswith(".")
    return message


@pytest.fixture
def broken(tiny_family):
    """family -> a model for one test, to be broken."""
    from encyclo_capture.model import TransformersModel

    def load(family: str, dtype: str = "float32"):
        model = TransformersModel(tiny_family(family)[0].name, "cpu", dtype)
        assert model.shares_prefixes is (family != "bert")
        return model

    return load


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_passes_on_every_family(tiny_family, family, pooling):
    found = check(tiny_family(family)[0], pooling=pooling)
    assert set(found) == CHECKS and {type(value) for value in found.values()} == {float}
    assert found["mentions"] == 0 and 0 < found["finite"] < 1e4
    assert max(found[name] for name in ("layers", "batch", "padding", "sdpa")) < 1e-5


def test_passes_in_bfloat16(broken):
    found = check(broken("gemma3", "bfloat16"))
    assert 1e-4 < found["layers"] < 0.1  # rounding is seen, and allowed


def test_finite_is_the_largest_activation(tiny_family):
    model, plain = tiny_family("gemma3")
    prompt = CORPUS[3]
    wanted = np.abs(plain.read(prompt, (2, 4), "span")).max()
    assert check(model, [prompt], (2, 4))["finite"] == pytest.approx(wanted, rel=1e-5)


def test_chooses_shortest_longest_and_between_whatever_the_order():
    from encyclo_capture.selftest import choose

    prompts = [Prompt("c", "a" * n, (0, 1), "f") for n in range(1, 101)] * 2
    chosen = choose(prompts)
    assert [len(p.text) for p in chosen] == [1, 15, 29, 43, 58, 72, 86, 100]
    assert choose(random.Random(0).sample(prompts, len(prompts))) == chosen
    assert choose(prompts[:3]) == prompts[:3] and choose(prompts[:1] * 5) == prompts[:1] and choose([]) == []


def test_no_prompt_gives_no_check(tiny_family):
    assert check(tiny_family("gemma3")[0], []) == {}


@pytest.mark.parametrize("family", ["gemma3", "gpt2", "bert"])
def test_a_wrong_layer_fails(broken, family, monkeypatch):
    """Blocks counted from one too many: every layer is its neighbour."""
    from encyclo_capture.forward import passes

    model, find = broken(family), passes.find_blocks
    monkeypatch.setattr(passes, "find_blocks", lambda network: [*find(network)[1:], find(network)[0]])
    assert "of 4" in assert_check_fails("layers", model, layers=(1, 2))


def test_a_last_layer_without_the_final_norm_fails(broken, monkeypatch):
    from encyclo_capture.forward import passes

    model = broken("gemma3")
    keep = passes.LayerTap._keep
    states = {}  # by thread: prompts are captured side by side
    model.network.norm.register_forward_pre_hook(
        lambda _, args: states.update({threading.get_ident(): args[0]})
    )
    monkeypatch.setattr(
        passes.LayerTap,
        "_keep",
        lambda tap, index, hidden: keep(tap, index, states[threading.get_ident()] if index == 4 else hidden),
    )
    assert "layer 4 of 4" in assert_check_fails("layers", model)
    check(model, layers=(1, 2, 3))


def test_attention_that_sees_beyond_the_window_fails(broken, monkeypatch):
    from encyclo_capture.forward import tree_attention

    model = broken("mistral")
    whole = tree_attention.Block.mask
    monkeypatch.setattr(tree_attention.Block, "mask", lambda block, window, group: whole(block, None, group))
    assert_check_fails("layers", model)


def test_attention_of_transformers_that_is_not_eager_attention_fails(broken, monkeypatch):
    """The plain pass doesn't use the attention of the capture: here both would be wrong alike."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    from encyclo_capture.model import TransformersModel

    model = broken("bert")
    sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def blurred(*arguments, **more):
        states, weights = sdpa(*arguments, **more)
        return states + 0.1 * states.mean(dim=1, keepdim=True), weights

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "sdpa", blurred)
    assert_check_fails("layers", model)
    fresh = TransformersModel(model.name, "cpu", "float32")
    with pytest.raises(CaptureError, match="eager and sdpa, disagree") as error:
        check(fresh)
    assert "BertModel" in str(error.value) and "\n" not in str(error.value)


def test_attention_of_transformers_that_gives_no_number_is_refused(broken, monkeypatch):
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    from encyclo_capture.model import TransformersModel

    sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def overflowing(*arguments, **more):
        states, weights = sdpa(*arguments, **more)
        return states * float("nan"), weights

    name = broken("bert").name
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "sdpa", overflowing)
    with pytest.raises(CaptureError, match="eager and sdpa, disagree"):
        check(TransformersModel(name, "cpu", "float32"))


def test_a_wrong_module_that_every_path_uses_fails(broken, monkeypatch):
    """The plain pass runs on transformers' own modules, also if the capture's were prepared long before."""
    from encyclo_capture.cpu.fused_modules import FusedGatedMlp

    model = broken("llama", "bfloat16")
    assert {FusedGatedMlp} <= {type(module) for module in model.network.modules()}
    assert not {FusedGatedMlp} <= {type(module) for module in model.original.modules()}
    check(model)
    forward = FusedGatedMlp.forward
    monkeypatch.setattr(FusedGatedMlp, "forward", lambda mlp, x: 1.3 * forward(mlp, x))
    assert_check_fails("layers", model)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attention_that_leaks_between_prompts_fails(broken, monkeypatch, dtype):
    """Each node gets a tenth of the others at its depth: nothing changes for a prompt alone."""
    from encyclo_capture.cpu import fused_rotary_attention
    from encyclo_capture.forward import tree_attention

    whole = tree_attention.attend

    def leaking(state, *arguments):
        result = whole(state, *arguments)
        nodes = torch.cat([block.queries.flatten() for block in state.layout.blocks])
        depths = torch.cat([block.distance.amax(dim=-1).flatten() for block in state.layout.blocks])
        for depth in depths.unique():
            rows = nodes[depths == depth].unique()
            result[rows] = 0.1 * result[rows] + 0.9 * result[rows].mean(dim=0, keepdim=True)
        return result

    model = broken("llama", dtype)
    check(model)
    for module in (tree_attention, fused_rotary_attention):
        monkeypatch.setattr(module, "attend", leaking)
    message = assert_check_fails("batch", model)
    assert "with others and alone" in message and dtype in message


def test_answers_handed_to_the_wrong_prompt_fail(broken, monkeypatch):
    from encyclo_capture import capture

    model = broken("qwen3")
    run = capture.run_tree
    monkeypatch.setattr(capture, "run_tree", lambda *arguments: run(*arguments).roll(1, dims=0))
    assert_check_fails("batch", model)


def test_padding_that_is_attended_to_fails(broken, monkeypatch):
    """The mask is lost. One prompt at a time there is no padding, so that the other checks pass."""
    model = broken("bert")
    kind = type(model.network)
    forward = kind.forward
    monkeypatch.setattr(
        kind, "forward", lambda network, attention_mask=None, **more: forward(network, **more)
    )
    assert "padded" in assert_check_fails("padding", model, batch_tokens=1)


def test_padding_on_the_other_side_fails(broken, monkeypatch):
    """The last *padded* token taken for the last."""
    from encyclo_capture import selftest

    model = broken("llama")

    def padded_left(network, device, batch, layers, *_):
        longest = max(len(prompt.ids) for prompt in batch)
        ids = torch.tensor([[0] * (longest - len(p.ids)) + list(p.ids) for p in batch])
        hidden = network(ids, attention_mask=(ids != 0).long(), output_hidden_states=True).hidden_states
        last = [[hidden[layer][row, p.pooled[-1]] for layer in layers] for row, p in enumerate(batch)]
        return torch.stack([torch.stack(rows) for rows in last]).detach()

    monkeypatch.setattr(selftest, "run_padded", padded_left)
    assert_check_fails("padding", model, pooling="last")


def retokenise(model, change) -> None:
    """Let `change` alter what the model's tokenizer says of texts."""
    real = model.tokenizer

    class Altered:
        def __call__(self, texts, **more):
            return change(dict(real(texts, **more)))

        def __getattr__(self, name):
            return getattr(real, name)

    model.__dict__["tokenizer"] = Altered()


@pytest.mark.parametrize("shift", [-6, -3, 3, 6])
def test_offsets_that_are_wrong_fail(broken, shift):
    """As from a tokenizer that counts bytes, or a blank that it added."""

    def shifted(encoded):
        rows = encoded["offset_mapping"]
        return {**encoded, "offset_mapping": [[(a + shift, b + shift) for a, b in row] for row in rows]}

    model = broken("gemma3")
    text = "In the old house nobody had seen the catalogue of a democracy before"
    prompt = Prompt("c", text, (text.index("old"), text.index("old") + 9), "f")
    assert check(model, [prompt])["mentions"] == 0
    retokenise(model, shifted)
    message = assert_check_fails("mentions", model, prompts=[prompt])
    assert repr(text) in message and "'old house' is expected" in message


@pytest.mark.parametrize(("more_before", "more_after"), [(1, 0), (0, 1), (2, 2)])
def test_tokens_beside_the_mention_fail(broken, monkeypatch, more_before, more_after):
    """They hold the mention; and something else, which would be averaged into it."""
    from encyclo_capture import tokenization

    pooled = tokenization.pooled_tokens

    def wider(*arguments):
        own = pooled(*arguments)
        return tuple(range(own[0] - more_before, own[-1] + more_after + 1))

    monkeypatch.setattr(tokenization, "pooled_tokens", wider)
    assert_check_fails(
        "mentions", broken("llama"), prompts=[Prompt("c", "In the old house nobody spoke", (7, 16), "f")]
    )


def test_mentions_that_decoding_can_not_give_back_pass(broken):
    """Half a character, a mention in a longer word, blanks around, a text of several alphabets."""
    texts = (
        ("The 日本 is here", 4, 5),
        ("In the housekeeping", 7, 12),
        ("The  old  house is", 5, 15),
        ("Ⅷ ﬁsh über", 0, 11),
    )
    assert check(broken("llama"), [Prompt("c", text, (a, b), "f") for text, a, b in texts])["mentions"] == 0


def test_a_special_token_taken_for_the_last_fails(broken):
    def unmarked(encoded):
        return {**encoded, "special_tokens_mask": [[0] * len(row) for row in encoded["special_tokens_mask"]]}

    model = broken("bert")
    retokenise(model, unmarked)
    assert "'<eos>'" in assert_check_fails("mentions", model, pooling="last")


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_an_activation_that_is_not_finite_fails(broken, value):
    model = broken("gemma3")
    with torch.no_grad():
        model.network.layers[1].mlp.down_proj.weight[3, 5] = value
    message = assert_check_fails("finite", model)
    assert "layer 2 of 4" in message and ("nan" in message or "inf" in message) and "float32" in message


def test_a_small_error_everywhere_is_distinguished_from_rounding(broken, monkeypatch):
    """Half a thousandth passes for one vector, but not for all of them."""
    from encyclo_capture import capture

    model = broken("llama")
    run = capture.run_tree
    monkeypatch.setattr(capture, "run_tree", lambda *arguments: run(*arguments) * 1.0005)
    assert "in the mean over" in assert_check_fails("layers", model)


@pytest.mark.real
def test_passes_on_the_real_model():
    from encyclo_capture.model import TransformersModel

    model = TransformersModel("gemma-3-270m", "cpu", "bfloat16")
    found = check(model, layers=(0, 7, 10, 13, 16, 18))
    assert found["layers"] < 0.06 and found["padding"] < 0.06 and found["batch"] < 0.06
    assert found["finite"] > 1000  # this model's residual stream is large
