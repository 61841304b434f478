"""Check a plugin's hooks, the encyclo it requires, and its results.

Every function returns the end of a sentence, to which `encyclo.plugins.manager` adds the plugin's name and
package, or None if nothing is wrong.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pluggy

from encyclo.version import __version__

GROUP = "encyclo"
ITERABLES = {"load_concepts": "Concepts", "sample_prompts": "Prompts", "capture_layers": "Samples"}
"""Hooks that return an iterable, and its items."""
HANDLES = {
    "load_model": (
        "a model",
        ("name", "source", "depth", "hidden_size", "dtype", "device", "weights_sha256", "forward", "tokens"),
    ),
    "store_activations": ("a store", ("write_part", "read_part", "finalise", "open")),
    "train_interpreter": ("an interpreter", ("concepts", "read", "add_concepts", "save")),
    "load_interpreter": ("an interpreter", ("concepts", "read", "add_concepts", "save")),
}
"""Hooks that return a handle, the handle's kind with its article, and its required attributes (see `encyclo.types`)."""


def hooks_fault(manager: pluggy.PluginManager, plugin: object) -> str | None:
    """Return why `plugin` can't be registered: a misspelt hook, an unknown argument …"""
    if type(plugin).__hash__ is None:
        return (
            f"is a {type(plugin).__name__}, which has no hash; make the entry point name a module or a class"
        )
    specs = {name: caller for name, caller in vars(manager.hook).items() if caller.has_spec()}
    found = 0
    for name in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        if options is None:
            continue
        found += 1
        if options.get("specname"):
            return f"marks {name} with specname, which encyclo does not support; give the function the hook's name"
        if name not in specs:
            return f"implements {name}, which is not a hook; {_meant(name, specs)}"
        fault = _arguments_fault(getattr(plugin, name), name, tuple(specs[name].spec.argnames))
        if fault:
            return fault
    if found:
        return None
    near = [name for name in specs if callable(getattr(plugin, name, None))]
    if near:
        return f"has a function {near[0]} that is not marked as a hook; put @encyclo.hookimpl above it"
    return None


def _arguments_fault(function: Any, hook: str, offered: Sequence[str]) -> str | None:
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            return f"takes *{parameter.name} in {hook}, which is never filled; name the arguments"
        if parameter.name not in offered:
            return (
                f"asks for the argument {parameter.name!r} in {hook}, which offers "
                f"{', '.join(offered)}; take only these"
            )
        if parameter.default is not parameter.empty:
            return (
                f"gives {parameter.name} a default in {hook}, so that it is never filled; remove the default"
            )
    return None


def _meant(name: str, specs: Iterable[str]) -> str:
    """Return `rename it to …` with the nearest hook, or the list of hooks."""
    near = difflib.get_close_matches(name, list(specs), n=1)
    return f"rename it to {near[0]}" if near else f"the hooks are {', '.join(sorted(specs))}"


def version_fault(distribution: importlib.metadata.Distribution | None) -> str | None:
    """Return which version of encyclo the package needs, if it is not this one, and the pip line to install it."""
    from packaging.requirements import InvalidRequirement, Requirement

    if distribution is None:
        return None
    for line in distribution.requires or []:
        try:
            needs = Requirement(line)
        except InvalidRequirement:
            continue
        if needs.name.lower() != GROUP or (needs.marker and not needs.marker.evaluate({"extra": ""})):
            continue
        if not needs.specifier.contains(__version__, prereleases=True):
            return (
                f"needs encyclo {needs.specifier}, and encyclo {__version__} is installed; "
                f"install versions that fit: pip install --upgrade {distribution.name} 'encyclo{needs.specifier}'"
            )
    return None


def result_fault(hook: str, result: object, arguments: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the result of `hook`."""
    kind = with_article(result)
    if result is None:
        return f"returned nothing from {hook}"
    if hook in ITERABLES:
        if isinstance(result, Iterable) and not isinstance(result, str | bytes | Mapping):
            return None
        return f"returned {kind} from {hook}, but must return an iterable of {ITERABLES[hook]}"
    if hook in HANDLES:
        what, parts = HANDLES[hook]
        lacking = [part for part in parts if not _has(result, part)]
        return (
            f"returned {kind} from {hook}, which is not {what}: it has no {lacking[0]}" if lacking else None
        )
    if hook == "score_confidence":
        return _scores_fault(result, len(arguments["interpreter"].concepts))
    if hook == "check_capture" and not isinstance(result, Mapping):
        return f"returned {kind} from {hook}, but must return each check's worst value"
    if hook == "end_run" and not isinstance(result, str):
        return f"returned {kind} from {hook}, but must return a text"
    return None


def with_article(value: object) -> str:
    """Return the value's type with its article: `a list`, `an int`."""
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"


def _has(handle: object, part: str) -> bool:
    """Return whether `handle` has `part`, without computing it: a hash of the weights takes a while."""
    if isinstance(handle, type):
        return False
    try:
        inspect.getattr_static(handle, part)
    except AttributeError:
        return part in getattr(type(handle), "__annotations__", {}) or (
            hasattr(type(handle), "__getattr__") and hasattr(handle, part)
        )
    return True


def _scores_fault(result: object, concepts: int) -> str | None:
    from encyclo.types import Scores

    if not isinstance(result, Scores):
        return f"returned {with_article(result)} from score_confidence, but must return Scores"
    for name in ("confidence", "low", "high"):
        shape = getattr(getattr(result, name), "shape", None)
        if shape != (concepts,):
            return f"returned Scores whose {name} has the shape {shape}, not ({concepts},): one value per concept"
    return None
