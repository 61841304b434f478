"""What a model is: its weights, its configuration and its tokenizer, as one hash."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from encyclo.storage import files
from encyclo_capture.loading.model_files import TOKENIZER_FILES

RECORDS = (
    "config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
UNREAD = frozenset(
    {"_name_or_path", "name_or_path", "transformers_version", "dtype", "torch_dtype", "chat_template"}
)
"""Keys of RECORDS that change no hidden state; encyclo chooses the compute type itself."""


def model_identity(folder: Path, weights_sha256: str) -> str:
    """Return one sha256 over the weights' hash and the configuration and tokenizer in `folder`.

    Layout and order of the keys in JSON files of settings don't count.
    """
    digest = hashlib.sha256(f"weights {weights_sha256}\n".encode())
    for name in RECORDS:
        if (path := folder / name).is_file():
            digest.update(f"{name} {hashlib.sha256(_canonical(path)).hexdigest()}\n".encode())
    patterns = (*TOKENIZER_FILES, "merges.txt")
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}):
        digest.update(f"{path.name} {files.sha256_of(path)}\n".encode())
    return digest.hexdigest()


def _canonical(path: Path) -> bytes:
    """Return the settings in a JSON file in one order and layout; the file's bytes if it is no JSON object."""
    content = path.read_bytes()
    try:
        settings = json.loads(content)
        kept = {key: value for key, value in settings.items() if key not in UNREAD}
        return json.dumps(kept, sort_keys=True).encode()
    except (ValueError, AttributeError, RecursionError):
        return content
