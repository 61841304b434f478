"""Every text architecture of transformers is read right at all layers, or refused in one sentence.

docs/models.md lists them; `python benchmarks/architectures.py` writes its tables.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from encyclo.errors import CaptureError, EncycloError
from tests.architectures import examine, tiny_config, write_model

PAGE = Path(__file__).parents[2] / "docs/models.md"
# One of each kind of structure, and those that failed once.
QUICK = {
    "llama": "shared prefixes",
    "gemma2": "shared prefixes",  # soft caps, which sdpa ignores
    "gemma3": "shared prefixes",  # multimodal: its vision tower has as many blocks
    "qwen2_vl": "shared prefixes",
    "mixtral": "shared prefixes",
    "phimoe": "shared prefixes",
    "opt": "shared prefixes",
    "bert": "padded",
    "t5": "padded",
    "bart": "padded",
    "albert": "padded",  # one block's weights in all layers
    "bloom": "padded",  # ALiBi
    "mamba": "padded",
    "rwkv": "padded",
    "falcon": "padded",
    "convbert": "alone",
    "xlnet": "alone",
    "mobilebert": "alone",  # without norms it multiplies rounding errors
    "gemma3n_text": "refused",
    "reformer": "refused",  # it pads texts of more than a chunk's tokens
    "paligemma": "refused",  # its language model attends both ways by sdpa, unless a batch is padded
    "falcon (ALiBi)": "refused",
    "opt (word_embed_proj_dim)": "refused",
}


def documented() -> dict[str, str]:
    """Return how each architecture is read, by the tables of docs/models.md."""
    found = {}
    for line in PAGE.read_text().splitlines():
        if match := re.match(r"\| (shared prefixes|padded|alone) \| \d+ \| (.*) \|$", line):
            found |= dict.fromkeys(match[2].split(", "), match[1])
        elif match := re.match(r"\| `([^`]+)` \| refused:", line):
            found[match[1]] = "refused"
    return found


def assert_right_or_refused(kind: str, how: str, folder: Path) -> None:
    verdict = examine(kind, folder)
    assert verdict.how == how, verdict
    if how == "refused":
        assert "\n" not in verdict.reason and verdict.reason.endswith(".") and ". " not in verdict.reason


@pytest.mark.parametrize("kind", QUICK)
def test_right_or_refused(tmp_path, kind):
    assert_right_or_refused(kind, QUICK[kind], tmp_path / "model")


def test_the_page_says_the_same():
    assert {kind: documented()[kind] for kind in QUICK} == QUICK


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted({*documented()} - {*QUICK}))
def test_every_architecture_is_right_or_refused(tmp_path, kind):
    assert_right_or_refused(kind, documented()[kind], tmp_path / "model")


def test_an_encoder_decoder_may_lack_its_decoder(tmp_path):
    """As a checkpoint of T5EncoderModel does."""
    from safetensors.torch import load_file, save_file

    from encyclo_capture.model import TransformersModel

    folder = tmp_path / "model"
    write_model("t5", folder)
    weights = load_file(folder / "model.safetensors")
    kept = {key: value for key, value in weights.items() if not key.startswith("decoder.")}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    model = TransformersModel(str(folder), "cpu", "float32")
    assert type(model.network).__name__ == "T5Stack" and not model.shares_prefixes
    (states,) = model.forward(["the old house"], [0, 4])
    assert states.shape[1:] == (2, 64)

    del kept["encoder.block.1.layer.0.SelfAttention.q.weight"]
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(EncycloError, match="are incomplete: 1 weights"):
        TransformersModel(str(folder), "cpu", "float32").network  # noqa: B018


def test_a_network_that_pads_long_texts_itself_is_refused_when_it_loads(tmp_path):
    from encyclo_capture.model import TransformersModel

    folder = tmp_path / "model"
    write_model("reformer", folder)
    with pytest.raises(
        CaptureError, match=r"the shape \(80, 64\) for a text of 70 tokens, instead of \(70, 64\)"
    ):
        TransformersModel(str(folder), "cpu", "float32").support  # noqa: B018


def test_a_model_of_images_is_refused_by_name(tmp_path):
    from encyclo_capture.model import TransformersModel

    folder = tmp_path / "model"
    write_model("vit", folder)
    with pytest.raises(
        EncycloError, match=r"is of the type vit, whose configuration gives vocab_size = None"
    ):
        TransformersModel(str(folder), "cpu", "float32")


def test_a_model_that_is_not_deterministic_is_refused(tmp_path):
    from encyclo_capture.model import TransformersModel

    folder = tmp_path / "model"
    write_model("bert", folder)
    model = TransformersModel(str(folder), "cpu", "float32")
    model.original.embeddings.register_forward_hook(lambda _, __, out: out + torch.rand_like(out))
    with pytest.raises(CaptureError, match="other hidden states each time"):
        model.network  # noqa: B018


@pytest.mark.parametrize("window", [64, 200])
def test_the_first_text_that_exceeds_the_window_is_compared_with_a_plain_pass(tmp_path, window):
    import json

    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    from encyclo_capture.forward.passes import Reading
    from encyclo_capture.forward.support import Support
    from encyclo_capture.model import TransformersModel

    def blind(module, query, key, value, mask, **kwargs):
        """Attention that ignores the window."""
        groups = query.shape[1] // key.shape[1]
        key, value = (states.repeat_interleave(groups, 1) for states in (key, value))
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(
            1, 2
        ), None

    folder = tmp_path / "model"
    write_model("mistral", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "sliding_window": window}))
    long, short = "the old house in city had a dog " * 40, "the old house"
    model = TransformersModel(str(folder), "cpu", "float32")
    assert len(model.forward([short, long], [4])[1]) > window

    AttentionInterface.register("blind", blind)
    AttentionMaskInterface.register("blind", sdpa_mask)
    wrong = TransformersModel(str(folder), "cpu", "float32")
    wrong.support = Support(False, Reading(attention="blind"))
    wrong.forward([short], [4])
    with pytest.raises(
        CaptureError, match=rf"after its window of {window} tokens differ by .*; read shorter texts\.$"
    ):
        wrong.forward([long], [4])


def test_a_wide_window_is_not_tried_and_a_short_one_is():
    from encyclo_capture.forward.support import probes

    config = tiny_config("mistral")
    lengths = {}
    for window in (None, 16, 100, 4096):
        config.sliding_window = window
        lengths[window] = [len(ids) for ids in probes(config)]
    assert lengths == {None: [6, 6, 12], 16: [6, 6, 22], 100: [6, 6, 106], 4096: [6, 6, 12]}
