"""Quantised checkpoints give the numbers of transformers' own pass over the same weights, or are refused in one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from encyclo.errors import EncycloError, ModelNotFoundError
from tests.architectures import prompts
from tests.commands import one_sentence
from tests.plain_forward import PlainModel, relative_error
from tests.quantised_models import NEEDS, QUANTISERS, fp8, write_plain, write_quantised

# What the libraries say when they are imported.
pytestmark = pytest.mark.filterwarnings("ignore")
BOUNDS = {"float32": 1e-5, "bfloat16": 0.1}
# On a CPU bitsandbytes' 4-bit layers compute in bfloat16, whatever the compute type.
CASES = [(kind, dtype) for kind in QUANTISERS for dtype in BOUNDS if (kind, dtype) != ("nf4", "float32")]
INSTALLED = [kind for kind in QUANTISERS if find_spec(NEEDS.get(kind, "torch"))]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plain(tmp_path_factory.mktemp("plain") / "model")


@pytest.fixture(scope="module")
def quantised(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the folder of the model quantised in a way; skip the test if its package is missing."""
    folders: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind in NEEDS:
            pytest.importorskip(NEEDS[kind])
        if kind not in folders:
            folders[kind] = write_quantised(kind, plain, tmp_path_factory.mktemp(kind) / "model")
        return folders[kind]

    return folder


def model_of(folder: Path, dtype: str = "float32", device: str = "cpu") -> Any:
    from encyclo_capture.model import TransformersModel

    return TransformersModel(str(folder), device, dtype)


def captured(model: Any, asked: list[Any], layers: range) -> Any:
    from encyclo_capture.capture import capture

    batches = list(capture(model, asked, layers, "span", 900))
    order = np.argsort(np.concatenate([batch.positions for batch in batches]))
    return np.concatenate([batch.activations for batch in batches])[order]


def reference(folder: Path, plain: Path, dtype: str) -> PlainModel:
    """transformers' own pass over the quantised weights, with all others in the compute type."""
    from transformers import AutoModelForCausalLM

    read = PlainModel(plain)
    network = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation="eager"
    )
    for parameter in network.parameters():
        if type(parameter) is torch.nn.Parameter and parameter.is_floating_point():
            parameter.data = parameter.data.to(getattr(torch, dtype))
    read.network = network.model.eval()
    return read


@pytest.mark.parametrize(("kind", "dtype"), CASES)
def test_quantised_weights_give_the_plain_passs_numbers(quantised, plain: Path, kind: str, dtype: str):
    from encyclo_capture.selftest import check

    folder = quantised(kind)
    model = model_of(folder, dtype)
    asked, layers = prompts(model.tokenizer), range(model.depth + 1)
    figures = check(model, asked, layers, "span", 900)
    assert figures["layers"] <= BOUNDS[dtype]
    assert model.network.dtype == getattr(torch, dtype)
    ours, read = captured(model, asked, layers), reference(folder, plain, dtype)
    theirs = np.stack([read.read(prompt, layers, "span") for prompt in asked])
    assert relative_error(ours, theirs).max() <= BOUNDS[dtype]
    # The weights are the quantised ones.
    unquantised = np.stack([PlainModel(plain).read(prompt, layers, "span") for prompt in asked[:4]])
    assert relative_error(ours[:4], unquantised)[:, -1].min() > 5e-3


def test_fp8_is_dequantised_on_a_cpu(quantised, plain: Path, tmp_path: Path):
    """The weights are the float8 numbers times their blocks' scales."""
    folder, unpacked = quantised("fp8"), tmp_path / "unpacked"
    shutil.copytree(plain, unpacked)
    weights = load_file(plain / "model.safetensors")
    for key, weight in weights.items():
        if key.endswith("_proj.weight"):
            made = fp8(weight)
            scales = made["weight_scale_inv"].repeat_interleave(128, 0).repeat_interleave(128, 1)
            weights[key] = made["weight"].float() * scales[: weight.shape[0], : weight.shape[1]]
    save_file(weights, unpacked / "model.safetensors", {"format": "pt"})
    model, read = model_of(folder), PlainModel(unpacked)
    asked, layers = prompts(model.tokenizer), range(model.depth + 1)
    theirs = np.stack([read.read(prompt, layers, "span") for prompt in asked])
    assert relative_error(captured(model, asked, layers), theirs).max() <= 1e-5
    assert model.quantisation == "fp8, 8 bits, dequantised when loaded"


