"""Check a plugin's hooks and the encyclo it requires (`encyclo.plugins.answers` checks what hooks return).

Every function returns the end of a sentence, to which `encyclo.plugins.manager` adds the plugin's name and
package, or None if nothing is wrong.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import pluggy

from encyclo.version import __version__

GROUP = "encyclo"


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
