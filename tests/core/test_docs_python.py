"""The examples of docs/python.md and docs/export.md run, one after another, on a tiny run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from encyclo import exporting

DOCS = Path(__file__).parents[2] / "docs"


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.S)


def run_all(page: str) -> None:
    namespace: dict = {}
    for example in examples(page):
        exec(compile(example, page, "exec"), namespace)


def test_the_examples_of_python_md(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    (tmp_path / "encyclopedia").symlink_to(tiny_run)
    monkeypatch.chdir(tmp_path)
    run_all("python.md")
    said = capsys.readouterr().out
    assert said.startswith("<Encyclopedia of ") and "40 True" in said
    assert "Neighbour(name='animal', cosine=1.0" in said and "<Reading of " in said and "float32" in said


def test_every_method_that_a_user_has_is_described():
    from encyclo import Encyclopedia

    text = (DOCS / "python.md").read_text(encoding="utf-8")
    for name in (
        "read",
        "search",
        "to_pandas",
        "samples",
        "activations",
        "batches",
        "layer",
        "rows",
        "finished",
    ):
        assert hasattr(Encyclopedia, name) and f"book.{name}" in text, name
    for name in ("by_layer", "nearest", "samples", "signature", "low", "high", "settled"):
        assert f"`{name}`" in text, name


def test_the_examples_of_export_md(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    exporting.export(tiny_run, tmp_path / "shared")
    monkeypatch.chdir(tmp_path)
    run_all("export.md")
    assert "(32,)" in capsys.readouterr().out