UNKNOWN = "loads no such weights"
MISSING = "can't be used on cpu"
# Settings of methods that need a package or a GPU, and what the sentence says.
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "bitsandbytes": ({"load_in_4bit": True}, "bitsandbytes"),
    "gptq": ({"bits": 4}, "optimum"),
    "awq": ({"bits": 4}, "gptqmodel"),
    "aqlm": ({}, "AQLM"),
    "quanto": ({"weights": "int8"}, "optimum-quanto"),
    "hqq": ({"quant_config": {}}, "HQQ"),
    "eetq": ({}, "kernels"),
    "higgs": ({"bits": 4}, "only supported on GPU"),
    "fbgemm_fp8": ({}, "requires a GPU"),
    "compressed-tensors": ({}, "compressed-tensors"),
    "torchao": ({"quant_type": "int8"}, "torchao"),
    "auto-round": ({"bits": 4}, "auto-round"),
    "nvfp4": ({}, "not supported yet"),
    "none such": ({}, UNKNOWN),
}


@pytest.fixture
def described(plain: Path, tmp_path: Path) -> Callable[..., Path]:
    """Give the model with `quantization_config` in its config.json, and one weight of the type int8."""

    def folder(settings: dict[str, Any], part: str | None = None, packed: bool = True) -> Path:
        made = Path(shutil.copytree(plain, tmp_path / "model"))
        config = json.loads((made / "config.json").read_text())
        (config.setdefault(part, {}) if part else config)["quantization_config"] = settings
        (made / "config.json").write_text(json.dumps(config))
        if packed:
            weights = load_file(made / "model.safetensors")
            key = "model.layers.0.mlp.up_proj.weight"
            save_file(
                {**weights, key: weights[key].to(torch.int8)}, made / "model.safetensors", {"format": "pt"}
            )
        return made

    return folder


@pytest.mark.parametrize("method", REFUSED)
def test_what_is_missing_is_said_before_weights_load(described, method: str):
    settings, said = REFUSED[method]
    if method.isidentifier() and find_spec(method):
        pytest.skip(f"{method} is installed")
    with pytest.raises(ModelNotFoundError) as caught:
        model_of(described({"quant_method": method, **settings}))
    message = str(caught.value)
    assert said in message and f"(method {method})" in message
    assert "\n" not in message and message.endswith(".") and ". " not in message
    assert (UNKNOWN if said == UNKNOWN else MISSING) in message


def test_a_run_ends_in_that_sentence(described, encyclo, tmp_path: Path):
    folder = described({"quant_method": "gptq", "bits": 4})
    result = encyclo("run", "--model", str(folder), "--sampler", "raw", "--out", tmp_path / "run")
    assert result.returncode == 2 and "install what is missing" in one_sentence(result.stderr)
    assert not (tmp_path / "run").exists()


def test_plain_weights_that_config_json_calls_quantised_are_refused(described):
    with pytest.raises(
        ModelNotFoundError, match=r"\(method fp8\), but the \.safetensors files hold plain weights"
    ):
        model_of(described({"quant_method": "fp8"}, packed=False))


