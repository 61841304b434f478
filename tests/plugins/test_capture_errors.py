"""What capture refuses, each in one sentence that names the prompt, the layer or the folder."""

from __future__ import annotations

import json
import shutil
import traceback

import pytest
import torch

from encyclo.errors import CaptureError, EncycloError, ModelNotFoundError, UsageError
from encyclo.types import Opening, Prompt
from tests.tiny_models import build_tokenizer, write_model


def sentence(error: pytest.ExceptionInfo[EncycloError]) -> str:
    """The message, which must be one sentence on one line."""
    message = str(error.value)
    assert "\n" not in message and message.endswith("."), message
    assert ". " not in message.rstrip("."), message
    return message


def prompt(text: str, span: tuple[int, int] | None = None) -> Prompt:
    return Prompt("c", text, span, "f")


def capture(model, asked, pooling="span", layers=(0, 2, 4), batch_tokens=4096):
    from encyclo_capture.capture import capture

    return list(capture(model, asked, layers, pooling, batch_tokens))


@pytest.fixture
def own_model(tiny_gemma):
    """A model for one test, to be damaged."""
    from encyclo_capture.model import TransformersModel

    return TransformersModel(str(tiny_gemma), "cpu", "float32")


@pytest.mark.parametrize("span", [(8, 8), (20, 24)], ids=["empty", "beyond the text"])
def test_a_mention_without_a_token(tiny_family, span):
    model, _ = tiny_family("gemma3")
    with pytest.raises(CaptureError) as error:
        capture(model, [prompt("The cat", (4, 7)), prompt("The dog sat", span)])
    assert "'The dog sat'" in sentence(error) and "has no token" in sentence(error)


def test_a_mention_that_the_tokenizer_drops(tmp_path):
    """A tokenizer that strips blanks has no token for them."""
    from tokenizers import normalizers

    from encyclo_capture.model import TransformersModel

    tokenizer = build_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Strip()
    model = TransformersModel(str(write_model(tmp_path / "m", "llama", tokenizer)), "cpu", "float32")
    with pytest.raises(CaptureError) as error:
        capture(model, [prompt("The cat   ", (7, 10))])
    assert "'The cat   '" in sentence(error) and "mention '   ' has no token" in sentence(error)


@pytest.mark.parametrize("family", ["gemma3", "gpt2", "bert"])
def test_a_prompt_that_is_too_long(tiny_family, family):
    model, plain = tiny_family(family)
    long = "cat " * 200
    assert len(plain.ids(long)) > 256
    with pytest.raises(CaptureError) as error:
        capture(model, [prompt("The cat", (4, 7)), prompt(long, (0, 3))])
    message = sentence(error)
    assert "'cat cat cat" in message and f"{len(plain.ids(long))} tokens" in message and "256" in message
    assert len(message) < 300


@pytest.mark.parametrize("family", ["gemma3", "gpt2", "bert"])
@pytest.mark.parametrize("pooling", ["span", "last", "mean"])
def test_a_text_without_a_token_of_its_own(tiny_family, family, pooling):
    model, _ = tiny_family(family)
    with pytest.raises(CaptureError) as error:
        capture(model, [prompt("The cat", (4, 7)), prompt("")], pooling)
    assert "the prompt ''" in sentence(error) and "no token of its own" in sentence(error)


@pytest.mark.parametrize(("broken", "layer"), [(0, 2), (1, 2), (2, 4), (3, 4)])
def test_an_activation_that_is_not_finite(own_model, broken, layer):
    """The first asked layer after the broken block is named, with prompt and compute type."""
    assert own_model.shares_prefixes
    with torch.no_grad():
        own_model.network.layers[broken].mlp.down_proj.weight[3, 5] = torch.inf
    with pytest.raises(CaptureError) as error:
        capture(own_model, [prompt("The cat", (4, 7))])
    message = sentence(error)
    assert "'The cat'" in message and f"layer {layer} of 4" in message and "float32" in message


