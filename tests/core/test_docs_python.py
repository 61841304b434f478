"""The examples of docs/python.md, docs/export.md and docs/own-texts.md run, one after another, on tiny models."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from encyclo.cli import run_command
from encyclo.export import export as exporting

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
    assert "(256, 3, 32) (256,)" in said and re.search(
        r"^Layer 1: \d+% of \d+ samples; chance 5%$", said, re.M
    )


def test_every_method_that_a_user_has_is_described():
    from encyclo import Encyclopedia

    text = (DOCS / "python.md").read_text(encoding="utf-8")
    for name in (
        "read",
        "reader",
        "coverage",
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


def test_the_commands_and_examples_of_own_texts_md(
    tiny_gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("corpus.jsonl").write_text('{"text": "the dog is old"}\n' * 30)
    text = (DOCS / "own-texts.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    encyclo (.+)$", text, flags=re.M)
    assert len(commands) == 2
    for command in commands:
        # The tiny model has no layer -6.
        flags = command.replace("-6", "-2").split()
        assert run_command([*flags, "--model", str(tiny_gemma), "--device", "cpu"]) == 0
    namespace: dict = {}
    for example in examples("own-texts.md"):
        exec(compile(example.replace("-6", "-2"), "own-texts.md", "exec"), namespace)
    said = capsys.readouterr().out
    assert (
        "Tokens    150 stored, 180 computed, with special and repeated ones" in said
        and "<TextCapture by " in said
        and "corpus.jsonl 1 'the' (1, 32)" in said
    )


def test_own_texts_md_names_every_format_and_method():
    from encyclo.corpus.text_capture import TextCapture
    from encyclo.corpus.text_files import FORMATS

    text = (DOCS / "own-texts.md").read_text(encoding="utf-8")
    assert all(f"`{suffix}`" in text for suffix in FORMATS)
    public = [name for name in vars(TextCapture) if not name.startswith("_")]
    inner = {"close", "columns", "part"}
    assert all(f"capture.{name}" in text for name in public if name not in inner)


def test_convergence_md_names_every_column_and_key(encyclo, tiny_run: Path, tmp_path: Path):
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    found = json.loads(encyclo("converge", run, "--older", "--device", "cpu", "--json").stdout)
    text = (DOCS / "convergence.md").read_text(encoding="utf-8")
    keys = {*found} - {"out"} | {*found["layers"]["-2"]} | {*found["curve"]["-2"]} | {*found["older"]}
    for key in keys:
        assert f"`{key}`" in text, key
    printed = encyclo("converge", run).stdout
    for heading in ("Raw", "In 5%", "Centred", "Adjusted", "Cosine", "Null", "To 5%"):
        assert heading in printed and f"| {heading} |" in text, heading
    for heading in ("95% in 5%, raw", "Centred 10%", "Adjusted 10%", "Adjusted 5%"):
        assert heading in printed and heading in text, heading


def test_export_md_names_every_file_and_tensor(tiny_run: Path, tmp_path: Path):
    from safetensors.numpy import load_file

    metadata = exporting.export(tiny_run, tmp_path / "out", control=("animal",))
    text = (DOCS / "export.md").read_text(encoding="utf-8")
    for name in (*metadata["files"], *load_file(tmp_path / "out" / "vectors.safetensors")):
        known = re.sub(r"control/.*", "control/NUMBER-NAME.gguf", name).removeprefix("interpreter/")
        assert f"`{known}`" in text, name
