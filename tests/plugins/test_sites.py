"""`--site attn` and `mlp`: what attention and the MLP add, on every path as in a plain pass with hooks written here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from encyclo.errors import CaptureError
from encyclo.types import POOLINGS, Prompt
from encyclo_capture.forward.sites import BlockSites
from encyclo_capture.model import TransformersModel
from encyclo_capture.selftest import check
from tests.architectures import examine_sites
from tests.plain_forward import PlainModel, relative_error
from tests.plugins.test_architectures import documented
from tests.plugins.test_capture_equal import CORPUS, TOLERANCE, captured, make
from tests.tiny_models import FAMILIES, LAYERS, build_tokenizer, write_model

# The family's list of blocks and its modules, as its source in transformers names them.
PRE_NORM = BlockSites("self_attn", "mlp")
PLACES: dict[str, tuple[str, BlockSites]] = {
    "gemma3": ("layers", BlockSites("post_attention_layernorm", "post_feedforward_layernorm")),
    "llama": ("layers", PRE_NORM),
    "qwen3": ("layers", PRE_NORM),
    "mistral": ("layers", PRE_NORM),
    "gpt2": ("h", BlockSites("attn", "mlp")),
    "gpt_neox": ("layers", BlockSites("attention", "mlp")),
    "bert": (
        "encoder.layer",
        BlockSites(
            "attention.output.dense", "output.dense", ("attention.output.LayerNorm", "output.LayerNorm")
        ),
    ),
}
SITES = ("attn", "mlp")
EVERY_LAYER = tuple(range(1, LAYERS + 1))


class PlainSites(PlainModel):
    """The plain reference, with hooks on the modules that `places` names; `states` are what `site` adds."""

    def __init__(self, folder: Path, blocks: str, places: BlockSites, site: str, dtype: str = "float32"):
        super().__init__(folder, dtype)
        self.blocks, self.places, self.site = self.network.get_submodule(blocks), places, site

    def both(self, text: str) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return a text's hidden states [layers + 1, tokens, H], and what attention and MLP add [layers, tokens, H]."""
        added: dict[str, list[np.ndarray]] = {"attn": [], "mlp": []}

        def keep(site: str, output: Any) -> None:
            output = output[0] if isinstance(output, tuple) else output
            added[site].append(output.detach().double().numpy().copy().reshape(-1, output.shape[-1]))

        handles = [
            block.get_submodule(name).register_forward_hook(
                lambda _, __, output, site=site: keep(site, output)
            )
            for block in self.blocks
            for site, name in (("attn", self.places.attn), ("mlp", self.places.mlp))
        ]
        self._states.pop(text, None)  # the hooks need a pass
        hidden = super().states(text)
        for handle in handles:
            handle.remove()
        return hidden, [np.stack(added[site]) for site in SITES]

    def states(self, text: str) -> np.ndarray:
        if (text, self.site) not in self._states:
            _, added = self.both(text)
            added = added[SITES.index(self.site)]
            self._states[text, self.site] = np.concatenate([np.full_like(added[:1], np.nan), added])
        return self._states[text, self.site]


@pytest.fixture(scope="module")
def pair(tiny_family):
    """(family, site) -> encyclo's model at the site, and the plain reference; kept."""
    kept: dict[tuple[str, str], tuple[TransformersModel, PlainSites]] = {}

    def load(family: str, site: str):
        if (family, site) not in kept:
            folder = tiny_family(family)[0].name
            model = TransformersModel(folder, "cpu", "float32", site=site)
            kept[family, site] = model, PlainSites(Path(folder), *PLACES[family], site)
        return kept[family, site]

    return load


