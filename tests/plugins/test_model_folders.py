"""Damaged, foreign and hostile model folders: each ends `encyclo run` in one sentence, fast, and runs nothing.

The table damages a copy of a tiny model; a few folders that look odd must work. GGUF files and the caches stand below.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from encyclo.errors import ModelNotFoundError
from encyclo_capture.loading import weights
from tests.commands import one_sentence
from tests.tiny_models import build_tokenizer, write_model

SECONDS = 30
Damage = Callable[[Path], object]
DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000


@pytest.fixture(autouse=True)
def hurry() -> Iterator[None]:
    """Let a test fail that hangs."""

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("whole") / "llama", "llama")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy of the model, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "model"))


@pytest.fixture
def run(encyclo, tmp_path: Path):
    def call(model: Path | str, *flags: str):
        fast = ["--sampler", "raw", "--limit", "20", "--interpreter", "centroid", "--device", "cpu"]
        out = tmp_path / "run"
        return encyclo("run", "--model", str(model), "--layers", "1,-1", *fast, *flags, "--out", out)

    return call


def assert_refused(result, *said: str) -> None:
    assert result.returncode in (1, 2)
    message = one_sentence(result.stderr)
    assert message.endswith(".") and ". " not in message.rstrip("."), message
    assert "unexpected" not in message and "failed with" not in message, message
    for part in said:
        assert part in message


# How a folder is damaged: each returns a function of the folder.


def write(name: str, content: str | bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(
        content.encode() if isinstance(content, str) else content
    )


def edit(name: str, **changes: Any) -> Damage:
    def damage(folder: Path) -> None:
        settings = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**settings, **changes}))

    return damage


def config(**changes: Any) -> Damage:
    return edit("config.json", **changes)


def replaced(name: str, make: Damage) -> Damage:
    """Remove the file, then make something else in its place."""

    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return damage


def fifo(name: str) -> Damage:
    return replaced(name, os.mkfifo)


def device(name: str) -> Damage:
    return replaced(name, lambda path: path.symlink_to("/dev/zero"))


def sparse(name: str, begin: bytes = b"") -> Damage:
    """Make a file of 100 GB, of which only the beginning is on the disk."""

    def make(path: Path) -> None:
        path.write_bytes(begin)
        os.truncate(path, 10**11)

    return replaced(name, make)


def tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "model.safetensors"
        save_file(change(load_file(path)), path, metadata={"format": "pt"})

    return damage


def changed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Damage:
    return tensors(lambda found: {**found, name: change(found[name]).contiguous()})


def header(**changes: Any) -> Damage:
    """Let the header of the weight file lie about one tensor."""

    def damage(folder: Path) -> None:
        path = folder / "model.safetensors"
        data = path.read_bytes()
        end = 8 + struct.unpack("<Q", data[:8])[0]
        entries = json.loads(data[8:end])
        entries["norm.weight"].update(changes)
        text = json.dumps(entries).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data[end:])

    return damage


def index(shard: str, metadata: bool = True, moved: bool = True) -> Damage:
    """Let an index name `shard` as the only file; by default, the weights are moved there."""

    def damage(folder: Path) -> None:
        names = list(load_file(folder / "model.safetensors"))
        written = {"weight_map": dict.fromkeys(names, shard), **({"metadata": {}} if metadata else {})}
        (folder / "model.safetensors.index.json").write_text(json.dumps(written))
        if moved:
            (folder / "model.safetensors").rename(folder / shard)
        else:
            (folder / "model.safetensors").rename(folder / "other.safetensors")

    return damage


def pickled(folder: Path) -> None:
    """Keep the weights as a pickle, with an index; some other .safetensors file is there too."""
    found = load_file(folder / "model.safetensors")
    torch.save(found, folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    named = {"metadata": {}, "weight_map": dict.fromkeys(found, "pytorch_model.bin")}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(named))


def named_pickle(folder: Path) -> None:
    pickled(folder)
    (folder / "pytorch_model.bin.index.json").rename(folder / "model.safetensors.index.json")


def adapter(folder: Path) -> None:
    settings = {"peft_type": "LORA", "base_model_name_or_path": "someone/base", "r": 4}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    save_file({"a": torch.zeros(1)}, folder / "adapter_model.safetensors")


def adapter_alone(folder: Path) -> None:
    adapter(folder)
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()


def larger_tokenizer(folder: Path) -> None:
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["person", "animal", "plant"])
    tokenizer.save_pretrained(folder)


def deep_normalizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    text = json.dumps({**json.loads(path.read_text()), "normalizer": "here"})
    nested = '{"type": "Sequence", "normalizers": [' * 5000 + '{"type": "Lowercase"}' + "]}" * 5000
    path.write_text(text.replace('"here"', nested))


def without(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def quantised(method: str) -> Damage:
    return config(
        quantization_config={"quant_method": method, "bits": 4, "load_in_4bit": method == "bitsandbytes"}
    )


EMPTY_SAFETENSORS = struct.pack("<Q", 2) + b"{}"
FIRST = "layers.0.mlp.up_proj.weight"
REFUSED: dict[str, tuple[Damage, str]] = {
    # an adapter
    "adapter beside its base": (adapter, "merge_and_unload"),
    "adapter alone": (adapter_alone, "merge_and_unload"),
    # files that are none, or too large
    "fifo as weights": (fifo("model.safetensors"), "named pipe"),
    "fifo as index": (fifo("model.safetensors.index.json"), "named pipe"),
    "fifo as tokenizer": (fifo("tokenizer.json"), "named pipe"),
    "fifo as chat template": (fifo("chat_template.jinja"), "named pipe"),
    "fifo as model card": (fifo("README.md"), "named pipe"),
    "fifo as licence": (fifo("LICENSE"), "named pipe"),
    "fifo as config": (fifo("config.json"), "no config.json"),
    "device as weights": (device("model.safetensors"), "a device"),
    "device as tokenizer": (device("tokenizer.json"), "a device"),
    "device as licence": (device("LICENSE.txt"), "a device"),
    "sparse weights": (sparse("model.safetensors", EMPTY_SAFETENSORS), "never written"),
    "empty sparse weights": (sparse("model.safetensors"), "model.safetensors can't be read"),
    "sparse config": (sparse("config.json"), "100,000,000,000 bytes"),
    "sparse tokenizer": (sparse("tokenizer.json"), "100,000,000,000 bytes"),
    "sparse model card": (sparse("README.md"), "100,000,000,000 bytes"),
    "folder as weights": (replaced("model.safetensors", Path.mkdir), "it is a folder"),
    "dangling link": (replaced("model.safetensors", lambda p: p.symlink_to("/none")), "No such file"),
    # config.json
    "config: deep": (write("config.json", DEEP), "nested more than"),
    "config: not UTF-8": (write("config.json", b"\xff\xfe"), "UTF-8"),
    "config: a number": (write("config.json", "7"), "not a JSON object"),
    "config: unknown type": (config(model_type="nope"), "nope"),
    "config: type is a list": (config(model_type=[]), "can't be described"),
    "config: wrong type": (config(attention_bias=7), "attention_bias"),
    "config: dtype": (config(dtype="x"), "can't be described"),
    "config: activation": (config(hidden_act="x"), "can't be loaded"),
    "config: rope": (config(rope_parameters={"rope_type": "x"}), "can't be loaded"),
    "config: labels": (config(id2label=[1]), "can't be described"),
    "config: per layer": (config(per_layer_config={"0": {"hidden_size": 16}}), "hidden_size"),
    "config: text config": (config(text_config={"model_type": "gpt2"}), "can't be described"),
    "config: heads of 0": (config(num_attention_heads=0), "num_attention_heads = 0"),
    "config: key heads of 0": (config(num_key_value_heads=0), "num_key_value_heads = 0"),
    "config: negative heads": (config(num_attention_heads=-4), "num_attention_heads = -4"),
    "config: no layers": (config(num_hidden_layers=0), "num_hidden_layers = 0"),
    "config: empty head": (config(head_dim=0), "head_dim = 0"),
    "config: no vocabulary": (config(vocab_size=0), "vocab_size = 0"),
    "config: no width": (config(hidden_size=0), "hidden_size = 0"),
    "config: padding": (config(pad_token_id=10**6), "can't be loaded"),
    "config: odd head": (config(head_dim=7), "`head_dim`=7"),
    "config: other head": (config(head_dim=16), "layers.0.self_attn"),
    "config: other width": (config(intermediate_size=128), FIRST.replace("up_proj", "down_proj")),
    "config: other vocabulary": (config(vocab_size=1300), "embed_tokens.weight has the shape [1200, 32]"),
    "config: more layers": (config(num_hidden_layers=6), "layers.4.input_layernorm.weight"),
    "config: fewer layers": (config(num_hidden_layers=3), "no place for layers.3.input_layernorm.weight"),
    "config: 1,000 layers": (config(num_hidden_layers=1_000), "have 4 layers"),
    "config: 100,000 layers": (config(num_hidden_layers=100_000), "num_hidden_layers = 100000"),
    "config: endless layers": (config(num_hidden_layers=10**30), "num_hidden_layers"),
    "config: endless window": (config(sliding_window=10**30), "sliding_window"),
    "config: endless labels": (config(num_labels=10**9), "num_labels"),
    "config: huge width": (config(intermediate_size=10**9), "numbers"),
    "config: huge vocabulary": (config(vocab_size=10**9), "numbers"),
    "config: endless width": (config(intermediate_size=10**30), "intermediate_size"),
    "config: last layer before the norm": (config(tie_last_hidden_states=False), "tie_last_hidden_states"),
    "config: other weights": (config(transformers_weights="../x.safetensors"), "outside the folder"),
    "config: pickled weights": (config(transformers_weights="x.bin"), "x.bin"),
    # quantised weights, whose packages are not installed here
    "bitsandbytes": (quantised("bitsandbytes"), "method bitsandbytes"),
    "gptq": (quantised("gptq"), "method gptq"),
    "awq": (quantised("awq"), "method awq"),
    "compressed-tensors": (quantised("compressed-tensors"), "method compressed-tensors"),
    "torchao": (quantised("torchao"), "method torchao"),
    "no method": (config(quantization_config={}), "method unknown"),
    "quantised without a word": (changed(FIRST, lambda w: w.to(torch.int8)), "type I8"),
    "float8 without a word": (changed(FIRST, lambda w: w.to(torch.float8_e4m3fn)), "type F8_E4M3"),
    # weights
    "weights: empty file": (write("model.safetensors", b""), "header"),
    "weights: header too long": (write("model.safetensors", b"\xff" * 8 + b"{}"), "header"),
    "weights: Git LFS pointer": (write("model.safetensors", "version https://git-lfs.github.com"), "header"),
    "weights: no tensors": (write("model.safetensors", EMPTY_SAFETENSORS), "0 tensors"),
    "weights: header lies about a shape": (header(shape=[2**40]), "invalid shape"),
    "weights: header lies about a place": (header(data_offsets=[0, 10**15]), "offset"),
    "weights: header lies about a type": (header(dtype="X9"), "X9"),
    "weights: a tensor is missing": (tensors(lambda t: {k: t[k] for k in t if k != FIRST}), FIRST),
    "weights: another shape": (changed(FIRST, torch.t), f"{FIRST} has the shape [32, 64]"),
    "weights: another rank": (changed("norm.weight", lambda w: w[None]), "norm.weight has the shape [1, 32]"),
    "weights: of another architecture": (
        tensors(lambda t: {**t, "layers.1.self_attn.q_norm.weight": torch.ones(8)}),
        "no place for layers.1.self_attn.q_norm.weight",
    ),
    "weights: not a number": (changed("norm.weight", lambda w: w * torch.nan), "not finite"),
    "weights: overflow": (changed("norm.weight", lambda w: w * 1e38), "layer 4 of 4"),
    "weights: huge": (changed("norm.weight", lambda w: w * 1e18), "implausibly large"),
    "weights: other name": (lambda f: (f / "model.safetensors").rename(f / "m.safetensors"), "neither"),
    "weights: only a pickled index": (pickled, "neither"),
    "index: names a pickle": (named_pickle, "pytorch_model.bin"),
    "index: missing shard": (index("a.safetensors", moved=False), "No such file"),
    "index: shard outside": (index("../a.safetensors", moved=False), "outside the folder"),
    "index: no metadata": (index("a.safetensors", metadata=False), "no metadata"),
    # the tokenizer
    "tokenizer: none": (without("tokenizer.json"), "no tokenizer.json"),
    "tokenizer: beyond the embedding": (larger_tokenizer, "model's last token is 1199"),
    "tokenizer: an object": (write("tokenizer.json", "{}"), "added_tokens"),
    "tokenizer: null": (write("tokenizer.json", "null"), "can't be loaded"),
    "tokenizer: deep": (write("tokenizer.json", DEEP), "recursion"),
    "tokenizer: deep normalizer": (deep_normalizer, "recursion"),
    "tokenizer: no model": (edit("tokenizer.json", model=None), "can't be loaded"),
    "tokenizer: panics": (
        edit("tokenizer.json", normalizer={"type": "Replace", "pattern": {"Regex": ""}, "content": "xx"}),
        "fails on",
    ),
    "tokenizer: class": (edit("tokenizer_config.json", tokenizer_class=7), "can't be loaded"),
    "tokenizer: special token": (edit("tokenizer_config.json", bos_token=7), "bos_token"),
    "tokenizer: length": (edit("tokenizer_config.json", model_max_length="x"), "fails on"),
    "tokenizer: config is a list": (write("tokenizer_config.json", "[]"), "can't be loaded"),
    "tokenizer: added tokens": (write("added_tokens.json", "[]"), "can't be loaded"),
    "tokenizer: empty vocabulary file": (
        lambda f: (f / "tokenizer.json").rename(f / "tekken.json"),
        "tokenizer",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_damaged_folder_is_refused_in_one_sentence(name, folder, run):
    damage, said = REFUSED[name]
    damage(folder)
    assert_refused(run(folder), said)


def as_links(folder: Path) -> None:
    """Make the files links out of the folder, as in the hub's cache."""
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    for file in list(folder.iterdir()):
        file.rename(blobs / file.name)
        file.symlink_to(blobs / file.name)