@pytest.mark.parametrize("trees", [True, False])
def test_the_prompt_that_is_not_finite_is_named(own_model, trees):
    """Others in its batch, shared prefix or not, are not blamed."""
    assert own_model.shares_prefixes
    (token,) = own_model.tokenizer(" house", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        own_model.network.embed_tokens.weight[token, 0] = torch.nan
    own_model.__dict__["shares_prefixes"] = trees
    texts = ["The", "The cat", "The cat sat", "The house sat", "The zebra crossing"]
    with pytest.raises(CaptureError) as error:
        capture(own_model, [prompt(text) for text in texts])
    assert "'The house sat'" in sentence(error) and "layer 2 of 4" in sentence(error)


def test_a_network_that_is_not_finite_shares_nothing(own_model):
    with torch.no_grad():
        own_model.original.norm.weight[0] = torch.nan
    assert own_model.shares_prefixes is False


def test_a_folder_without_weights(tiny_gemma, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_gemma, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert_refused(str(folder), str(folder), "no .safetensors weights")


def test_a_folder_without_config(tiny_gemma, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_gemma, folder)
    (folder / "config.json").unlink()
    assert_refused(str(folder), str(folder), "no config.json")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{", "not valid JSON"),
        (json.dumps({"model_type": "gpt2"})[:9], "not valid JSON"),
        ("[]", "not a JSON object"),
        ("{}", "can't be described"),
        (json.dumps({"model_type": "no_such_type"}), "can't be described"),
    ],
)
def test_a_folder_whose_config_describes_no_model(tiny_gemma, tmp_path, config, said):
    folder = tmp_path / "model"
    shutil.copytree(tiny_gemma, folder)
    (folder / "config.json").write_text(config)
    assert_refused(str(folder), str(folder), said)


def test_a_missing_file(tmp_path):
    assert_refused(str(tmp_path / "none.gguf"), str(tmp_path / "none.gguf"), "no file")


@pytest.mark.parametrize("name", ["nobody/no-such-model", "no-such-model", "./no/such/folder"])
def test_an_unknown_hub_id(name):
    assert_refused(name, repr(name), "hub", "--model gemma-3-270m")


def assert_refused(name: str, *said: str) -> None:
    from encyclo_capture.model import TransformersModel

    with pytest.raises(ModelNotFoundError) as error:
        TransformersModel(name, "cpu")
    for part in said:
        assert part in sentence(error)
    assert error.value.exit_code == 2


def test_a_folder_without_a_tokenizer(tiny_gemma, tmp_path):
    """transformers creates an empty tokenizer for most families."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_gemma, folder)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert_refused(str(folder), str(folder), "no tokenizer.json")


def test_a_tokenizer_that_can_not_be_loaded(tiny_gemma, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_gemma, folder)
    (folder / "tokenizer_config.json").write_text("{")
    assert_not_loaded(folder, "tokenizer", repr(str(folder)), "tokenizer")


def test_weights_that_are_cut_off(tiny_gemma, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_gemma, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert_refused(str(folder), str(weights), "can't be read")


def test_a_missing_shard(tiny_gemma, tmp_path):
    from transformers import AutoModel

    folder = tmp_path / "model"
    shutil.copytree(tiny_gemma, folder)
    (folder / "model.safetensors").unlink()
    AutoModel.from_pretrained(tiny_gemma).save_pretrained(folder, max_shard_size="50KB")
    first, *others = sorted(folder.glob("*.safetensors"))
    assert others
    first.unlink()
    assert_refused(str(folder), str(first), "No such file")


@pytest.mark.parametrize("change", [{"num_hidden_layers": 6}, {"hidden_size": 64}])
def test_weights_that_do_not_fit_the_config(tmp_path, change):
    """transformers draws missing weights at random and only warns."""
    folder = write_model(tmp_path / "model", "llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    assert_not_loaded(folder, "network", repr(str(folder)), "weights")


def test_a_head_that_is_not_there_is_not_made_up(tmp_path):
    """A folder without a language-model head can be captured, and refuses to generate."""
    from encyclo_capture.model import TransformersModel

    folder = write_model(tmp_path / "model", "llama")
    model = TransformersModel(str(folder), "cpu", "float32")
    assert capture(model, [prompt("The cat")])
    with pytest.raises(ModelNotFoundError) as error:
        model.generate("The", [Opening(" cat", 0.0, 0)], 2)
    assert "lm_head" in sentence(error)


def test_bert_needs_no_pooler(tmp_path):
    from transformers import AutoModelForMaskedLM

    from encyclo_capture.model import TransformersModel

    folder = write_model(tmp_path / "model", "bert")
    AutoModelForMaskedLM.from_pretrained(folder).save_pretrained(folder)
    assert capture(TransformersModel(str(folder), "cpu", "float32"), [prompt("The cat")])


def assert_not_loaded(folder, part: str, *said: str) -> None:
    from encyclo_capture.model import TransformersModel

    model = TransformersModel(str(folder), "cpu", "float32")
    with pytest.raises(ModelNotFoundError) as error:
        getattr(model, part)
    for words in said:
        assert words in sentence(error)


@pytest.mark.parametrize("dtype", ["float16", "half", "int8", ""])
def test_float16_is_not_offered(dtype):
    from encyclo.plugins.manager import Plugins

    with pytest.raises(UsageError) as error:
        Plugins().options("transformers", {"dtype": dtype})
    message = str(error.value)
    assert "\n" not in message and "dtype" in message and "bfloat16" in message and "float32" in message


@pytest.mark.parametrize("tokens", [0, -1, "many"])
def test_batches_of_no_token_are_refused(tokens):
    from encyclo.plugins.manager import Plugins

    with pytest.raises(UsageError, match="batch_tokens"):
        Plugins().options("transformers", {"batch_tokens": tokens})


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:99"])
def test_cuda_without_cuda(tiny_gemma, device):
    from encyclo_capture.model import TransformersModel

    if torch.cuda.is_available() and device != "cuda:99":
        pytest.skip("there is a CUDA device")
    with pytest.raises(UsageError) as error:
        TransformersModel(str(tiny_gemma), device)
    assert f"--device {device}" in sentence(error) and "cpu" in sentence(error)


@pytest.mark.parametrize("device", ["gpu", "", "meta", "mps", "cpu0"])
def test_a_device_that_encyclo_does_not_use(tiny_gemma, device):
    from encyclo_capture.model import TransformersModel

    with pytest.raises(UsageError) as error:
        TransformersModel(str(tiny_gemma), device)
    assert f"--device {device}" in sentence(error) and "auto, cpu or cuda" in sentence(error)


def test_the_command_line_shows_the_sentence_and_no_traceback(tiny_gemma, tmp_path, encyclo):
    out = tmp_path / "run"
    result = encyclo("run", "--limit", "2", "--model", tmp_path / "none.gguf", "--out", out)
    assert result.returncode == 2 and not out.exists()
    assert "There is no file" in result.stderr and "Traceback" not in result.stderr


def test_an_error_keeps_its_cause():
    """--debug shows the hub's error."""
    from encyclo_capture.loading.weights import find_weights

    with pytest.raises(ModelNotFoundError) as error:
        find_weights("nobody/no-such-model", None)
    assert "huggingface_hub" in "".join(traceback.format_exception(error.value.__cause__))
