"""The pages under docs/: the tutorial is followed, examples run, quoted messages exist, the site builds."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pluggy
import pytest

import encyclo as package
from encyclo import hookspecs
from encyclo.plugins.validation import GROUP, hooks_fault
from encyclo.types import Concept, Context, Prompt
from tests.commands import in_own_process
from tests.plugins.test_external import run_pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page(name), flags=re.S)


def test_the_site_builds_strictly(tmp_path: Path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "site" / "tutorial" / "index.html").exists()


# --- hooks.md -------------------------------------------------------------------------------------------------


class MyModel:
    def __init__(self, name, device):
        self.name, self.device = name, device

    def forward(self, texts, layers):
        return [np.full((3, len(layers), 4), float(len(text)), np.float32) for text in texts]


class MyInterpreter:
    def __init__(self, concepts):
        self.concepts = concepts

    def fit(self, values, owners):
        return self

    def read(self, values):
        return np.eye(1, dtype=np.float32)

    @classmethod
    def load(cls, folder):
        return cls(["dog"])


STUBS = {
    "MyModel": MyModel,
    "MyInterpreter": MyInterpreter,
    "MyStore": lambda location, schema: SimpleNamespace(location=location),
    "my_scores": lambda right, owners: list(right),
}


def hook_arguments(tmp_path: Path) -> dict:
    samples = SimpleNamespace(
        rows=lambda *splits: np.array([0]), read=lambda rows: np.ones((1, 2, 4)), concept=np.array([0])
    )
    context = Context(0, "cpu", None, tmp_path, model=MyModel("m", "cpu"))
    return {
        "options": None, "concepts": [Concept("dog", "dog")], "stage": 1, "context": context, "name": "m",
        "prompts": [Prompt("dog", "A dog", (2, 5), "a")], "layers": (0, 1), "pooling": "span",
        "location": tmp_path, "schema": None, "samples": samples, "folder": tmp_path,
        "interpreter": MyInterpreter(["dog"]), "metrics": {"capture": {"prompts": 1234}},
    }  # fmt: skip


@pytest.mark.parametrize("number", range(11))
def test_the_examples_of_the_hooks_run(number: int, tmp_path: Path):
    """Each example is a plugin that encyclo takes, and its hook, called as a run calls it, gives something."""
    namespace = dict(STUBS)
    exec(compile(blocks("hooks.md", "python")[number], "hooks.md", "exec"), namespace)
    plugin = SimpleNamespace(**{k: v for k, v in namespace.items() if hasattr(v, f"{GROUP}_impl")})
    plugin = namespace["Counting"]() if "Counting" in namespace else type("Plugin", (), vars(plugin))
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    assert hooks_fault(manager, plugin) is None
    manager.register(plugin)
    manager.check_pending()
    called = 0
    for caller in manager.get_hookcallers(plugin):
        if any(found.wrapper for found in caller.get_hookimpls()):
            continue
        offered = hook_arguments(tmp_path)
        result = caller(**{name: offered[name] for name in caller.spec.argnames})
        assert list(result) if inspect.isgenerator(result) else result, caller.name
        called += 1
    assert called


def test_every_example_of_the_hooks_is_run():
    assert len(blocks("hooks.md", "python")) == 11


def test_the_wrapper_in_hooks_md_counts():
    namespace: dict = {}
    exec(blocks("hooks.md", "python")[-1], namespace)
    counting = namespace["Counting"]()
    assert list(counting.counted(["a", "b"])) == ["a", "b"]
    assert counting.end_run() == "2 prompts were sampled."


# --- contracts.md, schema.md -------------------------------------------------------------------------------------


def test_the_contracts_that_are_named_exist_and_the_examples_hold(tmp_path: Path):
    import importlib

    from encyclo.scaffold import CONTRACTS, KINDS

    named = re.findall(r"`encyclo\.testing\.(\w+)\.(\w+Contract)`", page("contracts.md"))
    assert set(named) == set(CONTRACTS.values())
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", page("contracts.md"), flags=re.M)
    assert {hook for row in rows for hook in re.findall(r"\w+", row)} == set(KINDS)
    for module, contract in named:
        checks = getattr(importlib.import_module(f"encyclo.testing.{module}"), contract).checks()
        assert len(checks) >= 5 and all(asks.endswith(".") for asks in checks.values())
    for example in blocks("contracts.md", "python"):
        namespace: dict = {}
        exec(example, namespace)
        (contract,) = (v for k, v in namespace.items() if k.startswith("Test"))
        assert set(contract.known_failures) <= set(contract.checks())
        assert contract().find("it_is_installed", tmp_path).kept


def test_the_files_are_read_without_encyclo(tiny_run: Path, tmp_path: Path):
    """The example runs in a process that can't import encyclo, and every name in the table is in the file."""
    import h5py

    (code,) = blocks("schema.md", "python")
    assert "encyclo." not in code.replace("encyclopedia.h5", "") and "import encyclo" not in code
    (tmp_path / "encyclopedia").symlink_to(tiny_run)
    blocked = "import sys; sys.modules['encyclo'] = None\n" + code
    result = subprocess.run([sys.executable, "-c", blocked], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "animal (10, 3, 32) at layers [1, -2, -1]" in result.stdout
    table = {
        name
        for row in re.findall(r"^\|.*\|$", page("schema.md"), flags=re.M)
        for name in re.findall(r"`(\w+)`", row)
    }
    with h5py.File(tiny_run / "encyclopedia.h5") as file:
        found = {*file.attrs, *(name for group in file.values() for name in group)}
    assert found <= table
    assert table - found <= {"n", "L", "H", "C"}


# --- troubleshooting.md ------------------------------------------------------------------------------------------


def messages_of(folder: Path) -> list[str]:
    """Return every text in the source, joined over lines, with … for what is filled in."""
    found = []
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


QUOTED = re.findall(r"^> (.+)$", page("troubleshooting.md"), flags=re.M)
SOURCE = messages_of(ROOT / "core" / "encyclo") + messages_of(ROOT / "plugins")


@pytest.mark.parametrize("message", QUOTED)
def test_a_quoted_message_is_in_the_source(message: str):
    pieces = [re.escape(piece.strip()) for piece in message.split("…") if piece.strip(" .;")]
    pattern = re.compile(r".*?".join(pieces), flags=re.S)
    assert any(pattern.search(text) for text in SOURCE), message


def test_a_made_up_message_is_not():
    assert len(QUOTED) >= 15
    with pytest.raises(AssertionError):
        test_a_quoted_message_is_in_the_source("The plugin … ate the model; feed it.")


# --- tutorial.md ---------------------------------------------------------------------------------------------------


def test_the_tutorial_can_be_followed(tmp_path: Path, tiny_flags: list[str], monkeypatch: pytest.MonkeyPatch):
    """Every command after the installation, in order; pip installs beside the environment, the model is tiny."""
    install, *rest = blocks("tutorial.md", "console")
    (code,) = blocks("tutorial.md", "python")
    assert all(line.startswith("$ ") for line in install.splitlines())
    site = tmp_path / "site"
    env = {"PYTHONPATH": str(site)}
    monkeypatch.chdir(tmp_path)
    said = []
    for place, block in enumerate(rest):
        if place == 2:
            (tmp_path / "encyclo-harbour" / "encyclo_harbour.py").write_text(code)
            pip_install("encyclo-harbour", site)  # an editable install needs no second time; this one does
        for line in block.splitlines():
            program, *arguments = shlex.split(line.removeprefix("$ "))
            if program == "pip":
                assert arguments == ["install", "-e", "encyclo-harbour"]
                pip_install("encyclo-harbour", site)
            elif program == "pytest":
                result = run_pytest(tmp_path / arguments[0], env)
                assert result.returncode == 0, result.stdout[-2000:]
            else:
                assert program == "encyclo"
                extra = tiny_flags if arguments[0] == "run" else []
                result = in_own_process(*arguments, *extra, env=env)
                assert result.returncode == 0, (line, result.stderr)
                said.append(result.stdout)
    assert "harbour" in said[3] and "Where the time went" in said[-1]
    assert (tmp_path / "second" / "metrics.json").exists() and (tmp_path / "first" / "report.html").exists()


def pip_install(folder: str, site: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--upgrade"]
    subprocess.run([*command, "--target", str(site), f"./{folder}"], check=True, capture_output=True)


# --- CONTRIBUTING.md, mkdocs.yml ------------------------------------------------------------------------------------


def test_contributing_names_what_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path in re.findall(r"^\| `([\w/.]+)` \|", text, flags=re.M) + re.findall(r"\]\(([\w/.]+)\)", text):
        assert (ROOT / path).exists(), path
    assert "bash .ci/run" in text and "mkdocs build" in (ROOT / ".ci" / "run").read_text()
    assert package.__version__


def test_every_page_of_the_navigation_exists():
    import yaml

    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]

    def pages(items):
        for item in items:
            for value in item.values():
                yield from pages(value) if isinstance(value, list) else [value]

    listed = list(pages(nav))
    assert len(listed) == len(set(listed))
    assert all((DOCS / name).exists() for name in listed)
