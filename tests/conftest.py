"""Shared fixtures: tiny models of real architectures, made for the tests; the real model for tests that need it."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

from tests import tiny_models

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched from a model hub at test time
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["ENCYCLO_SELF_TEST"] = (
    "always"  # a test that changes the capture must not get an earlier test's figures
)
# Tiny models are faster on one thread, and tests that share the machine don't wait for other work's threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell's background job ignores Ctrl-C, and so would the commands that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A slow example is not a failure: the first one may import scipy, or the machine may be busy.
settings.register_profile("encyclo", deadline=None)
settings.load_profile("encyclo")

# Third parties' packages hold their own tests, which run against the installed package (test_external.py).
collect_ignore = ["external_plugin"]


@pytest.fixture(scope="session")
def tiny_gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random 4-layer Gemma 3 of hidden size 32."""
    return tiny_models.write_model(tmp_path_factory.mktemp("tiny") / "gemma")


@pytest.fixture(scope="session")
def tiny_family(tmp_path_factory: pytest.TempPathFactory):
    """family -> (encyclo's handle of a tiny model, the plain reference), loaded in float32 and kept."""
    from encyclo_capture.model import TransformersModel
    from tests.plain_forward import PlainModel

    @cache
    def load(family: str):
        folder = tiny_models.write_model(tmp_path_factory.mktemp("families") / family, family)
        return TransformersModel(str(folder), "cpu", "float32"), PlainModel(folder)

    return load


@pytest.fixture(scope="session")
def tiny_flags(tiny_gemma: Path) -> list[str]:
    """The flags of `encyclo run` that make it run on the tiny model."""
    return ["--model", str(tiny_gemma), "--layers", "1,-2,-1", "--device", "cpu"]


@pytest.fixture(scope="session")
def roomy_flags(tiny_gemma: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The same for a tiny model whose context is long enough for the prompt of the sampler `diverse`."""
    folder = tmp_path_factory.mktemp("roomy") / "gemma"
    shutil.copytree(tiny_gemma, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 512}))
    return ["--model", str(folder), "--layers", "1,-2,-1", "--device", "cpu"]


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tiny_flags: list[str]) -> Path:
    """A finished run of 40 concepts on the tiny model; read it, don't change it."""
    from encyclo.cli import run_command

    out = tmp_path_factory.mktemp("runs") / "tiny"
    code = run_command(["run", "--sampler", "templates", "--limit", "40", "--out", str(out), *tiny_flags])
    assert code == 0
    return out


@dataclass(frozen=True)
class Result:
    """A command's output and exit code."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def encyclo(capsys: pytest.CaptureFixture[str]):
    """Run the command line in this process (`tests.commands` has the same in a process of its own)."""
    from encyclo.cli import run_command

    def call(*arguments: str | Path) -> Result:
        capsys.readouterr()
        code = run_command([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Result(code, printed.out, printed.err)

    return call