ACCEPTED: dict[str, Damage] = {
    "links": as_links,
    "a link that nobody reads": lambda folder: (folder / "pytorch_model.bin").symlink_to("/none"),
    "a folder of licences": lambda folder: (folder / "LICENSES").mkdir(),
    "shards": index("model-1.safetensors"),
    "a broken generation_config": write("generation_config.json", "{"),
    "attention from the hub": config(attn_implementation="kernels-community/x"),
    "outputs as tuples": config(return_dict=False),
    "the pooler's weights": tensors(lambda t: {**t, "pooler.dense.weight": torch.zeros(32, 32)}),
    "a mask of an old version": tensors(
        lambda t: {**t, "layers.0.self_attn.bias": torch.ones(1, 1, 9, 9, dtype=torch.uint8)}
    ),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_odd_folder_works(name, folder, run):
    ACCEPTED[name](folder)
    result = run(folder)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "damage",
    [
        config(model_type="mine", auto_map={"AutoConfig": "mine.Mine", "AutoModel": "mine.Mine"}),
        edit(
            "tokenizer_config.json", tokenizer_class="Mine", auto_map={"AutoTokenizer": [None, "mine.Mine"]}
        ),
    ],
    ids=["model", "tokenizer"],
)
def test_a_models_own_code_never_runs(damage, folder, run, tmp_path, monkeypatch):
    """Without a word from encyclo, transformers asks on the terminal whether to run it; here somebody says yes."""
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Mine: pass\n")
    damage(folder)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    result = run(folder)
    assert_refused(result, "custom code")
    assert "y/N" not in result.stdout + result.stderr and not (tmp_path / "ran").exists()


