"""Freed memory goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Blocks too small to be mapped on their own; the last one stays, so that the C library can't lower its heap by itself.
PROGRAM = """
import psutil
from encyclo.pipeline.free_memory import give_back_freed_memory
blocks = [bytes(60_000) for _ in range(3_000)]
last = blocks[-1]
del blocks
before = psutil.Process().memory_info().rss
give_back_freed_memory()
print(before - psutil.Process().memory_info().rss, len(last))
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed memory and can give it back"
)
def test_memory_between_blocks_in_use_goes_back():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    given_back, kept = map(int, done.stdout.split())
    assert given_back > 100e6 and kept == 60_000
