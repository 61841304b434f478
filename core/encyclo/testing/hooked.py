"""The base of contracts of hooks that get a context: options, contexts, another process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from encyclo.plugins.manager import Plugins
from encyclo.testing.contract import Contract, require
from encyclo.types import Context


class HookContract(Contract):
    """A contract whose plugin is called by `encyclo.plugins.manager`, as in a run."""

    options: ClassVar[Mapping[str, Any]] = {}
    """The plugin's options for the checks, as given by `-o NAME.key=value`."""
    hooks: ClassVar[tuple[str, ...]] = ()
    """The hooks that the plugin must implement."""

    def call(self, hook: str, **arguments: Any) -> Any:
        """Call the plugin's `hook` as a new run does: find and load it by name."""
        return Plugins().call(hook, self.plugin, **arguments)

    def filled_options(self) -> Any:
        """Return the plugin's options model, filled with `options`."""
        return Plugins().options(self.plugin, dict(self.options))

    def context(self, folder: Path, seed: int = 0, **more: Any) -> Context:
        """Return the context of a run in `folder`; override it to add a model."""
        return Context(seed, "cpu", self.filled_options(), folder / "plugins" / self.plugin, **more)

    def check_it_is_installed(self, folder: Path) -> None:
        """It is found by its name, loads, implements the contract's hooks, and takes its options."""
        plugins = Plugins()
        for hook in self.hooks:
            plugins.require(hook, self.plugin)
        plugins.options(self.plugin, dict(self.options))


def in_another_process(code: str, *arguments: str) -> str:
    """Return what `code` prints in another Python process, which hashes strings differently."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    environment["PYTHONHASHSEED"] = "271828"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, timeout=600
    )
    require(done.returncode == 0, f"Another process failed: {done.stderr.strip()[-1000:]}")
    return done.stdout.strip()