def test_tokens_beyond_the_embedding_are_refused_when_generating(folder):
    from encyclo.errors import CaptureError
    from encyclo.types import Opening
    from encyclo_capture.model import TransformersModel

    larger_tokenizer(folder)
    model = TransformersModel(str(folder), "cpu", "float32")
    with pytest.raises(CaptureError, match="last token is 1199"):
        model.generate("The", [Opening(" person", 0.0, 0)], 2)
    with pytest.raises(CaptureError, match="last token is 1199"):
        model.forward(["The person"], [1])


# GGUF files


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ENCYCLO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama of one layer."""
    import gguf
    import numpy as np

    tokenizer = build_tokenizer()
    path, count = tmp_path_factory.mktemp("gguf") / "tiny.gguf", len(tokenizer)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(count)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__))
    writer.add_token_types([1] * count)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    square, wide = ("attn_q", "attn_k", "attn_v", "attn_output"), ("ffn_gate", "ffn_up")
    shapes = {
        "token_embd": (count, 32),
        "output": (count, 32),
        "output_norm": (32,),
        "blk.0.ffn_down": (32, 64),
    }
    shapes |= {f"blk.0.{name}": (32,) for name in ("attn_norm", "ffn_norm")}
    shapes |= {f"blk.0.{name}": (32, 32) for name in square} | {f"blk.0.{name}": (64, 32) for name in wide}
    drawn = np.random.default_rng(0)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", drawn.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_is_converted_without_its_neighbours(cache, tiny_gguf, run, tmp_path):
    """transformers would read the files beside it."""
    file = Path(shutil.copy(tiny_gguf, tmp_path / "tiny.gguf"))
    for name in ("config.json", "tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / name).write_text("[]")
    result = run(file, "--layers", "1")
    assert result.returncode == 0, result.stderr
    assert (
        "Preparing the weights" in result.stderr and "Converting" not in result.stderr
    )  # transformers' own bar


def cut(length: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:length]


def at(place: int, value: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:place] + value + data[place + len(value) :]


def many_layers(data: bytes) -> bytes:
    found = re.search(rb"llama\.block_count....", data, re.DOTALL)
    assert found
    return at(found.end(), struct.pack("<I", 100_000))(data)


@pytest.mark.parametrize(
    "change",
    [
        cut(3),
        cut(20),
        cut(100),
        cut(2000),
        cut(200_000),
        cut(-4),
        at(4, b"\x63"),
        at(8, b"\xff" * 7),
        many_layers,
    ],
)
def test_a_damaged_gguf_file_is_refused(change, cache, tiny_gguf, run, tmp_path):
    file = tmp_path / "damaged.gguf"
    file.write_bytes(change(tiny_gguf.read_bytes()))
    assert_refused(run(file, "--layers", "1"), str(file))
    assert not list(cache.glob("gguf/*/encyclo.json"))


@pytest.mark.parametrize(
    "damage", [fifo("m.gguf"), device("m.gguf"), sparse("m.gguf"), sparse("m.gguf", b"GGUF" * 99)]
)
def test_a_gguf_file_that_is_none_is_refused(damage, cache, run, tmp_path):
    damage(tmp_path)
    assert_refused(run(tmp_path / "m.gguf"), str(tmp_path / "m.gguf"))


@pytest.mark.parametrize(("file_says", "tokenizer_does"), [(True, False), (False, True)])
def test_a_tokenizer_that_begins_unlike_the_file_says_is_refused(file_says, tokenizer_does, tmp_path):
    """transformers before 5.23 forgets <bos> of gemma-3-270m's GGUF file, without an error."""
    import gguf

    from encyclo_capture.loading.gguf_files import check_tokenizer

    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "gemma3")
    writer.add_add_bos_token(file_says)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    check_tokenizer(tmp_path / "m.gguf", build_tokenizer(starts=file_says))
    says = "does not begin with <bos>" if file_says else "begins with <bos>"
    with pytest.raises(ModelNotFoundError, match=rf"m\.gguf: a text {says}.*transformers>="):
        check_tokenizer(tmp_path / "m.gguf", build_tokenizer(starts=tokenizer_does))


