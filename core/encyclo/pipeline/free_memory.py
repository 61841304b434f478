"""Gives memory that was freed back to the system: a C library may keep it for later, and it counts as the process's."""

from __future__ import annotations

import ctypes
import sys


def give_back_freed_memory() -> None:
    """Ask the C library for the pages that hold nothing any more. Does nothing where it has no such function.

    glibc keeps what training freed between blocks that are still in use, over a quarter of the process's memory after
    1,000 concepts; the next step then adds to it.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; musl has none
        if trim is not None:
            trim(ctypes.c_size_t(0))
