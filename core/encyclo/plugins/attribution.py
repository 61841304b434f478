"""Whose code an error came from: with hook wrappers around it, not always the chosen plugin's.

An error's traceback ends where it was raised. Going up from there, the first function that belongs to one of
the plugins in play is to blame: by its hook implementation, else by its module, else by its package.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any


@dataclass(frozen=True)
class Suspect:
    """A plugin that took part in a call: its name, the registered object, the module of its entry point."""

    name: str
    plugin: object
    module: str


def culprit(error: BaseException, suspects: Sequence[Suspect], callers: Iterable[Any]) -> str | None:
    """Return the name of the plugin that `error` came from; None where no frame is any suspect's.

    `callers` are pluggy's hook callers: they know which function implements which hook for whom.
    """
    implementations = dict(_implementations(suspects, callers))
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        code = frame.f_code
        if code in implementations:
            return implementations[code]
        module = str(frame.f_globals.get("__name__", ""))
        for exact in (True, False):
            owners = [s.name for s in suspects if _belongs(module, s.module, exact)]
            if len(owners) == 1:
                return owners[0]
    # A wrapper that never yields, or does so twice, is told of by pluggy, which names the function's place.
    for code, name in implementations.items():
        if f"{code.co_filename}:{code.co_firstlineno}" in str(error):
            return name
    return None


def _implementations(suspects: Sequence[Suspect], callers: Iterable[Any]) -> Iterator[tuple[CodeType, str]]:
    for caller in callers:
        for found in caller.get_hookimpls():
            for suspect in suspects:
                if found.plugin is suspect.plugin:
                    yield inspect.unwrap(found.function).__code__, suspect.name


def _belongs(module: str, owner: str, exact: bool) -> bool:
    if exact:
        return module == owner
    return module.partition(".")[0] == owner.partition(".")[0]
