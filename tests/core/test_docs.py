"""Docs and README say what the code says."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from encyclo import hookspecs

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def outputs() -> dict[str, str]:
    """Return README's outputs by the command that they are said to come from."""
    return dict(re.findall(r"<!-- output of: (.+?) -->\n```\n(.*?)\n```", README, flags=re.S))


def test_hooks_md_has_a_heading_with_the_signature_of_every_hook():
    specs = [f for _, f in inspect.getmembers(hookspecs, inspect.isfunction) if hasattr(f, "encyclo_spec")]
    expected = {f"{spec.__name__}({', '.join(inspect.signature(spec).parameters)})" for spec in specs}
    headings = re.findall(r"^## (.+)$", (ROOT / "docs" / "hooks.md").read_text(), flags=re.M)
    others = {
        "Attributes that a plugin may declare",
        "What is checked",
        "Hook wrappers",
        "What a plugin may rely on",
    }
    assert set(headings) == expected | others and len(headings) == len(expected | others)


def test_hooks_md_examples_are_python_with_a_hookimpl():
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "hooks.md").read_text(), flags=re.S)
    assert len(examples) == 12
    for example in examples:
        compile(example, "hooks.md", "exec")
        assert "@hookimpl" in example


def test_the_plugin_list_in_the_readme_is_what_the_command_prints(encyclo, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "100")
    printed = [line.rstrip() for line in encyclo("plugins").stdout.strip().splitlines()]
    assert outputs()["encyclo plugins"].splitlines() == printed


@pytest.mark.parametrize(
    "command",
    [
        "run --sampler templates --store hdf5",
        "show encyclopedia deception",
        "plan --sampler templates",
        "run --model ./my-model --limit 50 --sampler templates --out mine",
    ],
)
def test_every_label_in_the_readmes_outputs_is_what_the_command_prints(
    encyclo,
    command: str,
    tiny_run: Path,
    tiny_flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Figures vary with model and machine; the lines that contain them must not."""
    monkeypatch.setenv("COLUMNS", "200")
    common = ["--sampler", "templates", "--limit", "40", *tiny_flags]
    result = {
        "run": lambda: encyclo("run", *common, "--out", tmp_path / "run"),
        "show": lambda: encyclo("show", tiny_run, "animal"),
        "plan": lambda: encyclo("plan", *common, "--out", tmp_path / "out"),
    }[command.split()[0]]()
    shown = re.findall(r"^([A-Z][A-Za-z0-9 -]*?)(?:  |:|$)", outputs()[f"encyclo {command}"], flags=re.M)
    assert len(shown) >= 4
    for label in shown:
        assert re.search(rf"^{re.escape(label)}", result.stdout + result.stderr, flags=re.M), label


def test_the_readmes_own_list_makes_an_encyclopedia(
    encyclo, tmp_path: Path, tiny_flags: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    section = README.partition("## Your own list, your own model")[2]
    (tmp_path / "cooking.csv").write_text(re.search(r"```csv\n(.*?)```", section, re.S)[1])
    run, show, read = re.search(r"```\n(encyclo run --concepts.*?)\n```", section, re.S)[1].splitlines()
    results = [
        encyclo(*shlex.split(line)[1:], *(tiny_flags if line == run else [])) for line in (run, show, read)
    ]
    assert all(result.returncode == 0 and "warning" not in result.stderr for result in results)
    assert results[1].stdout.startswith("braise")
    shown = [line.split()[0] for line in outputs()[read].splitlines()]
    assert shown[0] == results[2].stdout.split()[0] and "simmer" in shown
    assert json.loads(Path("cooking/run.json").read_text())["config"]["concepts"] == "file"


def test_every_run_in_the_readme_has_a_folder_of_its_own():
    """So that no command is refused after another one."""
    runs = re.findall(r"^encyclo run .*$|`encyclo run --.*?`", README, flags=re.M)
    folders = [re.search(r"--out (\w+)", run) for run in runs]
    assert len(runs) >= 5 and all(folders) and len({found[1] for found in folders}) == len(runs)
    assert ".venv/bin/encyclo" not in README


def test_the_readme_links_every_page():
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    assert pages <= set(re.findall(r"\]\((docs/[\w-]+\.md)\)", README.partition("## All pages")[2]))


def test_the_readmes_line_about_export_names_the_extra_that_it_needs():
    line = next(line for line in README.splitlines() if line.startswith("| `encyclo export"))
    assert "pip install -e '.[export]'" in line


def test_the_plugin_in_the_readme_works(tmp_path: Path):
    module, entry_point = re.search(
        r"```python\n# my_sampler.py\n(.*?)```\n\n```toml\n(.*?)```", README, re.S
    ).groups()
    namespace: dict = {}
    exec(compile(module, "my_sampler.py", "exec"), namespace)
    from encyclo import Concept

    prompt = next(namespace["sample_prompts"]([Concept(id="dog", name="dog")]))
    assert prompt.text[slice(*prompt.span)] == "dog"
    assert tomllib.loads(entry_point)["project"]["entry-points"]["encyclo"] == {"tell": "my_sampler"}


def test_the_python_in_the_readme_works(tiny_run: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    code = (
        re.search(r"```python\nimport encyclo\n(.*?)```", README, re.S)
        .group(0)
        .strip("`")
        .removeprefix("python")
    )
    code = code.replace('"encyclopedia"', repr(str(tiny_run))).replace("deception", "animal")
    exec(compile(code, "README.md", "exec"), {})
    assert "(3, 32)" in capsys.readouterr().out
