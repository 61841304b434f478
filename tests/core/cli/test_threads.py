"""How threads wait: the command chooses, unless the user did. Measured in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

SCRIPT = """
import json, os, subprocess, sys
import encyclo.cli
early = sorted({"numpy", "torch", "scipy", "sklearn"} & sys.modules.keys())
encyclo.cli.run_command = lambda arguments: 0
try:
    encyclo.cli.main()
except SystemExit:
    pass
finally:
    names = ("OMP_WAIT_POLICY", "OPENBLAS_THREAD_TIMEOUT")
    child = f"import json, os; print(json.dumps([os.environ.get(name) for name in {names}]))"
    seen = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout
    print(json.dumps([early, [os.environ.get(name) for name in names], json.loads(seen)]))
"""


VARIABLES = ("OMP_", "GOMP_", "KMP_", "OPENBLAS_")


def others() -> dict[str, str]:
    """Return the environment without variables about threads."""
    return {name: value for name, value in os.environ.items() if not name.startswith(VARIABLES)}


def waiting(**given: str) -> list[Any]:
    """Return what a command of `encyclo` sees: [libraries loaded too early, its variables, its child's variables]."""
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], env={**others(), **given}, capture_output=True, text=True, check=True
    )
    found: list[Any] = json.loads(result.stdout)
    return found


def test_waiting_threads_of_the_command_and_its_children_sleep():
    assert waiting() == [[], ["passive", "4"], ["passive", "4"]]


@pytest.mark.parametrize(
    ("given", "stays"),
    [
        ({"OMP_WAIT_POLICY": "active"}, ["active", "4"]),
        ({"GOMP_SPINCOUNT": "2000"}, [None, "4"]),
        ({"KMP_BLOCKTIME": "200"}, [None, "4"]),
        ({"OPENBLAS_THREAD_TIMEOUT": "20"}, ["passive", "20"]),
    ],
)
def test_what_the_user_chose_stays(given: dict[str, str], stays: list[str | None]):
    assert waiting(**given)[1] == stays


def test_openmp_reads_the_policy():
    """libgomp prints what it read when torch loads it; other OpenMP libraries print nothing that is tested here."""
    code = (
        "import os; from encyclo.cli.threads import let_waiting_threads_sleep as call; call(); "
        "os.environ['OMP_DISPLAY_ENV'] = 'true'; import torch; torch.ones(3)"
    )
    shown = subprocess.run([sys.executable, "-c", code], env=others(), capture_output=True, text=True).stderr
    if "OMP_WAIT_POLICY" not in shown:
        pytest.skip("this torch uses an OpenMP library that shows no policy")
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in shown
