"""gemma-3-270m in pieces of at most 50 MB, and the model folder made of them again. Called by on_gpu.sh.

    python benchmarks/gpu_weights.py cut .gpu/weights     where gemma-3-270m is installed
    python benchmarks/gpu_weights.py join .gpu/weights .gpu/model

The pieces hold the blocks and only those rows of the embedding that the steps of on_gpu.py use. `join` fills the other
rows with NaN: the folder serves those steps and nothing else, and encyclo refuses the states of any other token.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

PIECE = 50 * 2**20
EMBEDDING = "embed_tokens.weight"
USED = "used_rows.safetensors"
COPIED = ("config.json", "tokenizer.json", "tokenizer_config.json")
# Below it are the special tokens and the line breaks.
FIRST_WORDS = 300


def cut(target: Path) -> None:
    """Write the pieces."""
    from encyclo_capture.model import TransformersModel

    model = TransformersModel("gemma-3-270m", "cpu")
    target.mkdir(parents=True, exist_ok=True)
    weights = load_file(model.weights.folder / "model.safetensors")
    embedding = weights.pop(EMBEDDING)
    rows = torch.tensor(sorted(used_tokens(model)))
    save_file({"rows": rows, "embedding": embedding[rows].clone()}, target / USED)
    piece: dict[str, torch.Tensor] = {}
    number = 0
    for name in sorted(weights):
        if piece and sum(t.nbytes for t in piece.values()) + weights[name].nbytes > PIECE:
            save_file(piece, target / f"blocks{number}.safetensors")
            piece, number = {}, number + 1
        piece[name] = weights[name]
    save_file(piece, target / f"blocks{number}.safetensors")
    for name in COPIED:
        shutil.copy(model.weights.folder / name, target)


def used_tokens(model: Any) -> set[int]:
    """Return the tokens of the benchmark's prompts, alone and in long texts, of on_gpu.py's run, of model checks."""
    import capture as bench
    from gpu_commands import long_texts

    from encyclo_capture.forward.support import probes

    texts = [
        prompt["text"]
        for workload in ("templates", "definitions")
        for _, prompts in bench.make_prompts(workload, 1000, None)
        for prompt in prompts
    ]
    texts += long_texts(1000)
    read = {token for ids in model.tokenizer(texts)["input_ids"] for token in ids}
    return set(range(FIRST_WORDS)).union(read, tokens_of_run(), *probes(model.config))


def tokens_of_run() -> set[int]:
    """Return the tokens that `encyclo run` of on_gpu.py's step `run` reads: it is run here, on the CPU."""
    from gpu_commands import RUN

    from encyclo.cli import main
    from encyclo_capture import tokenization

    encode, tokens = tokenization.encode, set[int]()

    def recorded(model: Any, texts: list[str], **options: Any) -> Any:
        encoded = encode(model, texts, **options)
        tokens.update(token for ids in encoded["input_ids"] for token in ids)
        return encoded

    tokenization.encode = recorded
    with tempfile.TemporaryDirectory() as folder, suppress(SystemExit):
        sys.argv = ["encyclo", *RUN, "--model", "gemma-3-270m", "--device", "cpu", "--out", f"{folder}/run"]
        main()
    tokenization.encode = encode
    return tokens


def join(pieces: Path, folder: Path) -> None:
    """Write the model folder."""
    import json

    folder.mkdir(parents=True, exist_ok=True)
    weights = {}
    for file in sorted(pieces.glob("blocks*.safetensors")):
        weights |= load_file(file)
    for name in COPIED:
        shutil.copy(pieces / name, folder)
    used = load_file(pieces / USED)
    config = json.loads((folder / "config.json").read_text())
    shape = (config["vocab_size"], used["embedding"].shape[1])
    embedding = torch.full(shape, torch.nan, dtype=used["embedding"].dtype)
    embedding[used["rows"]] = used["embedding"]
    save_file({**weights, EMBEDDING: embedding}, folder / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    {"cut": cut, "join": join}[sys.argv[1]](*map(Path, sys.argv[2:]))
