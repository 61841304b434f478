"""Write a small package with one plugin: pyproject.toml, one module, one contract test, README."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from encyclo.errors import UsageError
from encyclo.plugins.manager import find_installed
from encyclo.version import __version__

KINDS = {
    "load_concepts": "concepts",
    "sample_prompts": "sampler",
    "load_model": "capture",
    "capture_layers": "capture",
    "store_activations": "store",
    "train_interpreter": "interpreter",
    "load_interpreter": "interpreter",
    "score_confidence": "scorer",
    "run_units": "executor",
}
"""Each hook, and the kind of plugin that implements it; a plugin of one kind implements all of its hooks."""
CONTRACTS = {
    "concepts": ("concepts", "ConceptsContract"),
    "sampler": ("samplers", "SamplerContract"),
    "capture": ("capture", "CaptureContract"),
    "store": ("stores", "StoreContract"),
    "interpreter": ("interpreters", "InterpreterContract"),
    "scorer": ("scorers", "ScorerContract"),
    "executor": ("executors", "ExecutorContract"),
}
"""Each kind's module in `encyclo.testing`, and its contract."""
NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")


def write_package(name: str, hook: str, parent: Path) -> Path:
    """Write a package with the plugin `name`, which implements `hook`, into a new folder in `parent`.

    Returns the folder. Raises UsageError for an unknown hook, an invalid name, or an existing folder.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    if hook not in KINDS:
        raise UsageError(
            f"There is no hook {hook!r} to write a plugin for; the hooks are: {', '.join(KINDS)}."
        )
    check_name(name)
    package = name.replace("_", "-") if name.startswith("encyclo") else f"encyclo-{name.replace('_', '-')}"
    module, kind = package.replace("-", "_"), KINDS[hook]
    folder = parent / package
    if folder.exists():
        raise UsageError(f"{folder} exists; choose another name, or another folder with --out.")
    contract_module, contract = CONTRACTS[kind]
    facts = {
        "name": name,
        "package": package,
        "module": module,
        "kind": kind,
        "title": "".join(word.capitalize() for word in re.split("[-_]", name)),
        "hooks": [other for other, its_kind in KINDS.items() if its_kind == kind],
        "contract_module": contract_module,
        "contract": contract,
        "use": "--config run.toml" if kind == "scorer" else f"--{kind} {name}",
        "encyclo": ".".join(__version__.split(".")[:2]),
    }
    # The values are checked above; they go into Python and TOML, where HTML escapes would be wrong.
    templates = Environment(
        loader=PackageLoader("encyclo.scaffold"), undefined=StrictUndefined, keep_trailing_newline=True
    )
    files = {
        "pyproject.toml": "pyproject.toml.j2",
        f"{module}.py": f"{kind}.py.j2",
        "test_contract.py": "test_contract.py.j2",
        "README.md": "README.md.j2",
    }
    texts = {file: templates.get_template(template).render(facts) for file, template in files.items()}
    try:
        folder.mkdir(parents=True)
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{folder} can't be written: {error.strerror}; choose another folder with --out."
        ) from error
    return folder


def check_name(name: str) -> None:
    """Raise UsageError if a name is invalid or belongs to an installed plugin."""
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise UsageError(f"{name!r} is a Python keyword; choose another name.")
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not a valid plugin name; use small letters a to z, digits, and single - or _ between "
            "them, and begin with a letter."
        )
    if taken := find_installed().get(name):
        raise UsageError(f"The name {name!r} is taken by {taken[0].origin}; choose another.")