def wanted(plain: PlainModel, asked: Sequence[Prompt], layers: Sequence[int], pooling: str) -> np.ndarray:
    return np.stack([plain.read(prompt, layers, pooling) for prompt in asked])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_reference_adds_up_to_the_hidden_states(pair, family: str):
    """Else the comparisons below would prove nothing."""
    _, plain = pair(family, "attn")
    hidden, (attn, mlp) = plain.both("The concept of the other house is here")
    total = hidden[:-1] + attn + mlp
    if norms := plain.places.norms:
        for layer, block in enumerate(plain.blocks):
            first, second = (block.get_submodule(name).double() for name in norms)
            with torch.no_grad():
                middle = first(torch.from_numpy(hidden[layer] + attn[layer]))
                total[layer] = second(middle + torch.from_numpy(mlp[layer])).numpy()
            first.float(), second.float()
    if family == "bert":  # it has no final norm
        assert relative_error(total, hidden[1:]).max() < TOLERANCE
    assert relative_error(total[:-1], hidden[1:-1]).max() < TOLERANCE
    assert min(np.linalg.norm(part, axis=-1).min() for part in (attn, mlp)) > 0.1


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_plain_pass_on_every_layer(pair, family: str, site: str, pooling: str):
    """Shared prefixes (padded for bert): alone, in several trees, all together."""
    model, plain = pair(family, site)
    assert model.shares_prefixes is (family != "bert")
    for batch_tokens in (1, 50, 100_000):
        values, _ = captured(model, CORPUS, EVERY_LAYER, pooling, batch_tokens)
        assert relative_error(values, wanted(plain, CORPUS, EVERY_LAYER, pooling)).max() < TOLERANCE


@pytest.mark.parametrize("layer", EVERY_LAYER)
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("family", FAMILIES)
def test_one_layer_alone(pair, family: str, site: str, layer: int):
    """The deepest block is pruned to the pooled nodes, whichever it is."""
    model, plain = pair(family, site)
    values, _ = captured(model, CORPUS, [layer], "span", 4096)
    assert relative_error(values, wanted(plain, CORPUS, [layer], "span")).max() < TOLERANCE


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("family", FAMILIES)
def test_long_prompts_run_padded_beside_short_ones(pair, family: str, site: str):
    model, plain = pair(family, site)
    long = "the cat sat on the mat and " * 24
    asked = [
        make(long, "cat", ""), make("The ", "cat", ""), make(long[8:], "dog", " was"), make("The ", "cat", long)
    ]  # fmt: skip
    for pooling in POOLINGS:
        values, _ = captured(model, asked, (1, -2, -1), pooling, 600)
        assert relative_error(values, wanted(plain, asked, (1, -2, -1), pooling)).max() < TOLERANCE


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_token_of_a_text_is_read(pair, family: str, site: str):
    model, plain = pair(family, site)
    for prompt in CORPUS[::7]:
        found = model.forward([prompt.text], EVERY_LAYER)[0]
        reference = plain.states(prompt.text)[list(EVERY_LAYER)].swapaxes(0, 1)
        assert found.shape == reference.shape and relative_error(found, reference).max() < TOLERANCE


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_self_test_passes_and_says_that_the_sums_were_checked(pair, family: str, site: str):
    found = check(pair(family, site)[0], CORPUS, EVERY_LAYER, "span", 4096)
    assert found["sums"] == 0 and max(found[name] for name in ("layers", "batch", "padding", "sdpa")) < 1e-5


def test_in_bfloat16_it_stays_near_float32(pair):
    """With fused modules, which take the places of those that were found."""
    for site in SITES:
        model, plain = pair("gemma3", site)
        coarse = TransformersModel(model.name, "cpu", "bfloat16", site=site)
        values, _ = captured(coarse, CORPUS, EVERY_LAYER, "span", 512)
        error = relative_error(values, wanted(plain, CORPUS, EVERY_LAYER, "span")).max()
        assert coarse.sites == model.sites and 1e-4 < error < 0.1


def test_the_residual_stream_is_read_as_before(tiny_family):
    model, _ = tiny_family("gemma3")
    assert model.site == "resid" and model.sites is None and model.places is None
    assert "sums" not in check(model, CORPUS, EVERY_LAYER, "span", 4096)


