"""The pages under docs/: the tutorial is followed, examples run, quoted messages exist, the site builds."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import json
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
from encyclo.plugins.traits import Traits, read_traits
from encyclo.plugins.validation import GROUP, hooks_fault
from encyclo.scaffold import CONTRACTS, KINDS, write_package
from encyclo.testing.fixtures.folder_workplace import FolderWorkplace
from encyclo.testing.fixtures.planted import PlantedReader, PlantedSamples
from encyclo.token_parts import TOKEN_PART
from encyclo.types import Context, Prompt
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


def examples() -> dict[str, str]:
    """Return the examples of hooks.md by the hook of their heading."""
    found = re.findall(r"^## (\w+)\(.*?```python\n(.*?)```", page("hooks.md"), flags=re.S | re.M)
    return {**dict(found), "Hook wrappers": blocks("hooks.md", "python")[-1]}


EXAMPLES = examples()
WRITTEN = tuple(hook for hook in KINDS if hook not in ("load_concepts", "sample_prompts"))
"""Hooks whose examples are what `encyclo new-plugin` writes."""


def functions(code: str) -> dict[str, str]:
    """Return a module's functions as they are written, decorators left out."""
    nodes = [node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)]
    return {node.name: ast.get_source_segment(code, node) for node in nodes}


