"""An interpreter that takes the dot product with each concept's centred mean."""

import json

import numpy as np

from encyclo import hookimpl
from encyclo.types import Split

BLOCK = 1024


class DotInterpreter:
    """Scores concepts by a dot product."""

    def __init__(self, concepts, centre, means):
        self.concepts, self.centre, self.means = list(concepts), centre, means

    def read(self, activations):
        """Score every concept."""
        flat = (activations - self.centre).reshape(len(activations), -1)
        lengths = np.linalg.norm(self.means, axis=1)
        return (flat @ self.means.T / lengths).astype(np.float32)

    def add_concepts(self, ids, signatures):
        """Add concepts by their signatures."""
        self.concepts += list(ids)
        fresh = (signatures - self.centre).reshape(len(signatures), -1)
        self.means = np.concatenate([self.means, fresh])

    def save(self, folder):
        """Write model.safetensors and config.json."""
        from safetensors.numpy import save_file

        save_file({"centre": self.centre, "means": self.means}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"concepts": self.concepts}))


@hookimpl
def train_interpreter(samples, concepts):
    """Average the training samples of each concept, a block of rows at a time."""
    rows = samples.rows(Split.TRAIN)
    sums = 0
    for start in range(0, len(rows), BLOCK):
        some = rows[start : start + BLOCK]
        values = samples.read(some)
        block = np.zeros((len(concepts), *values.shape[1:]))
        np.add.at(block, samples.concept[some], values)
        sums = sums + block
    count = np.bincount(samples.concept[rows], minlength=len(concepts))
    means = (sums / count[:, None, None]).astype(np.float32)
    centre = means.mean(axis=0)
    return DotInterpreter([c.id for c in concepts], centre, (means - centre).reshape(len(means), -1))


@hookimpl
def load_interpreter(folder):
    """Load what `DotInterpreter.save` wrote."""
    from safetensors.numpy import load_file

    tensors = load_file(folder / "model.safetensors")
    concepts = json.loads((folder / "config.json").read_text())["concepts"]
    return DotInterpreter(concepts, tensors["centre"], tensors["means"])
