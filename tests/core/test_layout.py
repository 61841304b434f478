"""The layout holds: no circle of imports between modules, and no import that climbs.

Every import counts, also those inside functions and those for types alone: a reader follows all of them.
docs/architecture.md has the same order, and so has the import-linter contract in pyproject.toml.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "core" / "encyclo"
PLUGINS = sorted(path for path in (ROOT / "plugins").glob("*/encyclo_*") if path.is_dir())
LAYERS: tuple[tuple[str, ...], ...] = (
    ("cli",),
    ("evaluation",),
    ("pipeline",),
    ("report", "export"),
    ("query",),
    ("maintenance",),
    ("corpus",),
    ("runs",),
    ("testing",),
    ("scaffold",),
    ("plugins",),
    ("statistics",),
    ("storage",),
)
"""Packages of the core from the top down; the other modules are the ground, below all packages."""
FACE = {"encyclo", "encyclo.__main__"}
"""What users import; it loads its names on first use, from anywhere."""


def modules(package: Path) -> dict[str, Path]:
    """Return a package's modules by dotted name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Yield the modules of the same package that a module imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            targets = [f"{node.module}.{alias.name}" for alias in node.names]
        for target in targets:
            while target and target not in known:
                target = target.rpartition(".")[0]
            if target and target != name:
                yield target


def graph(package: Path) -> dict[str, set[str]]:
    known = modules(package)
    return {name: set(imports(name, path, known)) for name, path in known.items()}


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that reach each other (Tarjan's strongly connected components)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        number[node] = low[node] = len(number)
        stack.append(node)
        for other in sorted(edges[node]):
            if other not in number:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], number[other])
        if low[node] == number[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(edges):
        if node not in number:
            visit(node)
    return found


@pytest.mark.parametrize("package", [CORE, *PLUGINS], ids=lambda path: path.name)
def test_no_modules_import_each_other_in_a_circle(package: Path):
    edges = graph(package)
    if package == CORE:
        edges = {name: targets - FACE for name, targets in edges.items() if name not in FACE}
    assert circles(edges) == []


def test_no_import_climbs():
    levels = {name: level for level, names in enumerate(LAYERS) for name in names}
    ground = len(LAYERS)

    def level(module: str) -> int:
        parts = module.split(".")
        return levels.get(parts[1], ground) if len(parts) > 1 else ground

    climbing = [
        f"{name} imports {target}"
        for name, targets in graph(CORE).items()
        for target in sorted(targets)
        if name not in FACE and target not in FACE and level(target) < level(name)
    ]
    sideways = [
        f"{name} imports {target}"
        for name, targets in graph(CORE).items()
        for target in sorted(targets)
        if level(target) == level(name) < ground and target.split(".")[1] != name.split(".")[1]
    ]
    assert climbing == [] and sideways == []


def test_every_package_has_its_level():
    packages = {path.name for path in CORE.iterdir() if (path / "__init__.py").exists()}
    assert packages == {name for names in LAYERS for name in names}


def test_the_import_contract_has_the_same_order():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = (c for c in config["contracts"] if c["type"] == "layers")
    named = [tuple(name.strip() for name in layer.split("|")) for layer in contract["layers"]]
    assert contract["containers"] == ["encyclo"] and named[: len(LAYERS)] == list(LAYERS)
    ground = {path.stem for path in CORE.glob("*.py")} - {"__init__", "__main__"}
    below = {name.strip() for layer in contract["layers"][len(LAYERS) :] for name in layer.split(":")}
    assert below == ground


def test_no_two_classes_of_a_package_share_a_name():
    for package in (CORE, *PLUGINS):
        seen: dict[str, str] = {}
        for name, path in modules(package).items():
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if (
                    isinstance(node, ast.ClassDef)
                    and not node.name.startswith("_")
                    and node.name != "Options"
                ):
                    assert node.name not in seen, f"{node.name} is in {seen[node.name]} and in {name}"
                    seen[node.name] = name