def test_a_tokenizer_that_reads_letters_is_refused(tiny_gguf):
    """transformers before 5.18 reads gemma-3-270m's GGUF file so, without an error."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    from encyclo_capture.loading.gguf_files import check_tokenizer

    whole = json.loads(build_tokenizer().backend_tokenizer.to_str())
    whole["model"]["merges"] = []
    letters = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(whole)), bos_token="<bos>"
    )
    with pytest.raises(ModelNotFoundError, match="as several tokens"):
        check_tokenizer(tiny_gguf, letters)


# Caches and names


@pytest.mark.parametrize("place", ["/dev/null/cache", "/proc/cache"])
def test_a_cache_that_can_not_be_written_names_the_variable(place, tiny_gguf, run, monkeypatch):
    monkeypatch.setenv("ENCYCLO_CACHE", place)
    assert_refused(run(tiny_gguf), place, "ENCYCLO_CACHE")
    assert_refused(run("gemma-3-270m"), place, "ENCYCLO_CACHE")


def test_a_hub_cache_that_can_not_be_written_names_the_variable(run, monkeypatch):
    import huggingface_hub

    def download(*_: object, **__: object) -> str:
        Path("/dev/null/hub").mkdir()
        raise AssertionError

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert_refused(run("someone/tiny"), "HF_HOME")


@pytest.mark.parametrize(
    "damage",
    [
        write("encyclo.json", "{"),
        write("encyclo.json", "{}"),
        write("model.safetensors", b""),
        without("config.json"),
    ],
)
def test_a_damaged_cache_says_what_to_delete(damage, cache, whole, run):
    ready = cache / weights.PACKAGED / weights.folder_name(weights.PACKAGED_SHA256)
    shutil.copytree(whole, ready)
    (ready / "encyclo.json").write_text('{"sha256": "abc"}')
    damage(ready)
    assert_refused(run("gemma-3-270m"), str(ready), "delete this folder")


@pytest.mark.parametrize("name", ["~nobody-of-this-name/x", "a" * 5000])
def test_a_name_that_can_not_be_a_path(name, run):
    assert_refused(run(name), name)
