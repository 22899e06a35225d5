"""Memory that a process keeps for itself, so that a training step does not ask the system for it again each time.

What a step frees is what the next step needs. The allocator of glibc gives large blocks back at once, and the system
then maps and clears the same pages again, tens of thousands of them in a step of a convolutional network
(``python -m benchmarks memory`` measures what that costs).
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from pathlib import Path

RESERVE = 1 << 30
"""Bytes of addresses that are reserved at once; memory only where it is used."""

# of malloc.h and sys/mman.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
MADV_HUGEPAGE = 14
HUGE = 2 << 20

MOST_MAPPED = 32 << 20
"""The largest threshold that glibc takes: blocks from this size on are still given back."""


@functools.cache  # a second reservation would be another gigabyte
def keep_memory() -> bool:
    """Tell the allocator to keep what is freed, in a range of large pages.

    For the start of a process that computes; a library should leave such things to the program that it is part of.
    The process does not shrink after its peak. Nothing changes where the C library is not glibc, where another
    allocator is preloaded, where the environment has wishes of its own (``MALLOC_*``, ``GLIBC_TUNABLES``), or where
    addresses are limited.

    Returns:
        Whether the allocator was told.
    """
    if not sys.platform.startswith("linux"):
        return False
    import resource  # there is none elsewhere

    wishes = any(name.startswith("MALLOC_") for name in os.environ) or "GLIBC_TUNABLES" in os.environ
    limits = (resource.getrlimit(which)[0] for which in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    if wishes or "LD_PRELOAD" in os.environ or any(limit != resource.RLIM_INFINITY for limit in limits):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    libc.mallopt(M_MMAP_THRESHOLD, MOST_MAPPED)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(M_TOP_PAD, RESERVE)
    _grow(libc)
    _use_large_pages(libc)
    libc.mallopt(M_TOP_PAD, 2 * MOST_MAPPED)
    return True


def _grow(libc: ctypes.CDLL) -> None:
    """Allocate and free one block, by which the heap grows by the padding."""
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    libc.free(libc.malloc(MOST_MAPPED - 4096))


def _use_large_pages(libc: ctypes.CDLL) -> None:
    """Ask for large pages in the heap: fewer of them to map, and fewer addresses to translate."""
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith("[heap]"):
            first, last = (int(end, 16) for end in line.split()[0].split("-"))
            first = -(-first // HUGE) * HUGE
            if last > first:
                libc.madvise(first, last - first, MADV_HUGEPAGE)