@pytest.mark.parametrize(
    ("kind", "lost"),
    [
        ("nf4", "weight.absmax"), ("nf4", "weight"), ("int8", "SCB"), ("int8", "weight"),
        ("fp8", "weight_scale_inv"), ("fp8", "weight"), ("torchao", "_weight_scale"),
    ],
)  # fmt: skip
def test_a_missing_part_of_a_quantised_weight_is_refused(quantised, tmp_path: Path, kind: str, lost: str):
    folder = Path(shutil.copytree(quantised(kind), tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    with safe_open(folder / "model.safetensors", "pt") as file:
        about = file.metadata()
    del weights[f"model.layers.1.mlp.up_proj.{lost}"]
    save_file(weights, folder / "model.safetensors", about)
    with pytest.raises(ModelNotFoundError, match=r"(can't be loaded|incomplete)"):
        model_of(folder).support  # noqa: B018


def test_run_json_names_the_quantisation(quantised, encyclo, tmp_path: Path):
    out = tmp_path / "run"
    flags = [
        "--sampler",
        "raw",
        "--limit",
        "20",
        "--interpreter",
        "centroid",
        "--device",
        "cpu",
        "--layers",
        "1,-1",
    ]
    result = encyclo("run", "--model", str(quantised("fp8")), *flags, "--out", out)
    assert result.returncode == 0, result.stderr
    provenance = json.loads((out / "run.json").read_text())["provenance"]
    assert provenance["model_quantisation"] == "fp8, 8 bits, dequantised when loaded"
    assert "fp8, 8 bits, dequantised when loaded" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("method", "settings", "text"),
    [
        ("mxfp4", {}, "mxfp4, 4 bits"),
        ("bitnet", {}, "bitnet"),
        ("gptq", {"bits": 3}, "gptq (gptqmodel), 3 bits"),
        ("quanto", {"weights": "int2"}, "quanto (optimum-quanto), 2 bits"),
        (
            "compressed-tensors",
            {"config_groups": {"group_0": {"weights": {"num_bits": 8}}}},
            "(compressed-tensors), 8 bits",
        ),
    ],
)
def test_the_bits_are_found_in_the_settings(method: str, settings: dict[str, Any], text: str):
    from encyclo_capture.loading.quantisation import Quantisation

    assert Quantisation(method, settings, dequantised=False).text.endswith(text)


def test_the_packages_version_is_named(quantised):
    from importlib.metadata import version

    model = model_of(quantised("nf4"))
    assert model.quantisation == f"bitsandbytes (bitsandbytes {version('bitsandbytes')}), 4 bits, nf4"


def test_replicas_share_the_quantised_weights(quantised):
    """bitsandbytes' 8-bit layers keep them in an object of their own."""
    from encyclo_capture.cpu.workers import replica_of

    network = model_of(quantised("int8"))
    network.support  # noqa: B018  # a first pass moves the weights there
    network = network.network
    layers = [n.layers[0].mlp.up_proj for n in (network, replica_of(network))]
    assert layers[0].state is not layers[1].state
    assert layers[0].state.CB is layers[1].state.CB is not None


def test_a_quantised_head_scores_as_transformers_does(quantised, plain: Path, tmp_path: Path):
    pytest.importorskip("bitsandbytes")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    folder = tmp_path / "model"
    settings = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["none"])
    network = AutoModelForCausalLM.from_pretrained(plain, quantization_config=settings, dtype="float32")
    network.save_pretrained(folder)
    for file in plain.glob("tokenizer*"):
        shutil.copy(file, folder)
    model = model_of(folder)
    weight, bias = model.head
    assert bias is None and weight.shape == (model.vocab_size, model.hidden_size)
    states = torch.randn(5, model.hidden_size)
    with torch.inference_mode():
        theirs = network.lm_head(states).float()
    assert ((states @ weight.T).float() - theirs).norm() / theirs.norm() < 0.02


@pytest.fixture
def in_8_bits(tmp_path: Path) -> Callable[[str], tuple[Path, Path]]:
    """Give folders of a tiny model of an architecture, plain and in 8 bits."""
    pytest.importorskip("bitsandbytes")
    from transformers import AutoModel, BitsAndBytesConfig

    from tests.architectures import write_model

    def folders(kind: str) -> tuple[Path, Path]:
        plain, folder = tmp_path / "plain", tmp_path / "model"
        write_model(kind, plain)
        settings = BitsAndBytesConfig(load_in_8bit=True)
        network = AutoModel.from_pretrained(plain, quantization_config=settings, dtype="float32")
        network.save_pretrained(folder)
        for file in plain.glob("tokenizer*"):
            shutil.copy(file, folder)
        return plain, folder

    return folders


def test_the_language_model_of_a_quantised_multimodal_model_is_read(in_8_bits):
    """The settings and the files name its modules from the whole model's root."""
    plain, folder = in_8_bits("gemma3")
    (states,) = model_of(folder).forward(["the old house"], [0, 4])
    (wanted,) = model_of(plain).forward(["the old house"], [0, 4])
    assert 0 < relative_error(states, wanted).max() < 0.2


def test_attention_that_depends_on_how_it_is_computed_is_refused_in_8_bits_too(in_8_bits):
    _, folder = in_8_bits("paligemma")
    with pytest.raises(
        EncycloError, match="times what rounding in bfloat16 explains, so that none can be trusted"
    ):
        model_of(folder).support  # noqa: B018


@pytest.mark.cuda
@pytest.mark.parametrize("kind", INSTALLED)
def test_quantised_weights_are_right_or_refused_on_a_gpu(quantised, kind: str):
    from encyclo_capture.selftest import check

    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    try:
        model = model_of(quantised(kind), "bfloat16", "cuda")
        asked, layers = prompts(model.tokenizer), range(model.depth + 1)
        figures = check(model, asked, layers, "span", 4096)
    except EncycloError as error:  # such as fp8, whose kernels are a package
        assert "\n" not in str(error) and str(error).endswith(".")
    else:
        assert figures["layers"] <= BOUNDS["bfloat16"] and model.network.device.type == "cuda"
