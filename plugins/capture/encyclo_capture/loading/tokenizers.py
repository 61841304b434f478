"""Loads a model's tokenizer; that of a prepared folder in a third of the time that transformers takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from encyclo_capture.loading.model_files import read_settings

PREPARED_RECORD = "encyclo.json"
"""The file in a folder that encyclo prepared, whose tokenizer transformers itself wrote."""
NOT_OPTIONS = {"tokenizer_class", "backend", "is_local", "local_files_only"}


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer in `folder`.

    transformers parses tokenizer.json several times: once for each check whether a tokenizer of another kind must be
    converted or corrected. In a prepared folder tokenizer.json is whole, so it is parsed once, unless there is a chat
    template, which transformers reads.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    file, template = folder / "tokenizer.json", folder / "chat_template.jinja"
    if not ((folder / PREPARED_RECORD).exists() and file.exists()) or template.exists():
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    settings = read_settings(folder / "tokenizer_config.json")
    options = {name: value for name, value in settings.items() if name not in NOT_OPTIONS}
    return PreTrainedTokenizerFast(tokenizer_file=str(file), **options)
