"""How threads wait for work: asleep, so that two commands on one machine don't hold each other up."""

from __future__ import annotations

import os

OPENMP = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Variables by which users choose how an OpenMP library's threads wait; a library reads them when it is loaded."""
OPENBLAS = "OPENBLAS_THREAD_TIMEOUT"
"""How long a thread of OpenBLAS (NumPy's and SciPy's matrix products) spins: 2 to this power processor cycles. The
default, 26, is 20 to 30 ms after every product."""
SHORTEST = "4"


def let_waiting_threads_sleep() -> None:
    """Choose sleep for this process and its children, unless the user chose how threads wait.

    Call it before numpy or torch is imported: their libraries read the variables when they are loaded.
    """
    if not any(name in os.environ for name in OPENMP):
        os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ.setdefault(OPENBLAS, SHORTEST)
