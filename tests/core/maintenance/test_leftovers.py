"""Temporary files that a killed process left: `verify` lists them, and the next run removes them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from encyclo.maintenance.verify import verify

LEFTOVERS = (
    ".tmp-0123.json", "rounds/0/.tmp-0123.json", "plugins/transformer/.tmp-0123.safetensors",
    "commits/.tmp-0123.json", "parts/.tmp-0123.h5",
)  # fmt: skip
FOLDER = "rounds/0/.tmp-4567"


@pytest.mark.parametrize("finished", [True, False])
def test_leftovers_are_listed_and_removed_by_the_same_command(
    tiny_run: Path, tiny_flags: list[str], tmp_path: Path, encyclo, finished: bool
):
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    if not finished:
        (run / "metrics.json").unlink()
    for name in (*LEFTOVERS, f"{FOLDER}/.tmp-1/model.safetensors"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("half")
    found = [problem for problem in verify(run).findings if "killed process" in problem.what]
    assert sorted(problem.where for problem in found) == sorted((*LEFTOVERS, FOLDER))
    assert "removes it" in encyclo("verify", run).stdout
    flags = ["run", "--sampler", "templates", "--limit", "40", *tiny_flags, "--out", run]
    assert encyclo(*flags).returncode == 0
    assert list(run.rglob(".tmp-*")) == []
    assert verify(run).findings == []
