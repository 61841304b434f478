"""A site of third parties' packages, and the flags of a run with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import third_party
from tests.third_party import ENGINE, Site

ROLES = ("concepts", "capture", "interpreter", "scorer", "model")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A folder on the path with the engine's package in it."""
    with third_party.open_site(tmp_path / "site-packages", monkeypatch) as opened:
        opened.install("engine", ENGINE)
        yield opened


@pytest.fixture
def flags(tmp_path: Path, site: Site) -> Callable[..., list[str]]:
    """Return a function: the flags of a run in which every part is the engine's, except for those given."""

    def write(**changed: Any) -> list[str]:
        values = {**dict.fromkeys(ROLES, "engine"), "sampler": ["engine"], "baselines": [], "layers": [0, 1]}
        values |= {"limit": 6, "per_concept": 16, **changed}
        lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        file = tmp_path / "run.toml"
        file.write_text("\n".join([*lines, "[engine]", "sharpness = 2.5", ""]))
        return ["--config", str(file)]

    return write