# --- faults ------------------------------------------------------------------------------------------------------


@pytest.fixture
def broken(tiny_family):
    """site -> a tiny Llama for one test, to be broken."""

    def load(site: str) -> TransformersModel:
        model = TransformersModel(tiny_family("llama")[0].name, "cpu", "float32", site=site)
        assert model.sites == (PRE_NORM,) * LAYERS
        return model

    return load


@pytest.mark.parametrize(
    "wrong", [BlockSites("self_attn.v_proj", "mlp"), BlockSites("self_attn", "mlp.act_fn")]
)
@pytest.mark.parametrize("site", SITES)
def test_a_wrong_module_fails_at_its_sum(broken, site: str, wrong: BlockSites):
    model = broken(site)
    model.sites = (*model.sites[:2], wrong, model.sites[3])
    with pytest.raises(
        CaptureError, match=r"check 'sums' failed: at layer 3 of 4 attention and MLP don't add up"
    ):
        check(model, CORPUS, EVERY_LAYER, "span", 4096)


def test_the_other_site_or_the_residual_fails(broken, monkeypatch: pytest.MonkeyPatch):
    from encyclo_capture.loading.loaded_model import LoadedModel

    for places in (["mlp"] * LAYERS, None):
        model = broken("attn")
        monkeypatch.setattr(LoadedModel, "places", places)
        with pytest.raises(CaptureError, match="check 'layers' failed"):
            check(model, CORPUS, EVERY_LAYER, "span", 4096)


def test_another_blocks_site_fails(broken, monkeypatch: pytest.MonkeyPatch):
    from encyclo_capture.forward import passes

    model, find = broken("mlp"), passes.module_at
    swapped = {1: 2, 2: 1}
    monkeypatch.setattr(
        passes, "module_at", lambda *given, **_: find(*given[:2], swapped.get(given[2], given[2]))
    )
    with pytest.raises(CaptureError, match=r"check 'layers' failed: .* layer [12] of 4"):
        check(model, CORPUS, EVERY_LAYER, "span", 4096)


def test_pruned_states_in_wrong_rows_fail(broken, monkeypatch: pytest.MonkeyPatch):
    from encyclo_capture.forward.last_block import LastBlockPruning

    model, restored = broken("attn"), LastBlockPruning.restored
    monkeypatch.setattr(LastBlockPruning, "restored", lambda self, states: restored(self, states.flip(1)))
    with pytest.raises(CaptureError, match="failed"):
        check(model, CORPUS, (1, 2), "span", 4096)


def test_an_activation_out_of_range_is_named(broken):
    from encyclo_capture.capture import capture

    model = broken("mlp")
    with torch.no_grad():
        model.network.layers[2].mlp.down_proj.weight[3, 5] = torch.inf
    with pytest.raises(CaptureError, match=r"at layer 3 of 4 is not finite"):
        list(capture(model, CORPUS[:5], EVERY_LAYER, "span", 4096))


def granite(folder: Path, multiplier: float) -> Path:
    """A tiny Granite, which adds `multiplier` times what attention and MLP give."""
    from transformers import GraniteConfig, GraniteModel

    tokenizer = build_tokenizer()
    config = GraniteConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=64, residual_multiplier=multiplier, bos_token_id=2, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    GraniteModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("site", SITES)
def test_a_model_that_adds_something_else_is_refused_and_its_residual_read(tmp_path: Path, site: str):
    folder = granite(tmp_path, 0.22)
    with pytest.raises(CaptureError) as error:
        captured(TransformersModel(str(folder), "cpu", "float32", site=site), CORPUS, (1,), "span", 64)
    assert str(error.value) == (
        f"The model {str(folder)!r} (GraniteModel) has no --site {site} that can be proven: in block 1 of 4 no two "
        "outputs, one of them the attention's, add up to the residual stream; leave --site out to read the residual "
        "stream, or use another --model."
    )
    model, plain = TransformersModel(str(folder), "cpu", "float32"), PlainModel(folder)
    values, _ = captured(model, CORPUS, (0, 2, -1), "span", 64)
    assert relative_error(values, wanted(plain, CORPUS, (0, 2, -1), "span")).max() < TOLERANCE