def scaffold(hook: str, folder: Path) -> str:
    """Return the module that `encyclo new-plugin my --hook HOOK` writes."""
    return (write_package("my", hook, folder) / "encyclo_my.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("hook", WRITTEN)
def test_an_example_is_what_new_plugin_writes_and_so_keeps_the_contract(hook: str, tmp_path: Path):
    """test_new_plugin.py holds the whole module to the contract."""
    shown, written = functions(EXAMPLES[hook]), functions(scaffold(hook, tmp_path))
    assert hook in shown
    assert shown == {name: written[name] for name in shown}


@pytest.fixture(scope="module")
def examples_installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Install a package each whose module is the page's example; return their folder, and how they are found."""
    parent, site = tmp_path_factory.mktemp("examples"), tmp_path_factory.mktemp("site")
    for hook in KINDS.keys() - set(WRITTEN):
        folder = write_package(f"shown-{KINDS[hook]}", hook, parent)
        (folder / f"{folder.name.replace('-', '_')}.py").write_text(EXAMPLES[hook], encoding="utf-8")
        pip_install(folder, site)
    return parent, {
        "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    }


@pytest.mark.parametrize("kind", ["concepts", "sampler"])
def test_an_example_that_stands_alone_keeps_the_contract(kind: str, examples_installed):
    parent, env = examples_installed
    result = run_pytest(parent / f"encyclo-shown-{kind}", env)
    assert result.returncode == 0, result.stdout[-3000:]
    assert " passed" in result.stdout and "xfailed" not in result.stdout


class StandInModel:
    def __init__(self, name="m", device="cpu", dtype="float32"):
        self.name, self.device, self.dtype = name, device, dtype

    def tokens(self, text):
        return [(0, 0), (0, 1), (2, len(text))]

    def forward(self, texts, layers):
        return [np.full((3, len(layers), 4), float(len(text)), np.float32) for text in texts]


def hook_arguments(tmp_path: Path) -> dict:
    planted, reader = PlantedSamples(), PlantedReader(np.full(5, 0.9))
    context = Context(0, "cpu", SimpleNamespace(dtype="float32"), tmp_path, model=StandInModel())
    return {
        "options": None, "concepts": planted.ids(), "stage": 1, "context": context, "name": "m",
        "prompts": [Prompt("dog", "A dog", (2, 5), "a")], "layers": (0, 1), "pooling": "span",
        "location": tmp_path, "schema": None, "samples": planted.make(), "folder": tmp_path,
        "interpreter": reader, "metrics": {"capture": {"prompts": 1234}},
        "workplace": FolderWorkplace(tmp_path),
    }  # fmt: skip


@pytest.mark.parametrize("hook", EXAMPLES)
def test_the_examples_of_the_hooks_run(hook: str, tmp_path: Path):
    """Each example is a plugin that encyclo takes, and its hook, called as a run calls it, gives something."""
    namespace: dict = {}
    if hook in WRITTEN:
        exec(compile(scaffold(hook, tmp_path), "scaffold", "exec"), namespace)
        namespace = {name: value for name, value in namespace.items() if name not in KINDS}
        namespace["MyModel"] = StandInModel
    exec(compile(EXAMPLES[hook], "hooks.md", "exec"), namespace)
    plugin = SimpleNamespace(**{k: v for k, v in namespace.items() if hasattr(v, f"{GROUP}_impl")})
    plugin = namespace["Counting"]() if "Counting" in namespace else type("Plugin", (), vars(plugin))
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    assert hooks_fault(manager, plugin) is None
    manager.register(plugin)
    manager.check_pending()
    offered, called = hook_arguments(tmp_path), 0
    if hook == "load_interpreter":
        namespace["MyInterpreter"](["dog"], *np.ones((3, 1, 8), np.float32)).save(tmp_path)
    if hook == "score_confidence":
        offered["samples"] = offered["interpreter"].samples(each=4)
    for caller in manager.get_hookcallers(plugin):
        if any(found.wrapper for found in caller.get_hookimpls()):
            continue
        result = caller(**{name: offered[name] for name in caller.spec.argnames})
        assert list(result) if inspect.isgenerator(result) else result, caller.name
        called += 1
    assert called


def test_every_example_of_the_hooks_is_run():
    assert list(EXAMPLES.values()) == blocks("hooks.md", "python")


def test_what_a_plugin_may_say_of_itself_is_listed():
    section = page("hooks.md").partition("## Attributes that a plugin may declare")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \|", section, flags=re.M)
    assert {name.lower() for name in listed} == {field.name for field in dataclasses.fields(Traits)}
    assert all(f'"{name}"' in inspect.getsource(read_traits) for name in listed)


def test_what_a_plugin_may_rely_on_is_there():
    section = page("hooks.md").partition("## What a plugin may rely on")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`encyclo.*?) \| (.*) \|$", section, flags=re.M)
    assert len(rows) >= 10
    for modules, what in rows:
        for module in re.findall(r"`(encyclo[\w.]*)`", modules):
            loaded = importlib.import_module(module)
            for name in re.findall(r"`(\w+)`", what):
                is_module = (
                    importlib.util.find_spec(f"{module}.{name}") if hasattr(loaded, "__path__") else None
                )
                assert hasattr(loaded, name) or is_module, f"{module}.{name}"


def test_the_wrapper_in_hooks_md_counts():
    namespace: dict = {}
    exec(blocks("hooks.md", "python")[-1], namespace)
    counting = namespace["Counting"]()
    assert list(counting.counted(["a", "b"])) == ["a", "b"]
    assert counting.end_run() == "2 prompts were sampled."


# --- contracts.md, schema.md -------------------------------------------------------------------------------------


def test_the_contracts_that_are_named_exist_and_the_examples_hold(tmp_path: Path):
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


@pytest.mark.parametrize("store", ["hdf5", "zarr"])
def test_the_files_are_read_without_encyclo(store: str, encyclo, tiny_run: Path, tmp_path: Path):
    """The examples run in a process that can't import encyclo."""
    folder = tmp_path / "encyclopedia"
    if store == "hdf5":
        folder.symlink_to(tiny_run)
    else:
        assert encyclo("convert", tiny_run, "--store", store, "--out", folder).returncode == 0
    code = dict(zip(("hdf5", "zarr"), blocks("schema.md", "python"), strict=True))[store]
    blocked = "import sys; sys.modules['encyclo'] = None\n" + code
    result = subprocess.run([sys.executable, "-c", blocked], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "animal (10, 3, 32) at layers [1, -2, -1]" in result.stdout


def test_schema_md_names_everything_in_the_file(tiny_run: Path):
    import h5py

    table = {
        name
        for row in re.findall(r"^\|.*\|$", page("schema.md"), flags=re.M)
        for name in re.findall(r"`(\w+)`", row)
    }
    with h5py.File(tiny_run / "encyclopedia.h5") as file:
        found = {*file.attrs, *(name for group in file.values() for name in group)}
    found |= {"units", *(name for arrays in TOKEN_PART.values() for name in arrays)}
    details = json.loads((tiny_run / "details.json").read_text())
    found |= {*details, *details["map"]}
    found |= {key for group in ("entries", "confusions") for one in details[group].values() for key in one}
    assert found <= table
    assert table - found <= {"n", "L", "H", "C", "layers"}


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
    """Every command after the installation, in order; pip installs outside the environment, the model is tiny."""
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


def pip_install(folder: str | Path, site: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--upgrade"]
    subprocess.run(
        [*command, "--target", str(site), str(Path(folder).resolve())], check=True, capture_output=True
    )


# --- architecture.md, CONTRIBUTING.md, mkdocs.yml ------------------------------------------------------------------------------------


def test_contributing_names_what_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path in re.findall(r"^\| `([\w/.]+)` \|", text, flags=re.M) + re.findall(r"\]\(([\w/.]+)\)", text):
        assert (ROOT / path).exists(), path
    assert "bash .ci/run" in text and "mkdocs build" in (ROOT / ".ci" / "run").read_text()
    assert package.__version__


def named_paths(text: str) -> set[str]:
    """Return the files and folders that a page names."""
    return {
        name
        for name in re.findall(r"`([\w./-]+)`", text)
        if re.search(r"/|\.(py|md|toml|j2)$", name) and not name.startswith(("plugins/NAME", "/"))
    }


def test_architecture_md_names_every_module_of_the_core():
    (picture,) = re.findall(r"```\n(core/encyclo/.*?)```", page("architecture.md"), flags=re.S)
    lines: dict[str, str] = {}
    place = ""
    for line in picture.splitlines()[1:]:
        if line and not line.startswith(" "):  # the plugins' half
            break
        if heading := re.match(r"  (  )?([a-z]+)(/?)  ", line):
            parent = f"{place.partition('/')[0]}/" if heading[1] else ""
            place = "" if heading[2] == "ground" else parent + heading[2]
        lines[place] = lines.get(place, "") + line
    core = ROOT / "core" / "encyclo"
    for file in core.rglob("*.py"):
        if not file.stem.startswith("__"):
            folder = file.parent.relative_to(core).as_posix().removeprefix(".")
            assert re.search(rf"\b{file.stem}\b", lines[folder]), file


def test_the_paths_in_architecture_md_exist():
    capture = ROOT / "plugins" / "capture" / "encyclo_capture"
    roots = (ROOT, ROOT / "core" / "encyclo", ROOT / "tests" / "core", DOCS, capture)
    paths = named_paths(page("architecture.md"))
    assert len(paths) > 60
    assert [name for name in paths if not any((root / name).exists() for root in roots)] == []


def test_the_functions_in_architecture_md_exist():
    """`file.py` `name`, `name` or `name`: each is a name in that file."""
    places = (ROOT / "core" / "encyclo", ROOT, ROOT / "plugins" / "capture" / "encyclo_capture")
    pattern = r"`([\w/]+\.py)` (`[A-Z_a-z]\w*[^`]*`(?:(?:,| and| or) `[A-Z_a-z.]+`(?! `))*)"
    named = re.findall(pattern, page("architecture.md"))
    assert len(named) > 35
    for file, names in named:
        text = next(place / file for place in places if (place / file).exists()).read_text(encoding="utf-8")
        for name in re.findall(r"`([\w.]+)`", names):
            if not name.endswith(".py"):
                assert re.search(rf"\b{name.rpartition('.')[2]}\b", text), (file, name)


GROUPS = ["Tutorial", "How-to", "Reference", "Background"]


def navigation() -> dict[str, dict[str, str]]:
    """Return the pages of mkdocs.yml by group: file -> title."""
    import yaml

    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    return {
        group: {file: title for item in pages for title, file in item.items()}
        for entry in nav
        for group, pages in entry.items()
    }


def test_every_page_is_in_one_group_under_its_own_title():
    groups = navigation()
    assert list(groups) == GROUPS
    files = [file for pages in groups.values() for file in pages]
    assert sorted(files) == sorted(path.name for path in DOCS.glob("*.md"))
    titles = {file: title for pages in groups.values() for file, title in pages.items() if file != "index.md"}
    assert len(set(titles.values())) == len(titles)
    for file, title in titles.items():
        assert page(file).startswith(f"# {title}\n"), file


def test_index_md_lists_every_page_in_the_same_groups():
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", page("index.md"), flags=re.S | re.M))
    assert list(sections) == GROUPS
    for group, pages in navigation().items():
        listed = {
            file: title for title, file in re.findall(r"^- \[(.+?)\]\((.+?)\): ", sections[group], flags=re.M)
        }
        assert listed == {file: title for file, title in pages.items() if file != "index.md"}
