"""The fused modules for bfloat16 on a CPU compute the same as the originals, or the originals stay."""

from __future__ import annotations

import copy
import weakref
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from tests.plain_forward import PlainModel, relative_error
from tests.tiny_models import FAMILIES, LAYERS, build_network, build_tokenizer, write_model

ONEDNN = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
needs_onednn = pytest.mark.skipif(not ONEDNN, reason="this processor's oneDNN has no bfloat16")
IDS = torch.tensor([[2, *range(100, 130)]])
# Family -> (linear layers, gated MLPs, RMS norms, rotary attention) in a block.
REPLACED = {
    "gemma3": (7, 1, 6, 1),
    "llama": (7, 1, 2, 1),
    "qwen3": (7, 1, 4, 1),
    "mistral": (7, 1, 2, 1),
    "gpt2": (0, 0, 0, 0),
    "gpt_neox": (4, 0, 0, 0),
    "bert": (6, 0, 0, 0),
}
KINDS = ("PackedLinear", "FusedGatedMlp", "FusedRmsNorm", "FusedRotaryAttention")


def prepared(network):
    from encyclo_capture.cpu.fused_modules import fuse_modules
    from encyclo_capture.forward.passes import find_blocks

    return fuse_modules(network, find_blocks(network))


def kinds(network) -> tuple[int, ...]:
    found = Counter(type(module).__name__ for module in network.modules())
    return tuple(found[kind] for kind in KINDS)


def states(network) -> np.ndarray:
    with torch.inference_mode():
        hidden = network(IDS, output_hidden_states=True).hidden_states
    return np.stack([h[0].float().numpy() for h in hidden[1:]])


@needs_onednn
@pytest.mark.parametrize("family", FAMILIES)
def test_prepared_networks_err_no_more_than_plain_ones(family):
    exact = build_network(family, 1200).eval()
    plain = copy.deepcopy(exact).bfloat16()
    ready = prepared(copy.deepcopy(plain))
    assert kinds(ready) == tuple(LAYERS * count for count in REPLACED[family])
    assert kinds(plain) == (0, 0, 0, 0)
    wanted = states(exact)
    error, allowed = (relative_error(states(network), wanted).mean(axis=-1) for network in (ready, plain))
    assert (error <= 1.25 * allowed).all()
    assert (relative_error(states(ready), states(plain)).mean(axis=-1) < 0.05).all()


@pytest.mark.parametrize("family", ["gemma3", "gpt_neox"])
def test_float32_stays_as_transformers_loads_it(family):
    network = prepared(build_network(family, 1200))
    assert kinds(network) == (0, 0, 0, 0)


@pytest.mark.parametrize("size", [0.01, 1.0, 300.0])
@pytest.mark.parametrize("family", ["gemma3", "llama"])
def test_a_norms_weights_are_read_as_the_model_means_them(family, size):
    """Gemma multiplies by 1 + weight, others by weight; among large weights the two look alike."""
    from encyclo_capture.cpu.fused_modules import FusedRmsNorm

    network = build_network(family, 1200)
    norm = network.layers[0].input_layernorm
    with torch.no_grad():
        norm.weight.copy_(size * (1 + torch.rand(32)))
    norm.bfloat16()
    wanted = copy.deepcopy(norm).float()
    ready = prepared(network.bfloat16()).layers[0].input_layernorm
    assert type(ready) is FusedRmsNorm
    x = torch.randn(50, 32)
    before = x.clone()
    torch.testing.assert_close(ready(x), wanted(x), rtol=1e-5, atol=1e-6)
    assert torch.equal(x, before)


@needs_onednn
def test_a_packed_weight_is_not_held_twice():
    network = build_network("gemma3", 1200).bfloat16()
    weight = weakref.ref(network.layers[0].mlp.up_proj.weight)
    prepared(network)
    assert weight() is None


def test_a_torch_without_the_operations_keeps_the_originals(monkeypatch):
    from encyclo_capture.cpu import fused_modules as module

    def lacking(self, linear):
        raise AttributeError("no such operation")

    monkeypatch.setattr(module.PackedLinear, "__init__", lacking)
    plain = build_network("llama", 1200).eval().bfloat16()
    network = prepared(copy.deepcopy(plain))
    assert kinds(network) == (0, 0, 2 * LAYERS, 0)
    assert relative_error(states(network), states(plain)).mean() < 0.05


@needs_onednn
def test_a_product_that_differs_by_a_bit_keeps_the_original(monkeypatch):
    from encyclo_capture.cpu import fused_modules as module

    whole = module.PackedLinear.forward
    monkeypatch.setattr(module.PackedLinear, "forward", lambda self, x: whole(self, x) * 1.004)
    assert kinds(prepared(build_network("llama", 1200).bfloat16())) == (0, 0, 2 * LAYERS, 0)


@needs_onednn
def test_what_only_looks_like_an_mlp_or_a_norm_is_left_alone():
    """Same parts, different results: the original stays."""
    network = build_network("llama", 1200).bfloat16()
    mlp, norm = network.layers[0].mlp, network.layers[1].input_layernorm

    class OtherMlp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_proj, self.up_proj, self.down_proj = mlp.gate_proj, mlp.up_proj, mlp.down_proj
            self.act_fn = mlp.act_fn

        def forward(self, x):
            return self.down_proj(self.gate_proj(x) * self.act_fn(self.up_proj(x)))

    class OtherRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = norm.weight, 1e-6

        def forward(self, x):
            return self.weight * x

    network.layers[0].mlp, network.layers[1].input_layernorm = OtherMlp(), OtherRMSNorm()
    network = prepared(network)
    assert type(network.layers[0].mlp) is OtherMlp
    assert type(network.layers[1].input_layernorm) is OtherRMSNorm
    assert kinds(network) == (7 * LAYERS, LAYERS - 1, 2 * LAYERS - 1, LAYERS)


