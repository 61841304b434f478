"""Packages that one of encyclo's extras brings, such as pandas in `encyclo[pandas]`."""

from __future__ import annotations

import importlib.util

from encyclo.errors import MissingDependencyError


def require(package: str, what: str, extra: str, instead: str = "") -> None:
    """Raise MissingDependencyError if `package`, which `what` needs, is not installed; `instead` ends its sentence."""
    try:
        found = importlib.util.find_spec(package)
    except ValueError:  # sys.modules marks it as missing
        found = None
    if found is None:
        raise MissingDependencyError(
            f"{what} needs the package {package}, which is not installed; install it with: "
            f"pip install 'encyclo[{extra}]'{instead}"
        )
