"""What glibc's allocator keeps of memory that was freed: a server that lives long must bound it."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Of `mallopt` in malloc.h."""

_LARGE_BYTES = 8 << 20
"""Weights are larger, what a step computes with is smaller; the system clears a large block whenever it gives one."""

_ARENAS = 2


def bound() -> None:
    """Keep freed memory from growing in pieces; of no effect with another allocator than glibc's.

    By itself glibc gives each new thread a heap of its own, up to eight for each core, and after the first large block
    that is freed it takes such blocks from these heaps too, where small ones soon lie between them. Every bundle that
    takes another's place brings new threads and new large blocks.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_ARENA_MAX, _ARENAS)
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _LARGE_BYTES)


def give_back() -> None:
    """Let the system have what was freed."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