@needs_onednn
def test_a_hooked_or_derived_linear_layer_is_left_alone():
    class Derived(nn.Linear):
        pass

    network = build_network("llama", 1200).bfloat16()
    network.layers[0].self_attn.q_proj = Derived(32, 32, bias=False).bfloat16()
    network.layers[1].self_attn.q_proj.register_forward_hook(lambda *_: None)
    prepared(network)
    assert type(network.layers[0].self_attn.q_proj) is Derived
    assert type(network.layers[1].self_attn.q_proj) is nn.Linear


def in_a_tree(network, texts) -> np.ndarray:
    """Every layer at every token of the texts, computed as one tree."""
    from encyclo_capture.forward.passes import run_tree
    from encyclo_capture.forward.token_tree import build_tree
    from encyclo_capture.forward.tree_attention import register
    from encyclo_capture.tokenization import TokenisedPrompt

    register()
    whole = [tuple(text[: end + 1]) for text in texts for end in range(len(text))]
    tree = build_tree([TokenisedPrompt(0, ids, (len(ids) - 1,)) for ids in sorted(whole)])
    return run_tree(network, "cpu", tree, range(1, LAYERS + 1)).numpy()


@needs_onednn
@pytest.mark.parametrize("family", ["gemma3", "llama", "qwen3", "mistral"])
def test_rotation_in_float32_errs_less_than_rounding_in_between(family):
    """On trees, against float32 and compared with transformers' own attention module; the windows are full."""
    exact = build_network(family, 1200).eval()
    plain = copy.deepcopy(exact).bfloat16()
    ready = prepared(copy.deepcopy(plain))
    texts = [(2, *range(100, 120)), (2, *range(100, 106), *range(300, 320))]
    wanted = in_a_tree(exact, texts)
    error, allowed = (relative_error(in_a_tree(one, texts), wanted).mean(axis=0) for one in (ready, plain))
    assert (error <= 1.1 * allowed).all() and (error > 1e-4).all()


@needs_onednn
def test_outside_a_tree_the_original_attention_computes():
    from encyclo_capture.cpu.fused_rotary_attention import FusedRotaryAttention

    network = prepared(build_network("gemma3", 1200).bfloat16()).eval()
    before = states(network)
    for layer in network.layers:
        assert type(layer.self_attn) is FusedRotaryAttention
        layer.self_attn = layer.self_attn.original
    np.testing.assert_array_equal(states(network), before)


@needs_onednn
@pytest.mark.parametrize("broken", ["turned otherwise", "answers otherwise", "more parts"])
def test_attention_that_is_otherwise_is_left_alone(monkeypatch, broken):
    from transformers.models.llama import modeling_llama

    network = build_network("llama", 1200).bfloat16()
    attention = network.layers[0].self_attn
    if broken == "turned otherwise":  # neighbours, not halves, are turned as pairs
        monkeypatch.setattr(
            modeling_llama,
            "rotate_half",
            lambda x: torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2),
        )
    elif broken == "answers otherwise":
        whole = attention.forward
        attention.forward = lambda *args, **more: (-whole(*args, **more)[0], None)
    else:
        attention.gate = nn.Linear(32, 32)
    left = [type(layer.self_attn).__name__ for layer in prepared(network).layers]
    assert left[0] == "LlamaAttention"
    assert set(left[1:]) == {"LlamaAttention" if broken == "turned otherwise" else "FusedRotaryAttention"}


@needs_onednn
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("family", ["gemma3", "gpt_neox", "bert"])
def test_one_option_switches_the_private_operations_off(tmp_path, family, fused):
    """Through the plugin's own hooks; captures are as near to float32 with the fused modules as without."""
    from encyclo.plugins.manager import Plugins
    from encyclo.types import Context, Prompt
    from encyclo_capture.capture import capture

    write_model(tmp_path, family, build_tokenizer(*FAMILIES[family]))
    options = Plugins().options("transformers", {"dtype": "bfloat16"} | ({} if fused else {"fused": "false"}))
    context = Context(0, "cpu", options, tmp_path)
    model = Plugins().call("load_model", "transformers", name=str(tmp_path), context=context)
    assert kinds(model.network) == tuple(LAYERS * count * fused for count in REPLACED[family])
    texts = ["The cat sat on the mat.", "The cat was gone.", "A house"]
    asked = [Prompt("c", text, None, "f") for text in texts]
    found = np.empty((3, LAYERS, model.hidden_size), np.float32)
    for batch in capture(model, asked, range(1, LAYERS + 1), "mean", 512):
        found[batch.positions] = batch.activations
    exact, plain = (
        np.stack([PlainModel(tmp_path, dtype).read(one, range(1, LAYERS + 1), "mean") for one in asked])
        for dtype in ("float32", "bfloat16")
    )
    ours, theirs = (relative_error(values, exact).mean() for values in (found, plain))
    assert 1e-4 < ours <= 1.25 * theirs
