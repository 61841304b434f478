"""The base of all contracts: named checks, each with a docstring that says what it requires, and known failures.

Subclass a contract in a test module and name the plugin; pytest then runs one test for each check:

    class TestMyStore(StoreContract):
        plugin = "mystore"
        known_failures = {"survives_power_cuts": "SQLite syncs by itself, unseen by encyclo.storage.files"}

A known failure must fail: one that passes is reported, so that the list stays correct.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

PREFIX = "check_"


class ContractError(AssertionError):
    """A plugin breaks its contract; the message says how."""


@dataclass(frozen=True)
class Finding:
    """The result of one check: `problem` is None if the plugin passed."""

    check: str
    asks: str
    problem: str | None
    known: str | None
    """The reason given in known_failures."""

    @property
    def kept(self) -> bool:
        """Return whether the check went as expected: passed, or failed as listed."""
        return (self.problem is None) == (self.known is None)


class Contract:
    """Checks for the plugins of one hook; a subclass has methods `check_NAME(folder)`."""

    plugin: ClassVar[str]
    """The plugin's name, as on the command line."""
    known_failures: ClassVar[Mapping[str, str]] = {}
    """Checks that this plugin is known to fail, with the reasons."""
    slow_checks: ClassVar[frozenset[str]] = frozenset()
    """Checks that pytest marks `slow`; register the marker where markers are strict."""

    @classmethod
    def checks(cls) -> dict[str, str]:
        """Return every check's name and what it requires, in the order of their definitions."""
        found: dict[str, str] = {}
        for base in reversed(cls.__mro__):
            for name in vars(base):
                if name.startswith(PREFIX):
                    found[name.removeprefix(PREFIX)] = inspect.getdoc(getattr(cls, name)) or ""
        return found

    def find(self, check: str, folder: Path) -> Finding:
        """Run one check in the empty `folder` and return its result."""
        problem = None
        try:
            getattr(self, PREFIX + check)(folder)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        return Finding(check, self.checks()[check], problem, self.known_failures.get(check))

    def report(self, folder: Path) -> list[Finding]:
        """Run every check, each in a folder of its own below `folder`."""
        findings = []
        for check in self.checks():
            place = folder / check
            place.mkdir()
            findings.append(self.find(check, place))
        return findings

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Give pytest one test for each check. Raises ContractError if a known failure names no check."""
        import pytest

        strangers = sorted({*self.known_failures, *self.slow_checks} - set(self.checks()))
        if strangers:
            raise ContractError(
                f"{type(self).__name__} names {', '.join(strangers)} in known_failures or slow_checks, but the checks "
                f"are {', '.join(self.checks())}; correct the name."
            )
        if "check" in metafunc.fixturenames:
            slow = {name: pytest.mark.slow for name in self.slow_checks}
            names = [pytest.param(name, marks=slow.get(name, ())) for name in self.checks()]
            metafunc.parametrize("check", names)

    def test_contract(self, check: str, tmp_path: Path) -> None:
        """Run one named check; `pytest -v` lists them."""
        import pytest

        reason = self.known_failures.get(check)
        if reason is None:
            getattr(self, PREFIX + check)(tmp_path)
            return
        if self.find(check, tmp_path).problem is None:
            raise ContractError(f"The check {check} passes; remove it from known_failures.")
        pytest.xfail(reason)


def require(kept: Any, problem: str) -> None:
    """Raise ContractError with `problem` unless `kept`; works under `python -O` too."""
    if not kept:
        raise ContractError(problem)
