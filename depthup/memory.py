"""How this process takes memory from the system."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h

LARGEST_KEPT = 1 << 30
"""Bytes up to which a block that is freed is kept for the next one."""


def keep_freed_memory() -> None:
    """Keep large blocks that are freed instead of returning them to the system, where the C library is glibc.

    It returns every block of more than 32 MB at once, and what the system gives for the next one is zeroed page by
    page: about half of the time of 1920x1440 pixels on two cores. For a process that is nothing but depthup; in others,
    set `MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=2147483647` in its environment.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_MMAP_THRESHOLD, LARGEST_KEPT)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
