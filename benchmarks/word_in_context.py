"""Word-in-Context (Pilehvar and Camacho-Collados, 2019): does a word mean the same in two sentences?

    python benchmarks/word_in_context.py wic-train.jsonl wic-dev.jsonl           the model reads each sentence once
    python benchmarks/word_in_context.py wic-train.jsonl wic-dev.jsonl --echo    and the second of two copies

The files are JSON Lines with `word`, `same`, and `a` and `b`: [sentence, start, end]. A pair's features are the
cosines of the word's two activations at every layer, as they are and with each dimension standardised over the train
file. A logistic regression is fitted on the train file; its penalty is chosen there, by folds that share no word.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from encyclo.echo import doubled
from encyclo.types import Prompt
from encyclo_capture.capture import capture
from encyclo_capture.model import TransformersModel

BATCH_TOKENS = 2048
PENALTIES = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train", type=Path)
    parser.add_argument("dev", type=Path)
    parser.add_argument("--model", default="gemma-3-270m")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--echo", action="store_true", help="give each sentence twice, take the second copy")
    arguments = parser.parse_args()
    model = TransformersModel(arguments.model, arguments.device)
    train, dev = ([json.loads(line) for line in file.open()] for file in (arguments.train, arguments.dev))
    fitted = mentions(model, train, arguments.echo)
    scale = fitted.mean(axis=(0, 1)), fitted.std(axis=(0, 1)) + 1e-3
    features = [similarities(values, *scale) for values in (fitted, mentions(model, dev, arguments.echo))]
    same = [np.array([pair["same"] for pair in pairs]) for pairs in (train, dev)]
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000)),
        {"logisticregression__C": PENALTIES},
        cv=GroupKFold(5),
    ).fit(features[0], same[0], groups=[pair["word"] for pair in train])
    right = search.predict(features[1]) == same[1]
    error = np.sqrt(right.mean() * (1 - right.mean()) / len(right))
    print(f"C {search.best_params_['logisticregression__C']}, folds of train {search.best_score_:.1%}")
    print(f"dev {right.mean():.1%} (standard error {error:.1%}, n={len(right)})")


def mentions(model: TransformersModel, pairs: list[dict[str, Any]], echo: bool) -> NDArray[np.float32]:
    """Return the activations of each pair's words at every layer: float32 [n, 2, L, H]."""
    prompts = []
    for pair in pairs:
        for text, start, end in (pair["a"], pair["b"]):
            given = doubled(text) if echo else text
            shift = len(given) - len(text)
            prompts.append(Prompt(pair["word"], given, (start + shift, end + shift), "wic"))
    layers = range(model.depth + 1)
    found = np.empty((len(prompts), len(layers), model.hidden_size), np.float32)
    for batch in capture(model, prompts, layers, "span", BATCH_TOKENS):
        found[batch.positions] = batch.activations
    return found.reshape(len(pairs), 2, len(layers), model.hidden_size)


def similarities(
    values: NDArray[np.float32], mean: NDArray[np.float32], std: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the two cosines of each layer: float32 [n, 2 * L]."""
    standard = (values - mean) / std
    return np.concatenate([cosines(values), cosines(standard)], axis=1)


def cosines(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosine between a pair's two activations at each layer: [n, 2, L, H] -> [n, L]."""
    unit = values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-9)
    result: NDArray[np.float32] = (unit[:, 0] * unit[:, 1]).sum(axis=-1)
    return result


if __name__ == "__main__":
    main()
