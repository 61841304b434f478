"""Checks a GGUF file, and the tokenizer that transformers made of it, before they are used.

Releases of transformers read the same file differently. For gemma-3-270m, those before 5.18 make a tokenizer that reads
single letters, and those before 5.23 leave out <bos>, both without an error; every activation would be wrong.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from encyclo.errors import ModelNotFoundError

# A key's value follows its type: bool (7), uint32 (4) or uint64 (10). A library takes seconds to read all keys.
BLOCKS = re.compile(rb"\.block_count(?:\x04\0{3}(.{4})|\x0a\0{3}(.{8}))", re.DOTALL)
STARTS = re.compile(rb"tokenizer\.ggml\.add_bos_token\x07\0{3}(.)", re.DOTALL)
TYPE = re.compile(rb"general\.file_type\x04\0{3}(.{4})", re.DOTALL)
# A blank, as the vocabulary writes it, and a word.
WORD = re.compile(r"[\u2581\u0120]([a-z]{4,})$")
WORDS = 400
# Share of the words that may be read as several tokens. A right tokenizer of gemma-3-270m splits none.
SPLIT = 0.2


def check_gguf(path: Path) -> None:
    """Check that a GGUF file's tensors can be as many layers as it asks for, before so many are built."""
    with _content(path) as content:
        (tensors,) = struct.unpack_from("<Q", content, 8)
        if found := BLOCKS.search(content):
            layers = int.from_bytes(found[1] or found[2], "little")
            if layers > tensors:
                raise ModelNotFoundError(
                    f"The GGUF file {path} asks for {layers} layers, but has {tensors} tensors; download it again."
                )


def quantisation_of(path: Path) -> str:
    """Return how a GGUF file's weights are quantised, by llama.cpp's name for the file's type."""
    from gguf import LlamaFileType

    with _content(path) as content:
        found = TYPE.search(content)
        number = int.from_bytes(found[1], "little") if found else None
    names = [kind.name.removeprefix("MOSTLY_") for kind in LlamaFileType if kind == number]
    return ", ".join(["gguf", *names, "dequantised when prepared"])


def check_tokenizer(path: Path, tokenizer: Any) -> None:
    """Check that the tokenizer begins a text as the GGUF file says and reads the vocabulary's words as one token.

    Raises ModelNotFoundError.
    """
    fault = _wrong_start(path, tokenizer) or _split_words(tokenizer)
    if fault:
        raise ModelNotFoundError(
            f"transformers {version('transformers')} makes a wrong tokenizer of the GGUF file {path}: {fault}; "
            "run pip install 'transformers>=5.23'."
        )


def _wrong_start(path: Path, tokenizer: Any) -> str | None:
    with _content(path) as content:
        found = STARTS.search(content)
        # The match reads from the open file.
        wanted = None if found is None else found[1] != b"\0"
    if wanted is None or tokenizer.bos_token is None:
        return None  # the file doesn't say
    starts = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    if wanted == starts:
        return None
    return f"a text {'begins' if starts else 'does not begin'} with {tokenizer.bos_token}, but the file says otherwise"


def _split_words(tokenizer: Any) -> str | None:
    """Return what is wrong if too few of the vocabulary's words are read as one token."""
    words = [
        (token, found[1]) for text, token in tokenizer.get_vocab().items() if (found := WORD.match(text))
    ]
    some = sorted(words)[:: max(1, len(words) // WORDS)]
    split = [
        word
        for token, word in some
        if tokenizer(f"a {word}", add_special_tokens=False)["input_ids"][-1] != token
    ]
    if len(split) <= SPLIT * len(some):
        return None
    return f"it reads {split[0]!r}, a token of its vocabulary, as several tokens"


@contextmanager
def _content(path: Path) -> Iterator[mmap.mmap]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content
