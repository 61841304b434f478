"""The real smollm2-135m-instruct and minilm: every captured sample is the plain pass's.

tests/test_real.py has gemma-3-270m. Skipped where a model's package is not installed; README has the line.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encyclo.config import default_layers
from encyclo.errors import UsageError
from encyclo.types import POOLINGS, Prompt
from encyclo_capture.loading.packaged import MODELS
from tests.plain_forward import PlainModel, relative_error
from tests.plugins.test_capture_equal import captured
from tests.plugins.test_sites import PLACES, PlainSites

pytestmark = pytest.mark.real

DEPTH = {"smollm2-135m-instruct": 30, "minilm": 6}
STRUCTURE = {"smollm2-135m-instruct": "llama", "minilm": "bert"}
TEXTS = ("The otter", "The otter slept near the old house", "Otters", "A café is nothing like an otter.")


def prompt(text: str) -> Prompt:
    start = text.lower().index("otter")
    return Prompt("otter", text, (start, start + len("otter")), "f")


# The same beginnings, so that prefixes are shared; one prompt without a mention.
PROMPTS = [prompt(text) for text in TEXTS] + [Prompt("otter", f"{TEXTS[1]}, which was gone.", None, "f")]


@pytest.fixture(scope="module", params=DEPTH)
def name(request: pytest.FixtureRequest) -> str:
    try:
        version(MODELS[request.param].distribution)
    except PackageNotFoundError:
        pytest.skip(f"{MODELS[request.param].distribution} is not installed; README has the line.")
    return str(request.param)


@cache
def loaded(name: str):
    """encyclo's handle and the plain reference, both in float32."""
    from encyclo_capture.model import TransformersModel

    model = TransformersModel(name, "cpu", "float32")
    return model, PlainModel(model.weights.folder)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("shared", [True, False])
def test_every_sample_is_the_plain_pass_with_and_without_shared_prefixes(
    name: str, pooling: str, shared: bool, monkeypatch: pytest.MonkeyPatch
):
    model, plain = loaded(name)
    assert model.shares_prefixes is (name != "minilm")
    if not shared:
        monkeypatch.setattr("encyclo_capture.capture.LONGEST_IN_TREE", 0)
    layers = default_layers(model.depth)
    values, batches = captured(model, PROMPTS, layers, pooling, 512)
    wanted = np.stack([plain.read(prompt, layers, pooling) for prompt in PROMPTS])
    assert relative_error(values, wanted).max() < 1e-5
    tokens, computed = (sum(getattr(b, key) for b in batches) for key in ("tokens", "tokens_computed"))
    assert (computed < tokens) is (shared and model.shares_prefixes)


@cache
def hooked(name: str) -> PlainSites:
    """transformers' own network in float32, with hooks on the two modules of each block."""
    from encyclo_capture.loading.weights import find_weights

    return PlainSites(find_weights(name, None).folder, *PLACES[STRUCTURE[name]], "attn")


@pytest.mark.slow  # 40 s of processor time
@pytest.mark.parametrize("site", ["attn", "mlp"])
def test_every_sample_of_a_site_is_the_plain_pass_s_at_all_layers(
    name: str, site: str, monkeypatch: pytest.MonkeyPatch
):
    from encyclo_capture.model import TransformersModel

    model, plain = TransformersModel(name, "cpu", "float32", site=site), hooked(name)
    plain.site, layers = site, tuple(range(1, model.depth + 1))
    for pooling in ("span", "mean"):
        wanted = np.stack([plain.read(prompt, layers, pooling) for prompt in PROMPTS])
        for longest in (10_000, 0):  # with and without shared prefixes
            monkeypatch.setattr("encyclo_capture.capture.LONGEST_IN_TREE", longest)
            values, _ = captured(model, PROMPTS, layers, pooling, 512)
            assert relative_error(values, wanted).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("site", ["attn", "mlp"])
def test_a_run_at_a_site_stores_the_plain_passs_numbers(encyclo, name: str, site: str, tmp_path: Path):
    plain = hooked(name)
    plain.site = site
    errors = errors_of_a_run(encyclo, name, plain, tmp_path / "run", "--site", site)
    assert errors.shape == (80, len(default_layers(DEPTH[name]))) and errors.max() < 2e-3  # half precision


def test_a_run_stores_the_plain_passs_numbers(encyclo, name: str, tmp_path: Path):
    errors = errors_of_a_run(encyclo, name, loaded(name)[1], tmp_path / "run")
    assert errors.max() < 2e-3  # half precision


def errors_of_a_run(encyclo, name: str, plain: PlainModel, out: Path, *more: str) -> Any:
    """Run 20 concepts; return the distance of each stored sample at each layer from the plain pass: [80, L]."""
    from encyclo.query.encyclopedia import open_run

    few = ["--sampler", "templates", "--limit", "20", "--per-concept", "4", "--interpreter", "centroid"]
    model = ["--model", name, "-o", "transformers.dtype=float32", "--device", "cpu"]
    result = encyclo("run", *few, *more, *model, "--out", out)
    assert result.returncode == 0, result.stderr
    record = json.loads((out / "run.json").read_text())
    assert MODELS[name].distribution in record["provenance"]["model_source"]
    assert "apache" in record["provenance"]["licences"]["model"].lower()
    layers = record["config"]["layers"]
    assert layers == list(default_layers(DEPTH[name]))
    errors = []
    with open_run(out) as book:
        samples = book.source.samples(np.arange(80))
        for text, span, values in zip(samples.prompt, samples.span.tolist(), samples.values(), strict=True):
            wanted = plain.read(Prompt("", text, tuple(span), ""), layers, "span")
            errors.append(relative_error(values, wanted))
    return np.stack(errors)


def test_the_mention_of_a_chat_model_and_of_an_encoder_is_its_tokens_alone(name: str):
    model, _ = loaded(name)
    text = PROMPTS[1].text
    ranges = model.tokens(text)
    special = [text[a:b] for a, b in ranges if a == b]
    assert len(special) == (2 if name == "minilm" else 0)  # [CLS] and [SEP]; SmolLM2 has no BOS
    assert "".join(text[a:b] for a, b in ranges).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("pooling", ["span", "last", "mean"])
def test_the_real_chat_template_adds_nothing_to_a_pool(name: str, pooling: str):
    """Captured in the conversation up to the text, compared with a plain pass over the whole conversation."""
    from encyclo.chat import Chat

    model, plain = loaded(name)
    if name == "minilm":
        with pytest.raises(UsageError, match="has no chat template"):
            Chat().frame(model)
        return
    given, used = Chat().prompts(model, PROMPTS, pooling)
    layers = default_layers(model.depth)
    values, _ = captured(model, given, layers, used, 512)
    for prompt, found in zip(PROMPTS, values, strict=True):
        whole = plain.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt.text}], tokenize=False
        )
        start = whole.index(f"user\n{prompt.text}<|im_end|>") + len("user\n")
        spans = plain.tokenizer(whole, return_offsets_mapping=True)["offset_mapping"]
        end = start + len(prompt.text)
        if pooling == "span" and prompt.span:
            start, end = start + prompt.span[0], start + prompt.span[1]
        own = [i for i, (a, b) in enumerate(spans) if max(a, start) < min(b, end)]
        own = own if pooling == "mean" or (pooling == "span" and prompt.span) else own[-1:]
        wanted = np.stack([plain.states(whole)[layer][own].mean(axis=0) for layer in layers])
        assert relative_error(found, wanted).max() < 1e-5, prompt.text