def test_an_architecture_without_a_list_of_blocks_is_refused(tmp_path: Path):
    from tests.architectures import write_model as write_architecture

    write_architecture("albert", tmp_path)
    with pytest.raises(
        CaptureError, match=r"its hidden states are not the outputs of a list of blocks; leave --site"
    ):
        _ = TransformersModel(str(tmp_path), "cpu", "float32", site="attn").sites


def test_a_block_that_scales_one_text_only_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What holds on the shortest text must hold on the others."""
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    forward = LlamaDecoderLayer.forward

    def scaling(self, hidden_states, *args, **kwargs):
        output = forward(self, hidden_states, *args, **kwargs)
        return output * 1.5 if hidden_states.shape[1] > 6 else output

    monkeypatch.setattr(LlamaDecoderLayer, "forward", scaling)
    write_model(tmp_path, "llama")
    with pytest.raises(
        CaptureError, match=r"in block 1 of 4 attention and MLP add up .* one text and not of another"
    ):
        _ = TransformersModel(str(tmp_path), "cpu", "float32", site="mlp").sites


# --- other architectures -------------------------------------------------------------------------------------------

# One of each kind of structure, from docs/models.md.
QUICK = {
    "gemma2": "sites",
    "mixtral": "sites",  # a mixture of experts, which gives a tuple
    "opt": "sites",  # the MLP has no module of its own
    "t5": "sites",  # attention and MLP add the residual themselves
    "bloom": "sites",  # so do they here
    "bart": "sites",  # norms after the sums, of a block without sub-modules for them
    "falcon": "sites",  # attention is added to the MLP's output in place
    "gptj": "sites",
    "xlnet": "no sites",
    "ibert": "no sites",  # its norms take two arguments
    "mamba": "no sites",
}


@pytest.mark.parametrize("kind", QUICK)
def test_sites_are_right_or_refused(tmp_path: Path, kind: str):
    verdict = examine_sites(kind, tmp_path / "model")
    assert verdict.how == QUICK[kind], verdict


def test_the_page_says_the_same():
    page = (Path(__file__).parents[2] / "docs/models.md").read_text().partition("<!-- end of sites -->")[0]
    rows = re.findall(r"^\| (proven|none: [^|]*) \| (\d+) \| (.*) \|$", page, flags=re.M)
    found = {
        kind: "sites" if how == "proven" else "no sites"
        for how, _, kinds in rows
        for kind in kinds.split(", ")
    }
    assert {kind: found[kind] for kind in QUICK} == QUICK
    assert len(found) == sum(int(count) for _, count, _ in rows)
    assert found.keys() == {kind for kind, how in documented().items() if how != "refused"}


# --- the real model ----------------------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize("site", SITES)
def test_the_real_model_agrees_with_the_plain_pass(site: str):
    from encyclo_concepts.core import CATEGORIES, read_category
    from encyclo_samplers.templates import Options, draw, fill, grouped_templates

    concepts = [concept for category in CATEGORIES for concept in read_category(category)]
    asked = [
        fill(template, concept)
        for seed, concept in enumerate(concepts[:: len(concepts) // 8][:8])
        for template in draw(grouped_templates(concept, Options()), 2, Random(seed))
    ]
    model = TransformersModel("gemma-3-270m", "cpu", "float32", site=site)
    plain = PlainSites(model.weights.folder, *PLACES["gemma3"], site)
    for pooling in POOLINGS:
        layers = range(1, model.depth + 1)
        values, _ = captured(model, asked, layers, pooling, 4096)
        assert relative_error(values, wanted(plain, asked, layers, pooling)).max() < TOLERANCE
