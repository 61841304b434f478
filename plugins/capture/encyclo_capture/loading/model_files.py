"""Checks a model's folder before a library reads it: each file is regular and of a plausible size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path
from typing import Any

from encyclo import regular_files
from encyclo.errors import ModelNotFoundError
from encyclo.storage import safe_read
from encyclo_capture.loading.refusals import refusing

MODEL_CARD, LICENCE_FILES = "README.md", ("LICENSE*", "LICENCE*")
TOKENIZER_FILES = ("tokenizer.json", "*.model", "vocab.*", "tekken.json", "*.tiktoken")
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
ADVICE = "save or download the model again"
# The largest size in bytes of the files that are read whole, by the first pattern that fits.
LIMITS = {
    **dict.fromkeys((*TOKENIZER_FILES, "merges.txt"), 2**28),
    **dict.fromkeys(("*.json", "*.txt", "*.jinja", MODEL_CARD, *LICENCE_FILES), 2**26),
}


def check_folder(folder: Path) -> None:
    """Check that a folder is a whole model and that reading it can neither hang nor fill the machine.

    Raises ModelNotFoundError for an adapter, missing files, pickled weights and files that are not regular, too
    large or not safetensors. Reads no weights.
    """
    for name in ADAPTER_FILES:
        if (folder / name).exists():
            raise ModelNotFoundError(
                f"The folder {folder} holds an adapter ({name}), which encyclo does not apply; merge it into its "
                "base model with peft's merge_and_unload, save model and tokenizer with save_pretrained, and use "
                "that folder as --model."
            )
    if not (folder / "config.json").is_file():
        raise ModelNotFoundError(
            f"The folder {folder} is not a model: it has no config.json; name the folder that has it."
        )
    if not list(folder.glob("*.safetensors")):
        raise ModelNotFoundError(
            f"The folder {folder} has no .safetensors weights; convert pickled weights, which encyclo does not load."
        )
    if not any(file for pattern in TOKENIZER_FILES for file in folder.glob(pattern)):
        # Without a file, transformers would create an empty tokenizer.
        raise ModelNotFoundError(
            f"The folder {folder} has no tokenizer.json or other tokenizer file; {ADVICE}."
        )
    for file in _files(folder):
        check_file(file)


def check_file(path: Path) -> None:
    """Check a file that a library will read. Raises ModelNotFoundError if it is not regular, too large or sparse.

    A link to a regular file is fine: the hub's cache consists of such links.
    """
    limit = next((limit for pattern, limit in LIMITS.items() if fnmatch(path.name, pattern)), None)
    with regular_files.open_file(path, at_most=limit, advice=ADVICE, error=ModelNotFoundError) as file:
        if limit is None and _is_sparse(os.fstat(file.fileno())):
            raise ModelNotFoundError(f"{path} can't be read: most of its bytes were never written; {ADVICE}.")
        if path.suffix == ".gguf" and file.read(4) != b"GGUF":
            raise ModelNotFoundError(f"{path} can't be read: it is not a GGUF file; {ADVICE}.")
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with refusing(f"{path} can't be read", advice=f"; {ADVICE}"), safe_open(path, "pt"):
            pass


def read_settings(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises ModelNotFoundError if it holds anything else."""
    limit = LIMITS["*.json"]
    settings = safe_read.read_json(path, at_most=limit, advice=ADVICE, error=ModelNotFoundError)
    if not isinstance(settings, dict):
        raise ModelNotFoundError(f"{path} can't be read: it is not a JSON object; {ADVICE}.")
    return settings


def _files(folder: Path) -> Iterator[Path]:
    """Yield the entries of a model's folder that encyclo or transformers reads."""
    templates = (folder / "additional_chat_templates").glob("*.jinja")
    for path in sorted(chain(folder.iterdir(), templates)):
        is_weights = path.suffix == ".safetensors"
        if is_weights or (any(fnmatch(path.name, pattern) for pattern in LIMITS) and not path.is_dir()):
            yield path


def _is_sparse(status: os.stat_result) -> bool:
    """Return whether a large file has less than a hundredth of its bytes on the disk."""
    written = getattr(status, "st_blocks", 0) * 512
    # Some network file systems always say 0.
    return status.st_size > 2**20 and 0 < written < status.st_size // 100
