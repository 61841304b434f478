"""Concepts, prompts and a model that cost nothing, so that a test of crashes spends its time on crashes.

`install(folder)` writes the metadata of an installed package whose entry point `fast` is this module.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from encyclo import hookimpl
from encyclo.storage import run_files
from encyclo.types import Concept, Prompt, Samples

CONCEPTS = 12
FAMILIES = 8
CONFIG = Path(__file__).with_suffix(".toml")
FLAGS = (
    "run", "--config", str(CONFIG), "--concepts", "fast", "--sampler", "fast", "--capture", "fast",
    "--interpreter", "centroid", "--model", "fast", "--layers", "0,1", "--per-concept", "2000", "--json", "--out",
)  # fmt: skip
"""2,000 prompts per concept are wanted, so that every concept is a unit; `fast` gives FAMILIES."""


def install(folder: Path) -> None:
    info = folder / "encyclo_fast-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: encyclo-fast\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[encyclo]\nfast = tests.fast_plugin\n")


def write_plainly(path: Path, *_: object) -> None:
    """In place of `encyclo.report.run.write_report`: drawing a report takes most of the time of so small a run."""
    run_files.write_text(path.parent, path.name, "a report")


class FastModel:
    name, source, depth, hidden_size, dtype, device = "fast", "numbers from a hash", 1, 16, "float32", "cpu"
    weights_sha256 = "0" * 64

    def forward(self, texts, layers):
        return [np.zeros((len(self.tokens(text)), len(layers), 16), np.float32) for text in texts]

    def tokens(self, text):
        return [(0, len(text))]


@hookimpl
def load_concepts():
    return [Concept(f"c{i}", f"name {i}", f"definition {i}", "category") for i in range(CONCEPTS)]


@hookimpl
def sample_prompts(concepts):
    for concept in concepts:
        for family in range(FAMILIES):
            text = f"{family}: {concept.name}"
            yield Prompt(concept.id, text, (3, len(text)), f"family {family}")


@hookimpl
def load_model(name, context):
    return FastModel()


@hookimpl
def capture_layers(prompts, layers, context):
    values = [np.frombuffer(hashlib.sha512(p.text[3:].encode()).digest(), np.uint8) for p in prompts]
    noise = [np.frombuffer(hashlib.sha512(p.text.encode()).digest(), np.uint8) for p in prompts]
    activations = (np.array(values, np.float32) + np.array(noise, np.float32))[:, :32].reshape(-1, 2, 16)
    yield Samples(np.arange(len(prompts)), activations, tokens=len(prompts), tokens_computed=len(prompts))
