"""Third parties' packages, written on the spot as pip would leave them: any plugin, and a whole `engine` of hooks.

The engine has the model and interpreter of `encyclo.testing.fixtures.complete_plugin`, so that a run with it costs next to
nothing. Its hooks write down with which context they were called (`seen`).
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ENGINE = '''
import json
import numpy as np
from encyclo import hookimpl
from encyclo.testing.fixtures.complete_plugin import HashModel, NearestMean, state
from encyclo.types import Concept, Prompt, Samples, Scores, Split
from pydantic import BaseModel

SEEN = []  # (hook, folder, device, options) of every call that had a context


class Options(BaseModel):
    sharpness: float = 1.0


def note(hook, context):
    SEEN.append((hook, context.folder, context.device, context.options))


class Model(HashModel):
    name = "engine"

    def __init__(self, device):
        self.device = "chip" if device == "auto" else device


class Interpreter(NearestMean):
    """The nearest mean, with a sharpness; kept in a folder in its folder."""

    def __init__(self, concepts, means, sharpness):
        super().__init__(concepts, means)
        self.sharpness = sharpness

    def read(self, activations):
        return np.float32(self.sharpness) * super().read(activations)

    def save(self, folder):
        (folder / "config.json").write_text(json.dumps({"concepts": self.concepts}))
        (folder / "arrays" / "first").mkdir(parents=True)
        np.save(folder / "arrays" / "first" / "means.npy", self.means)


@hookimpl
def load_concepts():
    return [Concept(f"c{i}", f"word{i}", f"definition {i}", "category") for i in range(30)]


@hookimpl
def sample_prompts(concepts, context):
    note("sample_prompts", context)
    for concept in concepts:
        for number in range(context.prompts_for(concept.id)):
            yield Prompt(concept.id, f"{number} {concept.name}", (len(f"{number} "), len(f"{number} {concept.name}")),
                         f"family {number % 8}")


@hookimpl
def load_model(name, context):
    note("load_model", context)
    return Model(context.device)


@hookimpl
def capture_layers(prompts, layers, context):
    note("capture_layers", context)
    values = np.stack([state(p.text, p.span or (0, len(p.text))) for p in prompts])
    yield Samples(np.arange(len(prompts)), values[:, list(layers)], tokens=len(prompts), tokens_computed=len(prompts))


@hookimpl
def train_interpreter(samples, concepts, context):
    note("train_interpreter", context)
    rows = samples.rows(Split.TRAIN)
    values, owner = samples.read(rows), samples.concept[rows]
    means = np.stack([values[owner == place].mean(axis=0) for place in range(len(concepts))])
    return Interpreter([concept.id for concept in concepts], means, context.options.sharpness)


@hookimpl
def load_interpreter(folder, context):
    note("load_interpreter", context)
    concepts = json.loads((folder / "config.json").read_text())["concepts"]
    means = np.load(folder / "arrays" / "first" / "means.npy")
    return Interpreter(concepts, means, context.options.sharpness)


@hookimpl
def score_confidence(interpreter, samples, context):
    note("score_confidence", context)
    half = np.full(len(interpreter.concepts), 0.5, np.float32)
    return Scores(half, half - np.float32(0.1), half + np.float32(0.1), {})
'''


class Site:
    """A folder on the path that packages are installed into."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def install(
        self,
        name: str,
        code: str,
        package: str | None = None,
        target: str | None = None,
        needs: str = "",
        version: str = "1.0",
    ) -> Path:
        """Write a distribution with one plugin, as pip would leave it; return the folder it is in.

        `needs` are the package's requirements, a line each. A package may be written again in another version.
        """
        package = package or f"{name}-package"
        module = f"{package.replace('-', '_')}_{name}"
        (self.path / f"{module}.py").write_text(textwrap.dedent(code))
        info = self.path / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir(exist_ok=True)
        requires = "".join(f"Requires-Dist: {line}\n" for line in needs.splitlines())
        about = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n{requires}"
        (info / "METADATA").write_text(about)
        points = info / "entry_points.txt"
        lines = points.read_text().splitlines() if points.exists() else ["[encyclo]"]
        points.write_text("\n".join(dict.fromkeys([*lines, f"{name} = {target or module}"])) + "\n")
        return self.path

    def module(self, name: str) -> ModuleType:
        """Return the loaded module of a plugin that was installed without a package name."""
        return sys.modules[f"{name}_package_{name}"]

    def seen(self, name: str = "engine") -> dict[str, list[tuple[Path, str, Any]]]:
        """Return and forget what the engine's hooks saw: (folder, device, options) of every call, by hook."""
        calls = self.module(name).SEEN
        found: dict[str, list[tuple[Path, str, Any]]] = {}
        for hook, *rest in calls:
            found.setdefault(hook, []).append(tuple(rest))
        calls.clear()
        return found


@contextmanager
def open_site(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Make `folder` a site, for one test; its modules are forgotten afterwards."""
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    modules = set(sys.modules)
    yield Site(folder)
    for name in set(sys.modules) - modules:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
