"""Time and memory of a Python process, for the benchmarks that measure whole commands."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


def measured(
    arguments: Sequence[str | Path], log: Path, environment: Mapping[str, str] = os.environ
) -> dict[str, float]:
    """Run Python with `arguments`; return its wall and processor seconds and its peak memory in MB.

    What it prints is in the file `log`. Ends this program if the process fails.
    """
    begun = time.perf_counter()
    with log.open("w") as output:
        process = os.posix_spawn(
            sys.executable,
            [sys.executable, *map(str, arguments)],
            environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, output.fileno(), number) for number in (1, 2)],
        )
        _, status, used = os.wait4(process, 0)
    if status:
        sys.exit(f"{' '.join(map(str, arguments))} failed:\n{log.read_text()[-3000:]}")
    return {
        "wall_s": time.perf_counter() - begun,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mb": used.ru_maxrss / 1024,
    }
